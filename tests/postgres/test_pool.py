"""Connection pool: lending, waiting, replacing lost connections."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet.defer import Deferred

from chatd.postgres.address import parse
from chatd.postgres.connection import Connection
from chatd.postgres.pool import Pool, PoolTimeout, TooManyRequests
from tests.postgres_server import Databases, Server, sleep

OpenPool: TypeAlias = Callable[..., Awaitable[Pool]]


@async_yield_fixture
async def open_pool(postgres: Databases, shared_postgres_database: str) -> AsyncIterator[OpenPool]:
    from twisted.internet import reactor

    opened: list[Pool] = []

    async def open_one(url: str | None = None, **options: Any) -> Pool:
        address = parse(url or postgres.url(shared_postgres_database))
        opened.append(Pool(address, reactor, random=lambda: 0.5, **options))
        await opened[-1].open()
        return opened[-1]

    yield open_one
    for pool in opened:
        await pool.close()


def acquire(pool: Pool, seconds: float = 10, *, fail_fast: bool = True) -> Deferred[Connection]:
    """Start acquiring a connection."""
    from twisted.internet import reactor

    deadline = reactor.seconds() + seconds
    return Deferred.fromCoroutine(pool.acquire(deadline, fail_fast=fail_fast))


@ensureDeferred
async def test_a_connection_is_lent_to_one_caller_at_a_time(open_pool: OpenPool) -> None:
    waits: list[float] = []
    pool = await open_pool(size=1, observe_wait=waits.append)
    connection = await acquire(pool)
    assert waits == []
    first, second = acquire(pool), acquire(pool)
    assert pool.waiting == 2
    await sleep(0.05)
    pool.release(connection)
    assert await first is connection
    assert not second.called
    assert pool.waiting == 1
    pool.release(connection)
    assert await second is connection
    assert len(waits) == 2
    assert all(0.04 < wait < 5 for wait in waits)
    pool.release(connection)
    assert await acquire(pool) is connection


@ensureDeferred
async def test_callers_wait_until_their_deadline(open_pool: OpenPool) -> None:
    waits: list[float] = []
    pool = await open_pool(size=1, observe_wait=waits.append)
    connection = await acquire(pool)
    with pytest.raises(PoolTimeout):
        await acquire(pool, 0.05)
    assert pool.waiting == 0
    [wait] = waits
    assert wait >= 0.04
    pool.release(connection)
    # A connection is free, but there is no time left to use it.
    with pytest.raises(PoolTimeout):
        await acquire(pool, 0)


@ensureDeferred
async def test_the_number_of_waiting_callers_is_bounded(open_pool: OpenPool) -> None:
    pool = await open_pool(size=1, max_waiting=1)
    connection = await acquire(pool)
    waiting = acquire(pool)
    with pytest.raises(TooManyRequests):
        await acquire(pool)
    pool.release(connection)
    assert await waiting is connection


@ensureDeferred
async def test_a_discarded_connection_is_replaced(open_pool: OpenPool) -> None:
    pool = await open_pool(size=1)
    connection = await acquire(pool)
    pool.discard(connection, "it is broken")
    pool.release(connection)
    assert (pool.connections, pool.is_down, pool.reconnects) == (0, True, 1)
    replacement = await acquire(pool)
    assert replacement is not connection
    assert replacement.is_open
    assert (pool.connections, pool.is_down) == (1, False)


@ensureDeferred
async def test_without_a_server_callers_are_refused_after_a_while(
    open_pool: OpenPool, own_server: Server
) -> None:
    pool = await open_pool(own_server.url(), size=1, fail_fast_seconds=0.1)
    recovered: list[bool] = []
    pool.on_recovered = lambda: recovered.append(pool.is_down)
    own_server.stop(signal.SIGQUIT)
    try:
        while pool.connections:
            await sleep(0.01)
        waiting = acquire(pool)
        await sleep(0.15)
        assert not waiting.called
        with pytest.raises(PoolTimeout):
            await acquire(pool)
        patient = acquire(pool, fail_fast=False)
        assert pool.waiting == 2
        assert recovered == []
    finally:
        own_server.start()
    pool.release(await waiting)
    assert (await patient).is_open
    assert recovered == [False]


@ensureDeferred
async def test_closing_the_pool_closes_connections_in_use(open_pool: OpenPool) -> None:
    pool = await open_pool(size=1)
    connection = await acquire(pool)
    await pool.close()
    assert not connection.is_open
    assert pool.connections == 0
    assert pool.reconnects == 0
