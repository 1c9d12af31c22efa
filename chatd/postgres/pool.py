"""Connection pool for PostgreSQL: opens connections, lends them out and replaces lost ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from chatd.postgres.address import Address
from chatd.postgres.connection import Connection, Connector, Unreachable
from chatd.runtime.backoff import Backoff
from chatd.runtime.delays import Delays

SIZE: Final = 4
MAX_WAITING: Final = 1000
FAIL_FAST_SECONDS: Final = 10.0
STABLE_SECONDS: Final = 1.0
"""A connection that lasted this long resets the delay before the next attempt."""

_log = Logger()


class PoolTimeout(Exception):
    """No connection became free in time."""


class TooManyRequests(Exception):
    """Too many callers are waiting for a connection already."""


class Pool:
    """Keeps `size` connections open and lends each to one caller at a time.

    At most `max_waiting` callers wait for a connection. Once there has been no connection at all
    for `fail_fast_seconds`, callers are refused without waiting. `observe_wait` is called with the
    seconds that each caller waited, if it had to wait.
    """

    def __init__(
        self,
        address: Address,
        reactor: Any,
        *,
        random: Callable[[], float],
        size: int = SIZE,
        max_waiting: int = MAX_WAITING,
        fail_fast_seconds: float = FAIL_FAST_SECONDS,
        observe_wait: Callable[[float], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._random = random
        self._connectors = [Connector(address, reactor) for _ in range(size)]
        self._max_waiting = max_waiting
        self._fail_fast_seconds = fail_fast_seconds
        self._observe_wait = observe_wait
        self._idle: list[Connection] = []
        self._live: set[Connection] = set()
        self._waiters: deque[Deferred[Connection]] = deque()
        self._maintaining: list[Deferred[None]] = []
        self._delays = Delays(reactor)
        self._is_open = False
        self._down_since: float | None = None
        self._reported_problem = ""
        self.on_recovered: Callable[[], None] | None = None
        """Called when there is a connection again, after there was none."""
        self.reconnects = 0
        """How many connections were lost and had to be replaced."""

    @property
    def connections(self) -> int:
        """The number of open connections, idle and in use."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """The number of callers waiting for a connection."""
        return len(self._waiters)

    @property
    def is_down(self) -> bool:
        """Whether all connections were lost and none could be made since."""
        return self._down_since is not None

    async def open(self) -> None:
        """Make the first connection and start making the others; raises `Unreachable`."""
        first = await self._connectors[0].connect()
        self._is_open = True
        for connector in self._connectors:
            made = first if connector is self._connectors[0] else None
            self._maintaining.append(Deferred.fromCoroutine(self._maintain(connector, made)))

    def start(self) -> None:
        """Start making connections, whether the server can be reached now or not."""
        self._is_open = True
        self._down_since = self._reactor.seconds()
        for connector in self._connectors:
            self._maintaining.append(Deferred.fromCoroutine(self._maintain(connector, None)))

    async def close(self) -> None:
        """Close all connections, those in use included."""
        self._is_open = False
        self._delays.stop()
        for connector in self._connectors:
            connector.stop()
        for connection in tuple(self._live):
            connection.abort()
        maintaining, self._maintaining = self._maintaining, []
        await gatherResults(maintaining)

    async def acquire(self, deadline: float, *, fail_fast: bool = True) -> Connection:
        """Borrow a connection, waiting for one until `deadline`, a time of `reactor.seconds`.

        Raises `PoolTimeout` or `TooManyRequests`. With `fail_fast=False` it waits until the
        deadline even if there has been no connection for long. Give the connection back with
        `release`.
        """
        now = self._reactor.seconds()
        if now >= deadline:
            # No time left: do not waste a healthy connection, which would be aborted at once.
            raise PoolTimeout
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        if (
            fail_fast
            and self._down_since is not None
            and now - self._down_since > self._fail_fast_seconds
        ):
            raise PoolTimeout
        if len(self._waiters) >= self._max_waiting:
            raise TooManyRequests
        waiter: Deferred[Connection] = Deferred()
        self._waiters.append(waiter)
        timer = self._reactor.callLater(deadline - now, waiter.errback, PoolTimeout())
        try:
            return await waiter
        except PoolTimeout:
            self._waiters.remove(waiter)
            raise
        finally:
            if timer.active():
                timer.cancel()
            if self._observe_wait is not None:
                self._observe_wait(self._reactor.seconds() - now)

    def release(self, connection: Connection) -> None:
        """Give a borrowed connection back; does nothing if it was closed meanwhile."""
        if not connection.is_open:
            return
        if self._waiters:
            self._waiters.popleft().callback(connection)
        else:
            self._idle.append(connection)

    def discard(self, connection: Connection, problem: str) -> None:
        """Close a borrowed connection that is broken; `problem` is logged."""
        connection.abort()
        self._report(problem)

    async def _maintain(self, connector: Connector, connection: Connection | None) -> None:
        """Keep one connection open until the pool is closed."""
        backoff = Backoff(self._random)
        while self._is_open:
            since = self._reactor.seconds()
            try:
                connection = connection or await connector.connect()
            except Unreachable as problem:
                if self._is_open:
                    self._report(str(problem))
            else:
                await self._lend(connection)
                connection = None
                if self._reactor.seconds() - since >= STABLE_SECONDS:
                    backoff.reset()
            await self._delays.wait(backoff.next())

    async def _lend(self, connection: Connection) -> None:
        """Offer the connection to callers until it is closed."""
        self._live.add(connection)
        was_down, self._down_since = self.is_down, None
        self._report("")
        if was_down and self.on_recovered is not None:
            self.on_recovered()
        self.release(connection)
        await connection.wait_closed()
        self._live.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._is_open:
            self.reconnects += 1
            if not self._live:
                self._down_since = self._reactor.seconds()

    def _report(self, problem: str) -> None:
        """Log a change of what is wrong with the connections; an empty text means nothing is."""
        if problem == self._reported_problem:
            return
        self._reported_problem = problem
        if problem:
            _log.warn("no connection to the database: {problem}", problem=problem)
        else:
            _log.info("connected to the database again")
