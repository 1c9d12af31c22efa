"""The store whose commits a bus announces: the statements without NOTIFY pass their contracts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from pytest_twisted import async_yield_fixture

from chatd.interfaces import IStore
from chatd.store.postgres.store import PostgresStore
from tests.contracts.helpers import OpenStore
from tests.contracts.store_append import AppendContract
from tests.contracts.store_revisions import RevisionsContract
from tests.contracts.store_sync import SyncContract
from tests.postgres_server import Databases
from tests.store.postgres.stores import Announcer, Everybody, store_at


@async_yield_fixture
async def open_store(
    postgres: Databases, emptied_postgres_database: str, pooled: Callable[[str], str]
) -> AsyncIterator[OpenStore]:
    opened: list[PostgresStore] = []

    async def open_one(**options: Any) -> IStore:
        url = pooled(postgres.url(emptied_postgres_database))
        opened.append(store_at(url, announcer=Announcer(), listened=Everybody(), **options))
        await opened[-1].open()
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


class TestSilentStore(AppendContract, RevisionsContract, SyncContract):
    """The contracts of what is written differently."""
