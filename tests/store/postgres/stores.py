"""PostgreSQL stores for tests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone

from chatd.interfaces import IStore
from chatd.postgres import connection
from chatd.postgres.address import parse
from chatd.postgres.notify_payloads import NodeId
from chatd.store.postgres.retry import DEADLINE_SECONDS
from chatd.store.postgres.store import PostgresStore
from tests.contracts.helpers import (
    OpenStore,
)


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
