"""Connections: prepared statements, timeouts and failover between hosts."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeAlias

import psycopg2
import psycopg2.errors
import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone

from chatd.postgres.address import parse
from chatd.postgres.connection import Connection, Connector, Unreachable
from chatd.postgres.prepared import prepared
from tests.postgres_server import Databases, Server, sleep

Connect: TypeAlias = Callable[..., Awaitable[Connection]]

PREPARED = "SELECT count(*) FROM pg_prepared_statements"
SUM = "SELECT %s::int + %s::int"


@async_yield_fixture
async def connect(postgres: Databases, shared_postgres_database: str) -> AsyncIterator[Connect]:
    from twisted.internet import reactor

    opened: list[Connection] = []

    async def connect_to(url: str | None = None) -> Connection:
        address = parse(url or postgres.url(shared_postgres_database))
        opened.append(await Connector(address, reactor).connect())
        return opened[-1]

    yield connect_to
    for connection in opened:
        connection.abort()


class Silent:
    """A port that accepts connections and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    silent = Silent()
    yield silent
    silent.close()


@ensureDeferred
async def test_a_prepared_statement_is_planned_once_per_connection(connect: Connect) -> None:
    connection = await connect()
    for number in range(3):
        assert await connection.query(SUM, (number, 1), prepare=True) == [(number + 1,)]
        assert await connection.query(SUM, (number, 1)) == [(number + 1,)]
    assert await connection.query(PREPARED) == [(1,)]
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
        await connection.query(SUM, ("x", 1), prepare=True)
    with pytest.raises(psycopg2.errors.SyntaxError):
        await connection.query("SELECT FROM WHERE", prepare=True)
    assert await connection.query(SUM, (1, 1), prepare=True) == [(2,)]


@ensureDeferred
async def test_statements_that_the_server_has_lost_are_sent_unprepared(
    connect: Connect,
) -> None:
    connection = await connect()
    assert await connection.query(SUM, (1, 1), prepare=True) == [(2,)]
    # As with a pooler that was not detected, which may switch sessions.
    await connection.query("DEALLOCATE ALL")
    for _ in range(2):
        assert await connection.query(SUM, (1, 1), prepare=True) == [(2,)]
    assert await connection.query(PREPARED) == [(0,)]


@ensureDeferred
async def test_statements_that_were_prepared_already_are_sent_unprepared(
    connect: Connect,
) -> None:
    connection = await connect()
    await connection.query(prepared(SUM).prepare)
    for _ in range(2):
        assert await connection.query(SUM, (1, 1), prepare=True) == [(2,)]


@ensureDeferred
async def test_nothing_is_prepared_behind_a_pooler(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "get_backend_pid", lambda _: 4711, raising=False)
    connection = await connect()
    assert await connection.query(SUM, (1, 1), prepare=True) == [(2,)]
    assert await connection.query(PREPARED) == [(0,)]
    assert await connection.query("SHOW enable_seqscan") == [("on",)]


@ensureDeferred
async def test_connecting_to_an_unresponsive_server_times_out(silent: Silent) -> None:
    from twisted.internet import reactor

    url = f"postgresql://u:s3cret@127.0.0.1:{silent.port}/d?connect_timeout=0.2&sslmode=disable"
    with pytest.raises(Unreachable, match="no answer within") as caught:
        await Connector(parse(url), reactor).connect()
    assert "s3cret" not in str(caught.value)


@ensureDeferred
async def test_the_next_host_is_tried_after_a_failure(
    silent: Silent, connect: Connect, own_server: Server
) -> None:
    folder = own_server.folder
    connection = await connect(
        f"host=127.0.0.1,127.0.0.1,{folder} port={silent.port},1,5432 user=chatd dbname=postgres"
        " connect_timeout=0.2 sslmode=disable"
    )
    assert await connection.query("SELECT 1") == [(1,)]


@ensureDeferred
async def test_a_standby_is_skipped(connect: Connect, own_server: Server) -> None:
    own_server.restart_with(default_transaction_read_only="on")
    try:
        with pytest.raises(Unreachable, match="read-only"):
            await connect(
                f"host={own_server.folder},{own_server.folder} user=chatd dbname=postgres"
            )
    finally:
        own_server.restart_with()


@ensureDeferred
async def test_connecting_can_be_stopped(silent: Silent) -> None:
    from twisted.internet import reactor

    connector = Connector(parse(f"host=127.0.0.1,127.0.0.1 port={silent.port}"), reactor)
    connecting = Deferred.fromCoroutine(connector.connect())
    await sleep(0.05)
    connector.stop()
    with pytest.raises(Unreachable):
        await connecting
    with pytest.raises(Unreachable, match="stopped"):
        await connector.connect()


@ensureDeferred
async def test_an_aborted_connection_runs_nothing(connect: Connect) -> None:
    connection = await connect()
    connection.abort()
    with pytest.raises(ConnectionDone):
        await connection.query("SELECT 1")
    await connection.wait_closed()
