"""Fixtures of the tests of the PostgreSQL store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pytest_twisted import async_yield_fixture

from chatd.interfaces import IStore
from chatd.store.postgres.store import PostgresStore
from tests.contracts.helpers import (
    OpenStore,
)
from tests.postgres_server import Databases
from tests.store.postgres.stores import store_at


@async_yield_fixture
async def open_store(postgres: Databases, postgres_database: str) -> AsyncIterator[OpenStore]:
    opened: list[PostgresStore] = []

    async def open_one(**options: Any) -> IStore:
        store = store_at(postgres.url(postgres_database), **options)
        opened.append(store)
        await store.open()
        return store

    yield open_one
    for store in opened:
        await store.close()
