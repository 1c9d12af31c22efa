"""Administration of accounts in SQLite, as an `IAdminStore`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from chatd.interfaces import IAdminStore
from chatd.model import AccountState
from chatd.store import admin_statements
from chatd.store.sqlite.transactions import execute, transaction


@implementer(IAdminStore)
class SqliteAdminStore:
    """An `IAdminStore`; `read` and `write` run a function of a connection in the store's threads.

    `now` returns microseconds since the Unix epoch, `remove_old` see `Retention.run`.
    """

    def __init__(
        self,
        read: Callable[..., Deferred[Any]],
        write: Callable[..., Deferred[Any]],
        now: Callable[[], int],
        remove_old: Callable[[int], Coroutine[Deferred[Any], Any, int]],
    ) -> None:
        self._read = read
        self._write = write
        self._now = now
        self._remove_old = remove_old

    def accounts(self, after: int, limit: int) -> Deferred[list[AccountState]]:
        return self._read(execute, admin_statements.accounts(after, limit, self._now()))

    def account_named(self, username: str) -> Deferred[AccountState | None]:
        return self._read(execute, admin_statements.account_named(username, self._now()))

    def set_password(self, user_id: int, password_hash: str) -> Deferred[bool]:
        parameters = {"user_id": user_id, "password_hash": password_hash}
        return self._write(_end_sessions, admin_statements.SET_PASSWORD, parameters)

    def disable(self, user_id: int) -> Deferred[bool]:
        parameters = {"user_id": user_id, "at": self._now()}
        return self._write(_end_sessions, admin_statements.DISABLE, parameters)

    def remove_old(self, before: int) -> Deferred[int]:
        return Deferred.fromCoroutine(self._remove_old(before))

    def recipients(self, user_id: int) -> Deferred[list[int]]:
        return self._read(execute, admin_statements.recipients(user_id))

    def enable(self, user_id: int) -> Deferred[bool]:
        return self._write(execute, admin_statements.enable(user_id))


def _end_sessions(db: sqlite3.Connection, change: str, parameters: Mapping[str, object]) -> bool:
    """Run a change of an account, and revoke its tokens; False if there is no account."""
    with transaction(db):
        if not db.execute(change, parameters).rowcount:
            return False
        db.execute(admin_statements.REVOKE_ALL, parameters)
    return True
