"""Administration of accounts on PostgreSQL, as an `IAdminStore`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from chatd.interfaces import IAdminStore
from chatd.model import AccountState
from chatd.runtime.awaitables import as_deferred
from chatd.store.postgres.layout import Layout


@implementer(IAdminStore)
class PostgresAdminStore:
    """An `IAdminStore`.

    `layout` returns the layout of the store, which is open. `now` returns microseconds since the
    Unix epoch; `end_sessions` runs what ends sessions of a user; it is given a function from the id
    of this process to the work. `remove_old` see `Retention.run`.
    """

    def __init__(
        self,
        layout: Callable[[], Layout],
        end_sessions: Callable[[int, Callable[[str], Awaitable[bool]]], Deferred[bool]],
        now: Callable[[], int],
        remove_old: Callable[[int], Coroutine[Deferred[Any], Any, int]],
    ) -> None:
        self._layout = layout
        self._end_sessions = end_sessions
        self._now = now
        self._remove_old = remove_old

    def accounts(self, after: int, limit: int) -> Deferred[list[AccountState]]:
        return as_deferred(self._layout().account_states(after, limit, self._now()))

    def account_named(self, username: str) -> Deferred[AccountState | None]:
        return as_deferred(self._layout().account_state_named(username, self._now()))

    def set_password(self, user_id: int, password_hash: str) -> Deferred[bool]:
        layout = self._layout()
        return self._end_sessions(
            user_id, lambda node_id: layout.set_password(user_id, password_hash, node_id)
        )

    def disable(self, user_id: int) -> Deferred[bool]:
        layout, at = self._layout(), self._now()
        return self._end_sessions(user_id, lambda node_id: layout.disable(user_id, at, node_id))

    def remove_old(self, before: int) -> Deferred[int]:
        return Deferred.fromCoroutine(self._remove_old(before))

    def recipients(self, user_id: int) -> Deferred[list[int]]:
        return as_deferred(self._layout().recipients(user_id))

    def enable(self, user_id: int) -> Deferred[bool]:
        return as_deferred(self._layout().enable(user_id))
