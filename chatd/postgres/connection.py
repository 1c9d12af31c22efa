"""One connection to PostgreSQL in the reactor, on txpostgres.

txpostgres brings psycopg2's asynchronous mode into the reactor. What is added here: opening with
a timeout that fires, several hosts, notice of an idle connection's end, NOTIFYs in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import psycopg2
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from txpostgres import txpostgres

from chatd.postgres.address import Address
from chatd.postgres.prepared import Prepared, prepared

Rows = list[tuple[Any, ...]]

_NOT_PREPARED: Final = ("26000", "42P05")

_PID: Final = "SELECT pg_backend_pid()"
# Whatever is prepared finds its rows by keys. A plan made while a table was small must not go
# through all of it when it has grown, and is the same whatever the parameters are.
_PLANNING: Final = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan"


class Unreachable(Exception):
    """No connection could be made; the text says why and holds no password."""


class Connection(txpostgres.Connection):  # type: ignore[misc]  # txpostgres has no types
    """A connection in autocommit mode; statements asked while one runs wait for it.

    `heard` is called with the payload of every NOTIFY, in the order of their commits.
    """

    def __init__(self, reactor: Any, heard: Callable[[str], None] | None = None) -> None:
        super().__init__(reactor)
        self._heard = heard
        self._ended: Deferred[None] = Deferred()
        self._is_open = False
        self._is_direct = False
        self._prepared: set[Prepared] = set()

    @property
    def is_open(self) -> bool:
        """Whether the connection may still be used."""
        return self._is_open and not self._connection.closed

    def ended(self) -> Deferred[None]:
        """Fires once, when the connection has ended for whatever reason."""
        return self._ended

    @property
    def is_direct(self) -> bool:
        """Whether there is no pooler in between: statements meet one session on the server."""
        return self._is_direct

    def query(self, sql: str, parameters: Any = None, *, prepare: bool = False) -> Deferred[Rows]:
        """Run a statement and return its rows, none if it gives none.

        With `prepare` it is planned once, if the connection is direct. Fails with `psycopg2.Error`
        or `ConnectionDone`.
        """
        if not self.is_open:
            return fail(ConnectionDone())
        result: Deferred[Any]
        if not prepare or not self._is_direct:
            result = self.runQuery(sql, parameters)
            return result
        statement = prepared(sql)
        if statement in self._prepared:
            result = self.runQuery(statement.execute, parameters)
        else:
            result = Deferred.fromCoroutine(self._prepare(statement, parameters))
        return result.addErrback(self._plainly, sql, parameters)

    async def _prepare(self, statement: Prepared, parameters: Any) -> Rows:
        await self.runQuery(statement.prepare)
        self._prepared.add(statement)
        rows: Rows = await self.runQuery(statement.execute, parameters)
        return rows

    def _plainly(self, failure: Failure, sql: str, parameters: Any) -> Any:
        if getattr(failure.value, "pgcode", None) not in _NOT_PREPARED:
            return failure
        # Somebody is in between after all; nothing was executed.
        self._is_direct = False
        return self.query(sql, parameters)

    def abandon(self) -> None:
        """Close the connection, whatever it is doing; a statement under way fails."""
        if self._connection is not None:
            self.close()
        self._end()

    async def opened(self) -> None:
        """The connection is made: find out what is on its other end."""
        self._is_open = True
        # A pooler makes up the process id that it greets with.
        [[pid]] = await self.query(_PID)
        if pid == self.get_backend_pid():
            await self.query(_PLANNING)
            self._is_direct = True

    def _end(self) -> None:
        self._is_open = False
        if not self._ended.called:
            self._ended.callback(None)

    # What txpostgres calls.

    def _runQuery(self, *args: Any, **kwargs: Any) -> Deferred[Rows]:
        cursor = self.cursor()
        running: Deferred[Any] = cursor.execute(*args, **kwargs)
        return running.addCallback(_fetched)

    def doRead(self) -> None:
        try:
            super().doRead()
        except (psycopg2.Error, ValueError):
            # The server has closed the connection; libpq may have closed the socket already, so
            # that there is no descriptor to watch. Raised further, the reactor would log it.
            self.abandon()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if not self._cursors:
            self._close_quietly()
            self._end()

    def _close_quietly(self) -> None:
        self.reactor.removeReader(self)
        self.reactor.removeWriter(self)
        if not self._connection.closed:
            self._connection.close()

    def checkForNotifies(self) -> None:
        # txpostgres hands each burst to a cooperator of its own, and they overtake each other.
        notifies, self._connection.notifies = self._connection.notifies, []
        if self._heard is not None:
            for notify in notifies:
                self._heard(notify.payload)


def _fetched(cursor: Any) -> Rows:
    rows: Rows = cursor.fetchall() if cursor.description is not None else []
    return rows


class Connector:
    """Makes connections to an address, one at a time, until it is stopped."""

    def __init__(
        self, address: Address, reactor: Any, heard: Callable[[str], None] | None = None
    ) -> None:
        self._address = address
        self._reactor = reactor
        self._heard = heard
        self._trying: Connection | None = None
        self._is_stopped = False

    async def connect(self) -> Connection:
        """Try each host in turn; raises `Unreachable` with the last one's reason."""
        problem = "stopped"
        for attempt in self._address.attempts:
            if self._is_stopped:
                break
            connection = self._trying = Connection(self._reactor, self._heard)
            timer = self._reactor.callLater(self._address.connect_seconds, connection.abandon)
            try:
                await connection.connect(attempt)
                await connection.opened()
            except (psycopg2.Error, ConnectionDone, ValueError) as error:
                # ValueError: abandoned in the turn in which it was made; the reactor refuses it.
                connection.abandon()
                problem = reason(error)
                if not timer.active():
                    problem = f"no answer within {self._address.connect_seconds:g} s"
                continue
            finally:
                self._trying = None
                if timer.active():
                    timer.cancel()
            return connection
        raise Unreachable(problem)

    def stop(self) -> None:
        """Give up what is being tried, and do not try again."""
        self._is_stopped = True
        if self._trying is not None:
            self._trying.abandon()


def reason(error: BaseException) -> str:
    """The first line of an error's text; libpq puts no password there."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
