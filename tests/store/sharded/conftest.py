"""Fixtures of the tests of the sharded layout, on a made-up Citus or a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn
from pytest_twisted import async_yield_fixture

from chatd.interfaces import IStore
from chatd.store.postgres import retention
from chatd.store.postgres.store import PostgresStore
from tests.contracts.helpers import CopyDatabase, OpenStore
from tests.postgres_server import Databases, connected
from tests.store.sharded.cluster import Cluster, given
from tests.store.sharded.daemon_role import OWNER, url_of_role
from tests.store.sharded.made_up_citus import EMPTYING, make_up_citus, shard
from tests.store.sharded.stores import sharded_store_at


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes need no time to hear of what is removed."""
    monkeypatch.setattr(retention, "GRACE_SECONDS", 0.0)


@pytest.fixture(scope="session")
def cluster() -> Cluster | None:
    """The real cluster, if there is one."""
    url = given()
    return None if url is None else Cluster(url)


@pytest.fixture(scope="session")
def sharded_template(postgres: Databases, postgres_template: str) -> str:
    """The name of a template database in the sharded layout."""
    name = postgres.create(postgres_template)
    with connected(postgres.url(name)) as db:
        make_up_citus(db)
        shard(db)
    return name


@pytest.fixture(scope="session")
def shared_database(postgres: Databases, sharded_template: str) -> str:
    """The name of a database in the sharded layout that tests use one after another."""
    return postgres.create(sharded_template)


@pytest.fixture
def sharded_url(request: pytest.FixtureRequest, cluster: Cluster | None) -> str:
    """An empty database in the sharded layout."""
    if cluster is not None:
        cluster.reset()
        return cluster.url
    postgres: Databases = request.getfixturevalue("postgres")
    name: str = request.getfixturevalue("shared_database")
    postgres.empty(name, EMPTYING)
    return postgres.url(name)


@pytest.fixture
def copy_database(
    request: pytest.FixtureRequest, sharded_url: str, cluster: Cluster | None
) -> CopyDatabase:
    async def copy() -> Callable[[], Awaitable[None]]:
        if cluster is not None:
            put_rows_back = cluster.copy()
        else:
            postgres: Databases = request.getfixturevalue("postgres")
            name = parse_dsn(sharded_url)["dbname"]
            made = postgres.create(name)
            put_rows_back = partial(postgres.put_back, made, name)

        async def put_back() -> None:
            put_rows_back()

        return put_back

    return copy


@pytest.fixture
def store_url(request: pytest.FixtureRequest, sharded_url: str, cluster: Cluster | None) -> str:
    """The database as the role that the parameter names: its owner, or one without any rights."""
    is_owner = getattr(request, "param", OWNER) == OWNER
    url = sharded_url if is_owner else url_of_role(sharded_url)
    if cluster is not None:
        return url
    pooled: Callable[[str], str] = request.getfixturevalue("pooled")
    return pooled(url)


@async_yield_fixture
async def open_store(store_url: str) -> AsyncIterator[OpenStore]:
    opened: list[PostgresStore] = []

    async def open_one(**options: Any) -> IStore:
        store = sharded_store_at(store_url, **options)
        opened.append(store)
        await store.open()
        return store

    yield open_one
    for store in opened:
        await store.close()
