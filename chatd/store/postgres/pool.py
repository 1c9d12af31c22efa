"""A few connections to PostgreSQL that are kept alive, and the statements that wait for one.

A statement whose connection is lost is sent again on another one, until its deadline: all
statements given to the pool must be safe to repeat, also after one that was carried out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from chatd.errors import StoreUnavailable
from chatd.postgres.address import Address
from chatd.postgres.connection import (
    Connection,
    Connector,
    Rows,
    Unreachable,
    closed_by,
    reason,
    repeatable,
    unavailable,
)
from chatd.runtime.backoff import Backoff
from chatd.store.statements import Statement, postgres

T = TypeVar("T")

SIZE: Final = 4
QUEUED: Final = 1000
DEADLINE_SECONDS: Final = 10.0
CONFLICTS: Final = 8
"""How often a statement that the server rolled back is tried again."""
STABLE_SECONDS: Final = 1.0

_log = Logger()


class Pool:
    """Runs statements on `size` connections, which it opens again when they are lost.

    At most `queued` statements wait for a connection, and none for longer than `deadline`
    seconds, the time on the server included; then they fail with `StoreUnavailable`. When no
    connection could be had for that long already, statements fail at once.
    """

    def __init__(
        self,
        address: Address,
        reactor: Any,
        *,
        random: Callable[[], float],
        size: int = SIZE,
        queued: int = QUEUED,
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        self._reactor = reactor
        self._random = random
        self._connectors = [Connector(address, reactor) for _ in range(size)]
        self._queued = queued
        self._deadline = deadline
        self._idle: list[Connection] = []
        self._live: set[Connection] = set()
        self._waiting: deque[Deferred[Connection]] = deque()
        self._running = 0
        self._quiet: list[Deferred[None]] = []
        self._keepers: list[Deferred[None]] = []
        self._pauses: set[Deferred[None]] = set()
        self._accepts = False
        self._is_open = False
        self._down_since: float | None = None
        self._trouble = ""
        self.reconnects = 0
        """How many connections were lost and had to be made again."""

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._live)

    async def open(self) -> None:
        """Make the first connection, then the others beside; raises `Unreachable`."""
        first = await self._connectors[0].connect()
        self._is_open = self._accepts = True
        for connector in self._connectors:
            made = first if connector is self._connectors[0] else None
            self._keepers.append(Deferred.fromCoroutine(self._keep(connector, made)))

    async def close(self) -> None:
        """Let what is under way finish, then close all connections."""
        if not self._accepts:
            return
        self._accepts = False
        if self._running:
            quiet: Deferred[None] = Deferred()
            self._quiet.append(quiet)
            await quiet
        self._is_open = False
        for pause in tuple(self._pauses):
            pause.cancel()
        for connector in self._connectors:
            connector.stop()
        for connection in tuple(self._live):
            connection.abandon()
        keepers, self._keepers = self._keepers, []
        await gatherResults(keepers)

    def run(
        self,
        sql: str,
        parameters: Any = None,
        *,
        prepare: bool = False,
        deadline: float | None = None,
    ) -> Deferred[Rows]:
        """Run a statement that is safe to repeat and return its rows; `prepare` one that is hot.

        Fails with `StoreUnavailable`, or with `psycopg2.Error` for what the statement is to blame
        for.
        """
        return Deferred.fromCoroutine(
            self._run(sql, parameters, prepare, self._deadline if deadline is None else deadline)
        )

    def ask(self, statement: Statement[T]) -> Deferred[T]:
        """Run a statement that is the same in both databases; see `run`."""
        rows = self.run(postgres(statement.sql), statement.parameters)
        return rows.addCallback(statement.result)

    async def _run(self, sql: str, parameters: Any, prepare: bool, seconds: float) -> Rows:
        if not self._accepts:
            raise StoreUnavailable("the store is closed", retry_after=1)
        self._running += 1
        try:
            return await self._repeat(sql, parameters, prepare, self._reactor.seconds() + seconds)
        finally:
            self._running -= 1
            if not self._running:
                quiet, self._quiet = self._quiet, []
                for each in quiet:
                    each.callback(None)

    async def _repeat(self, sql: str, parameters: Any, prepare: bool, ends: float) -> Rows:
        conflicts, was_sent = 0, False
        backoff = Backoff(self._random)
        while True:
            connection = await self._take(ends, was_sent)
            timer = self._reactor.callLater(
                max(0.0, ends - self._reactor.seconds()), connection.abandon
            )
            try:
                return await connection.query(sql, parameters, prepare=prepare)
            except Exception as error:
                if closed_by(error) or not connection.is_open:
                    # What it did is known to the server alone; the statement is sent again.
                    was_sent = True
                    connection.abandon()
                    self._say(reason(error))
                elif repeatable(error) and conflicts < CONFLICTS:
                    conflicts += 1
                elif repeatable(error) or unavailable(error):
                    raise StoreUnavailable(
                        f"the database cannot do this now: {reason(error)}", retry_after=1
                    ) from error
                else:
                    raise
            finally:
                if timer.active():
                    timer.cancel()
                self._give(connection)
            await self._pause(min(backoff.next(), max(0.0, ends - self._reactor.seconds())))

    async def _take(self, ends: float, was_sent: bool) -> Connection:
        now = self._reactor.seconds()
        if now >= ends:
            # Sent now it would be given up at once, with a connection that is whole.
            raise self._unavailable(was_sent)
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        hopeless = self._down_since is not None and now - self._down_since > self._deadline
        if hopeless and not was_sent:
            raise self._unavailable(was_sent)
        if len(self._waiting) >= self._queued:
            raise StoreUnavailable("too many requests wait for the database", retry_after=1)
        waiting: Deferred[Connection] = Deferred()
        self._waiting.append(waiting)
        timer = self._reactor.callLater(ends - now, waiting.errback, self._unavailable(was_sent))
        try:
            return await waiting
        except StoreUnavailable:
            self._waiting.remove(waiting)
            raise
        finally:
            if timer.active():
                timer.cancel()

    def _unavailable(self, was_sent: bool) -> StoreUnavailable:
        if was_sent:
            return StoreUnavailable(
                "the connection to the database was lost before it answered, the outcome is "
                "unknown: a send is safe to repeat with its Idempotency-Key",
                retry_after=2,
            )
        if self._down_since is None:
            return StoreUnavailable("the database is too slow", retry_after=2)
        return StoreUnavailable("the database cannot be reached", retry_after=2)

    def _give(self, connection: Connection) -> None:
        if not connection.is_open:
            return
        if self._waiting:
            self._waiting.popleft().callback(connection)
        else:
            self._idle.append(connection)

    async def _keep(self, connector: Connector, connection: Connection | None) -> None:
        """Have one connection open for as long as the pool is."""
        backoff = Backoff(self._random)
        while self._is_open:
            since = self._reactor.seconds()
            try:
                connection = connection or await connector.connect()
            except Unreachable as problem:
                if self._is_open:
                    self._say(str(problem))
            else:
                await self._use(connection)
                connection = None
                if self._reactor.seconds() - since >= STABLE_SECONDS:
                    backoff.reset()
            await self._pause(backoff.next())

    async def _use(self, connection: Connection) -> None:
        """Have statements run on the connection until it ends."""
        self._live.add(connection)
        self._down_since = None
        self._say("")
        self._give(connection)
        await connection.ended()
        self._live.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._is_open:
            self.reconnects += 1
            if not self._live:
                self._down_since = self._reactor.seconds()

    def _say(self, trouble: str) -> None:
        """Log what is wrong with the connections, once while it stays the same."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            _log.warn("no connection to the database: {trouble}", trouble=trouble)
        else:
            _log.info("connected to the database again")

    async def _pause(self, seconds: float) -> None:
        if not self._is_open:
            return
        pause: Deferred[None] = deferLater(self._reactor, seconds)
        self._pauses.add(pause)
        # Cancelled when the pool closes: then there is nothing to wait for.
        pause.addErrback(lambda _: None)
        try:
            await pause
        finally:
            self._pauses.discard(pause)
