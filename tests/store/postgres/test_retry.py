"""Retrying statements on servers that stop, hang and terminate connections."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import psycopg2
import psycopg2.errors
import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from chatd.errors import StoreUnavailable
from chatd.postgres.address import parse
from chatd.postgres.pool import Pool
from chatd.store.postgres.retry import DEADLINE_SECONDS, RetryingExecutor
from tests.postgres_server import Databases, Server, connected, rows, sleep

OpenExecutor: TypeAlias = Callable[..., Awaitable[RetryingExecutor]]

PID = "SELECT pg_backend_pid()"
FAIL = """
CREATE SEQUENCE tries;
CREATE FUNCTION fail(state text, times int) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('tries') <= times THEN
        RAISE EXCEPTION 'made up' USING ERRCODE = state;
    END IF;
    RETURN currval('tries');
END $$
"""


@async_yield_fixture
async def open_executor(postgres: Databases, postgres_database: str) -> AsyncIterator[OpenExecutor]:
    from twisted.internet import reactor

    opened: list[RetryingExecutor] = []

    async def open_one(
        url: str | None = None, *, deadline: float = DEADLINE_SECONDS, **options: Any
    ) -> RetryingExecutor:
        address = parse(url or postgres.url(postgres_database), "pool under test")
        pool = Pool(address, reactor, random=_random, fail_fast_seconds=deadline, **options)
        opened.append(RetryingExecutor(pool, reactor, random=_random, deadline=deadline))
        await opened[-1].open()
        return opened[-1]

    yield open_one
    for executor in opened:
        await executor.close()


@contextmanager
def observed(lines: list[str]) -> Iterator[None]:
    """Add the lines that are logged."""

    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(cast(ILogObserver, observe))


def _random() -> float:
    return 0.5


async def refused(running: Deferred[Any]) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as caught:
        await running
    return caught.value


@ensureDeferred
async def test_statements_run_concurrently(open_executor: OpenExecutor) -> None:
    executor = await open_executor(size=3)
    while executor.pool.connections < 3:
        await sleep(0.01)
    found = await gatherResults(
        [executor.run("SELECT pg_backend_pid() FROM pg_sleep(0.1)") for _ in range(9)]
    )
    assert len({pid for [[pid]] in found}) == 3


@ensureDeferred
async def test_the_number_of_waiting_statements_is_bounded(open_executor: OpenExecutor) -> None:
    executor = await open_executor(size=1, max_waiting=2)
    running = [executor.run("SELECT pg_sleep(0.1)") for _ in range(3)]
    problem = await refused(executor.run("SELECT 1"))
    assert problem.retry_after > 0
    await gatherResults(running)
    assert await executor.run("SELECT 1") == [(1,)]


@ensureDeferred
async def test_a_statement_that_takes_too_long_is_aborted_with_its_connection(
    open_executor: OpenExecutor,
) -> None:
    executor = await open_executor(size=1, deadline=0.2)
    slow, waiting = executor.run("SELECT pg_sleep(30)"), executor.run("SELECT 1", deadline=0.1)
    assert "too slow" in (await refused(waiting)).detail
    assert "unknown" in (await refused(slow)).detail
    while not executor.pool.connections:
        await sleep(0.01)
    assert await executor.run("SELECT 1", deadline=10) == [(1,)]
    assert executor.pool.reconnects == 1


@ensureDeferred
async def test_terminated_idle_connections_are_replaced(
    open_executor: OpenExecutor, postgres: Databases, postgres_database: str
) -> None:
    executor = await open_executor(size=2)
    while executor.pool.connections < 2:
        await sleep(0.01)
    before = await executor.run(PID)
    assert postgres.terminate(postgres_database, "pool under test") == 2
    assert await executor.run(PID) != before
    while executor.pool.connections < 2:
        await sleep(0.01)
    assert executor.pool.reconnects == 2


@ensureDeferred
async def test_a_statement_whose_connection_was_terminated_is_retried(
    open_executor: OpenExecutor, postgres: Databases, postgres_database: str
) -> None:
    executor = await open_executor(size=1)
    with connected(postgres.url(postgres_database)) as blocker:
        rows(blocker, "SELECT pg_advisory_lock(1)")
        running = executor.run("SELECT pg_backend_pid() FROM pg_advisory_lock(1)")
        while not (waiting := rows(blocker, "SELECT pid FROM pg_locks WHERE NOT granted")):
            await sleep(0.01)
        [[pid]] = waiting
        assert postgres.terminate(postgres_database, "pool under test") == 1
    [[other]] = await running
    assert other != pid


@ensureDeferred
async def test_a_statement_that_timed_out_is_not_retried(
    open_executor: OpenExecutor, postgres: Databases, postgres_database: str
) -> None:
    executor = await open_executor(size=3, deadline=0.2)
    while executor.pool.connections < 3:
        await sleep(0.01)
    for times in (1, 2):
        assert "unknown" in (await refused(executor.run("SELECT pg_sleep(3)"))).detail
        [[working]] = postgres.admin(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND state = 'active'"
            " AND query = 'SELECT pg_sleep(3)'",
            postgres_database,
        )
        assert working == times
    assert executor.pool.reconnects == 2


@pytest.mark.parametrize("state", ["40001", "40P01"])
@ensureDeferred
async def test_conflicting_statements_are_retried(open_executor: OpenExecutor, state: str) -> None:
    executor = await open_executor(size=1)
    await executor.run(FAIL)
    assert await executor.run("SELECT fail(%s, 3)", (state,)) == [(4,)]
    assert executor.pool.reconnects == 0


@ensureDeferred
async def test_retries_after_conflicts_are_bounded(open_executor: OpenExecutor) -> None:
    executor = await open_executor(size=1)
    await executor.run(FAIL)
    assert "made up" in (await refused(executor.run("SELECT fail('40001', 1000)"))).detail
    assert await executor.run("SELECT nextval('tries') < 20") == [(True,)]


@pytest.mark.parametrize("state", ["53100", "53200", "57014", "55P03", "58030", "42501"])
@ensureDeferred
async def test_lack_of_resources_is_reported_as_unavailable(
    open_executor: OpenExecutor, state: str
) -> None:
    executor = await open_executor(size=1)
    await executor.run(FAIL)
    lines: list[str] = []
    with observed(lines):
        refusal = await refused(executor.run("SELECT fail(%s, 1)", (state,)))
    assert refusal.detail.startswith("the database cannot do this now: ")
    assert [line for line in lines if "has refused a statement: " in line]
    assert "CancelledError" not in refusal.detail
    assert await executor.run("SELECT fail(%s, 1)", (state,)) == [(2,)]


@ensureDeferred
async def test_connections_to_a_server_that_became_read_only_are_replaced(
    open_executor: OpenExecutor,
) -> None:
    executor = await open_executor(size=1)
    await executor.run(FAIL)
    [[before]] = await executor.run(PID)
    [[_, after]] = await executor.run("SELECT fail('25006', 2), pg_backend_pid()")
    assert after != before


@ensureDeferred
async def test_a_read_only_server_is_a_plain_refusal(open_executor: OpenExecutor) -> None:
    executor = await open_executor(size=1)
    await executor.run(FAIL)
    refusal = await refused(executor.run("SELECT fail('25006', 1000)"))
    assert refusal.detail == "the database cannot do this now: made up"
    assert await executor.run("SELECT nextval('tries')") == [(4,)]


@ensureDeferred
async def test_errors_of_the_statement_are_raised_unchanged(open_executor: OpenExecutor) -> None:
    executor = await open_executor(size=1)
    with pytest.raises(psycopg2.ProgrammingError):
        await executor.run("SELECT nothing FROM nowhere")
    with pytest.raises(psycopg2.DataError):
        await executor.run("SELECT 1 / 0")
    assert await executor.run("SELECT 1") == [(1,)]
    assert executor.pool.reconnects == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
@ensureDeferred
async def test_statements_wait_while_the_server_restarts(
    open_executor: OpenExecutor, own_server: Server, how: signal.Signals
) -> None:
    executor = await open_executor(own_server.url())
    running = executor.run("SELECT 1 FROM pg_sleep(0.2)")
    await sleep(0.05)
    own_server.stop(how)
    later = executor.run("SELECT 2")
    await sleep(0.3)
    own_server.start()
    assert await running == [(1,)]
    assert await later == [(2,)]


@ensureDeferred
async def test_without_a_server_statements_fail_at_their_deadline_and_later_at_once(
    open_executor: OpenExecutor, own_server: Server
) -> None:
    executor = await open_executor(own_server.url(), deadline=0.4)
    under_way = executor.run("SELECT pg_sleep(5)")
    await sleep(0.05)
    own_server.stop(signal.SIGQUIT)
    try:
        assert "unknown" in (await refused(under_way)).detail
        assert "reached" in (await refused(executor.run("SELECT 1"))).detail
        assert executor.pool.connections == 0
        await sleep(0.4)
        at_once = executor.run("SELECT 1")
        assert at_once.called
        await refused(at_once)
    finally:
        own_server.start()
    while not executor.pool.connections:
        await sleep(0.01)
    assert await executor.run("SELECT 1") == [(1,)]


@ensureDeferred
async def test_closing_waits_for_running_statements_and_refuses_new_ones(
    open_executor: OpenExecutor,
) -> None:
    executor = await open_executor(size=1)
    running = executor.run("SELECT 1 FROM pg_sleep(0.1)")
    closing = Deferred.fromCoroutine(executor.close())
    await refused(executor.run("SELECT 1"))
    await closing
    assert await running == [(1,)]


@ensureDeferred
async def test_closing_does_not_wait_for_a_server_that_is_down(
    open_executor: OpenExecutor, own_server: Server
) -> None:
    executor = await open_executor(own_server.url())
    own_server.stop(signal.SIGQUIT)
    await sleep(0.1)
    await executor.close()
    own_server.start()
