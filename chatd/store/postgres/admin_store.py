"""Administration of accounts on PostgreSQL, as an `IAdminStore`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from chatd.interfaces import IAdminStore
from chatd.model import AccountState
from chatd.postgres.notify_payloads import CHANNEL, SessionsNotice, encode
from chatd.store import admin_statements
from chatd.store.admin_statements import DISABLE, IS_ACCOUNT, REVOKE_ALL, SET_PASSWORD
from chatd.store.postgres.accounts import ACCOUNTS
from chatd.store.postgres.retry import RetryingExecutor
from chatd.store.statements import Statement

# Several statements in one transaction, each of which sees what was committed before it began: the
# later ones miss no token from before the account's row was locked. All are safe to repeat.
_END_SESSIONS: Final = f"""
{REVOKE_ALL};
SELECT pg_notify(:channel, :payload) FROM ({IS_ACCOUNT}) AS found
"""
_SET_PASSWORD: Final = f"{SET_PASSWORD};{_END_SESSIONS}"
_DISABLE: Final = f"{DISABLE};{_END_SESSIONS}"


@implementer(IAdminStore)
class PostgresAdminStore:
    """An `IAdminStore`.

    `now` returns microseconds since the Unix epoch; `notify` runs a statement that ends sessions of
    a user; it is given a function from the id of this process to the statement. `remove_old` see
    `Retention.run`.
    """

    def __init__(
        self,
        executor: RetryingExecutor,
        notify: Callable[[int, Callable[[str], Statement[bool]]], Deferred[bool]],
        now: Callable[[], int],
        remove_old: Callable[[int], Coroutine[Deferred[Any], Any, int]],
    ) -> None:
        self._executor = executor
        self._notify = notify
        self._now = now
        self._remove_old = remove_old

    def accounts(self, after: int, limit: int) -> Deferred[list[AccountState]]:
        return self._executor.execute(
            admin_statements.accounts(after, limit, self._now(), ACCOUNTS)
        )

    def account_named(self, username: str) -> Deferred[AccountState | None]:
        return self._executor.execute(
            admin_statements.account_named(username, self._now(), ACCOUNTS)
        )

    def set_password(self, user_id: int, password_hash: str) -> Deferred[bool]:
        return self._end_sessions(_SET_PASSWORD, user_id, password_hash=password_hash)

    def disable(self, user_id: int) -> Deferred[bool]:
        return self._end_sessions(_DISABLE, user_id, at=self._now())

    def remove_old(self, before: int) -> Deferred[int]:
        return Deferred.fromCoroutine(self._remove_old(before))

    def recipients(self, user_id: int) -> Deferred[list[int]]:
        return self._executor.execute(admin_statements.recipients(user_id))

    def enable(self, user_id: int) -> Deferred[bool]:
        return self._executor.execute(admin_statements.enable(user_id))

    def _end_sessions(self, sql: str, user_id: int, **parameters: Any) -> Deferred[bool]:
        def statement(node_id: str) -> Statement[bool]:
            notice = {"channel": CHANNEL, "payload": encode(node_id, SessionsNotice(user_id))}
            return Statement(sql, {"user_id": user_id, **parameters, **notice}, bool)

        return self._notify(user_id, statement)
