"""Fixtures of the tests of the PostgreSQL store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pytest_twisted import async_yield_fixture

from chatd.interfaces import IStore
from chatd.store.postgres import retention
from chatd.store.postgres.store import PostgresStore
from tests.contracts.helpers import (
    CopyDatabase,
    OpenStore,
)
from tests.postgres_server import Databases
from tests.store.postgres.stores import store_at


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes need no time to hear of what is removed."""
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0.0)


@pytest.fixture
def copy_database(postgres: Databases, postgres_database: str) -> CopyDatabase:
    async def copy() -> Callable[[], Awaitable[None]]:
        made = postgres.create(postgres_database)

        async def put_back() -> None:
            postgres.put_back(made, postgres_database)

        return put_back

    return copy


@pytest.fixture
def store_url(postgres: Databases, postgres_database: str) -> str:
    """The database of `open_store`."""
    return postgres.url(postgres_database)


@async_yield_fixture
async def open_store(store_url: str) -> AsyncIterator[OpenStore]:
    opened: list[PostgresStore] = []

    async def open_one(**options: Any) -> IStore:
        store = store_at(store_url, **options)
        opened.append(store)
        await store.open()
        return store

    yield open_one
    for store in opened:
        await store.close()
