"""Fixtures of the tests of the sharded layout, on a made-up Citus."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from pytest_twisted import async_yield_fixture

from chatd.interfaces import IStore
from chatd.store.postgres import retention
from chatd.store.postgres.store import PostgresStore
from tests.contracts.helpers import CopyDatabase, OpenStore
from tests.postgres_server import Databases, connected
from tests.store.sharded.made_up_citus import make_up_citus, shard
from tests.store.sharded.stores import sharded_store_at


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes need no time to hear of what is removed."""
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0.0)


@pytest.fixture(scope="session")
def sharded_template(postgres: Databases, postgres_template: str) -> str:
    """The name of a template database in the sharded layout."""
    name = postgres.create(postgres_template)
    with connected(postgres.url(name)) as db:
        make_up_citus(db)
        shard(db)
    return name


@pytest.fixture
def sharded_database(postgres: Databases, sharded_template: str) -> Iterator[str]:
    """The name of a new database in the sharded layout; dropped after the test."""
    name = postgres.create(sharded_template)
    yield name
    postgres.drop(name)


@pytest.fixture
def copy_database(postgres: Databases, sharded_database: str) -> CopyDatabase:
    async def copy() -> Callable[[], Awaitable[None]]:
        made = postgres.create(sharded_database)

        async def put_back() -> None:
            postgres.put_back(made, sharded_database)

        return put_back

    return copy


@async_yield_fixture
async def open_store(postgres: Databases, sharded_database: str) -> AsyncIterator[OpenStore]:
    opened: list[PostgresStore] = []

    async def open_one(**options: Any) -> IStore:
        store = sharded_store_at(postgres.url(sharded_database), **options)
        opened.append(store)
        await store.open()
        return store

    yield open_one
    for store in opened:
        await store.close()
