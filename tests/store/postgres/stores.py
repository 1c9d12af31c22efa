"""PostgreSQL stores for tests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from zope.interface import implementer

from chatd.interfaces import IAnnouncer, IStore
from chatd.model import Message
from chatd.postgres import connection
from chatd.postgres.address import parse
from chatd.postgres.notify_payloads import NodeId
from chatd.store.postgres.retry import DEADLINE_SECONDS
from chatd.store.postgres.store import PostgresStore
from tests.contracts.helpers import (
    OpenStore,
)


class Everybody:
    """The users that are listened to."""

    def __contains__(self, user_id: object) -> bool:
        return True


@implementer(IAnnouncer)
class Announcer:
    """Tells nobody."""

    def announce_messages(self, messages: Sequence[Message]) -> None:
        pass

    def announce_changes(self, user_ids: Collection[int]) -> None:
        pass

    def announce_changed(self, received_by: int, seq: int, sent_by: int) -> None:
        pass

    def announce_revoked(self, user_id: int, token: bytes | None) -> None:
        pass

    def announce_sessions_changed(self, user_id: int) -> None:
        pass

    def announce_removed(self, inboxes: Sequence[tuple[int, int]]) -> None:
        pass

    def announce_unknown(self, user_ids: Collection[int], *, sessions: bool = False) -> None:
        pass


def store_at(url: str, deadline: float = DEADLINE_SECONDS, **options: Any) -> PostgresStore:
    """A store like that of the daemon."""
    from twisted.internet import reactor

    return PostgresStore(
        parse(url),
        reactor=reactor,
        now=lambda: time.time_ns() // 1000,
        node_id=NodeId(),
        deadline=deadline,
        **options,
    )


async def two_stores(open_store: OpenStore) -> tuple[IStore, IStore]:
    """Open the stores of two processes on one database."""
    return await open_store(), await open_store()


@contextlib.contextmanager
def losing_results(store: PostgresStore, times: int) -> Iterator[None]:
    """Close the connection before the results of the next `times` statements arrive."""
    query = connection.Connection.query
    left = times

    def lose(
        self: connection.Connection,
        sql: str,
        parameters: Any = None,
        *,
        prepare: bool = False,
        guard: str = "",
    ) -> Any:
        async def run() -> Any:
            nonlocal left
            found = await query(self, sql, parameters, prepare=prepare, guard=guard)
            if left and sql not in (connection._PID, connection._PLANNING):
                left -= 1
                self.abort()
                raise ConnectionDone
            return found

        return Deferred.fromCoroutine(run())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection.Connection, "query", lose)
        yield
    assert not left
