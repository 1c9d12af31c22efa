"""Retry policy for PostgreSQL statements: which errors are retried, how often and for how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import psycopg2
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger

from chatd.errors import StoreUnavailable
from chatd.postgres.connection import Rows, reason
from chatd.postgres.pool import Pool, PoolTimeout, TooManyRequests
from chatd.runtime.backoff import Backoff
from chatd.runtime.idle import IdleWaiters
from chatd.store.statements import Statement, postgres

T = TypeVar("T")

_log = Logger()

DEADLINE_SECONDS: Final = 10.0
MAX_CONFLICTS: Final = 8
"""How often a statement is run again after the server rolled it back."""

MAX_READ_ONLY: Final = 3
"""How often a statement that a read-only server has refused is tried on another connection."""

# SQLSTATEs and their first characters, the classes (PostgreSQL, appendix A).
_CONNECTION_CLASSES: Final = ("08", "57P")
_READ_ONLY: Final = "25006"
_CONFLICTS: Final = ("40001", "40P01")  # serialization failure, deadlock
_UNAVAILABLE_CLASSES: Final = ("53", "57", "58")
# Locked by somebody else, or not permitted any more.
_UNAVAILABLE: Final = ("55P03", "55006", "42501")


def is_connection_lost(error: BaseException) -> bool:
    """Whether the statement failed because its connection cannot be used any more.

    Decided by SQLSTATE, because psycopg2 raises `OperationalError` for deadlocks and serialization
    failures too, which leave the connection intact.
    """
    if not isinstance(error, psycopg2.Error):
        return isinstance(error, ConnectionDone)
    state: str | None = error.pgcode
    if state is None:
        return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
    return state.startswith(_CONNECTION_CLASSES)


def is_read_only(error: BaseException) -> bool:
    """Whether the server has refused to write: it is no longer the primary, or was set so."""
    return isinstance(error, psycopg2.Error) and error.pgcode == _READ_ONLY


def is_conflict(error: BaseException) -> bool:
    """Whether the server rolled the transaction back because of a concurrent one."""
    return isinstance(error, psycopg2.Error) and error.pgcode in _CONFLICTS


def is_unavailable(error: BaseException) -> bool:
    """Whether the server lacks a resource, such as disk or memory, or does not permit it now."""
    if not isinstance(error, psycopg2.Error):
        # txpostgres turns 57014 into this: the server cancelled the statement.
        return isinstance(error, CancelledError)
    state = error.pgcode or ""
    return state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE


class Executor(Protocol):
    """Runs statements, see `RetryingExecutor`."""

    def countdown(self, seconds: float | None) -> Callable[[], float]:
        """Returns the seconds that are left of these, or of the default deadline.

        For the `deadline` of each of several statements, which have it together.
        """
        ...

    def execute(self, statement: Statement[T]) -> Deferred[T]:
        """Run a statement that both databases share and return its result; see `run`."""
        ...

    def run(
        self,
        sql: str,
        parameters: Any = None,
        *,
        prepare: bool = False,
        deadline: float | None = None,
    ) -> Deferred[Rows]:
        """Run a statement and return its rows; `prepare` is for frequent ones.

        Fails with `StoreUnavailable`, or with `psycopg2.Error` if the statement is at fault.
        """
        ...


class RetryingExecutor:
    """Runs statements on pooled connections, repeating those that lost theirs or conflicted.

    Every statement must be safe to repeat, also after it took effect: when a connection is lost,
    only the server knows whether the statement was executed. A statement fails with
    `StoreUnavailable` after `deadline` seconds, which include waiting for a connection.
    """

    def __init__(
        self,
        pool: Pool,
        reactor: Any,
        *,
        random: Callable[[], float],
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        self.pool = pool
        self._reactor = reactor
        self._random = random
        self._deadline = deadline
        self._is_open = False
        self._running = 0
        self._idle_waiters = IdleWaiters()

    async def open(self) -> None:
        """Open the pool; raises `Unreachable`."""
        await self.pool.open()
        self._is_open = True

    def start(self) -> None:
        """Start opening the pool, whether the server can be reached now or not."""
        self.pool.start()
        self._is_open = True

    async def close(self) -> None:
        """Refuse new statements, wait for those under way, then close the pool."""
        if not self._is_open:
            return
        self._is_open = False
        await self.wait_idle()
        await self.pool.close()

    @property
    def is_idle(self) -> bool:
        """Whether no statement is running."""
        return not self._running

    def wait_idle(self) -> Deferred[None]:
        """Fires when no statement is running."""
        return self._idle_waiters.wait(self.is_idle)

    def countdown(self, seconds: float | None) -> Callable[[], float]:
        """See `Executor`."""
        ends = self._reactor.seconds() + (
            self._deadline if seconds is None else min(seconds, self._deadline)
        )
        return lambda: max(0.0, ends - self._reactor.seconds())

    def execute(self, statement: Statement[T]) -> Deferred[T]:
        """See `Executor`."""
        rows = self.run(postgres(statement.sql), statement.parameters)
        return rows.addCallback(statement.result)

    def run(
        self,
        sql: str,
        parameters: Any = None,
        *,
        prepare: bool = False,
        deadline: float | None = None,
        guard: str = "",
    ) -> Deferred[Rows]:
        """See `Executor`; for `guard` see `Connection.query`."""
        seconds = self._deadline if deadline is None else deadline
        return Deferred.fromCoroutine(self._run(sql, parameters, prepare, seconds, guard))

    async def _run(
        self, sql: str, parameters: Any, prepare: bool, seconds: float, guard: str
    ) -> Rows:
        if not self._is_open:
            raise StoreUnavailable("the store is closed", retry_after=1)
        self._running += 1
        try:
            ends = self._reactor.seconds() + seconds
            return await self._retry(sql, parameters, prepare, ends, guard)
        finally:
            self._running -= 1
            if not self._running:
                self._idle_waiters.notify()

    async def _retry(
        self, sql: str, parameters: Any, prepare: bool, deadline: float, guard: str
    ) -> Rows:
        conflicts, refusals, was_sent = 0, 0, False
        backoff = Backoff(self._random)
        while True:
            try:
                connection = await self.pool.acquire(deadline, fail_fast=not was_sent)
            except PoolTimeout:
                raise self._timed_out(was_sent) from None
            except TooManyRequests:
                raise StoreUnavailable(
                    "too many requests wait for the database", retry_after=1
                ) from None
            timer = self._reactor.callLater(
                max(0.0, deadline - self._reactor.seconds()), connection.abort
            )
            try:
                return await connection.query(sql, parameters, prepare=prepare, guard=guard)
            except Exception as error:
                if is_read_only(error):
                    # Another server may be the primary by now.
                    self.pool.discard(connection, reason(error))
                    refusals += 1
                    if refusals == MAX_READ_ONLY and not was_sent:
                        raise _refused(error) from error
                elif is_connection_lost(error) or not connection.is_open:
                    was_sent = True
                    self.pool.discard(connection, reason(error))
                elif is_conflict(error) and conflicts < MAX_CONFLICTS:
                    conflicts += 1
                elif is_conflict(error) or is_unavailable(error):
                    raise _refused(error) from error
                else:
                    raise
            finally:
                if timer.active():
                    timer.cancel()
                self.pool.release(connection)
            delay = min(backoff.next(), max(0.0, deadline - self._reactor.seconds()))
            await deferLater(self._reactor, delay)

    def _timed_out(self, was_sent: bool) -> StoreUnavailable:
        if was_sent:
            return StoreUnavailable(
                "the connection to the database was lost before it answered, the outcome is "
                "unknown: a send is safe to repeat with its Idempotency-Key",
                retry_after=2,
            )
        if self.pool.is_down:
            return StoreUnavailable("the database cannot be reached", retry_after=2)
        return StoreUnavailable("the database is too slow", retry_after=2)


def _refused(error: Exception) -> StoreUnavailable:
    why = reason(error)
    if isinstance(error, CancelledError):
        why = "canceling statement, because of statement_timeout or on request"
    _log.error("the database has refused a statement: {why}", why=why)
    return StoreUnavailable(f"the database cannot do this now: {why}", retry_after=1)
