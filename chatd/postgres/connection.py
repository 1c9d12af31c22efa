"""PostgreSQL connection for Twisted, based on txpostgres.

txpostgres runs psycopg2's asynchronous mode in the reactor. This module adds a connect timeout
that works, failover between hosts, detection of closed idle connections, ordered NOTIFYs and
prepared statements.
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

# SQLSTATEs: invalid_sql_statement_name, duplicate_prepared_statement.
_NOT_PREPARED: Final = ("26000", "42P05")

_PID: Final = "SELECT pg_backend_pid()"
# All prepared statements look rows up by key. A plan made while a table was small must not scan
# the table once it has grown, and it must not depend on the parameters.
_PLANNING: Final = "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan"


class Unreachable(Exception):
    """No connection could be made; the text gives the reason and never a password."""


class Connection(txpostgres.Connection):  # type: ignore[misc]  # txpostgres has no types
    """A connection in autocommit mode that queues statements while another one is running.

    `on_notify` is called with the payload of each NOTIFY, in order of commit.
    """

    def __init__(self, reactor: Any, on_notify: Callable[[str], None] | None = None) -> None:
        super().__init__(reactor)
        self._on_notify = on_notify
        self._closed: Deferred[None] = Deferred()
        self._is_open = False
        self._is_direct = False
        self._prepared: set[Prepared] = set()

    @property
    def is_open(self) -> bool:
        """Whether the connection can be used."""
        return self._is_open and not self._connection.closed

    @property
    def is_direct(self) -> bool:
        """Whether the peer is the server itself, not a pooler that switches sessions."""
        return self._is_direct

    def wait_closed(self) -> Deferred[None]:
        """Fires when the connection is closed, by either side."""
        return self._closed

    def query(
        self, sql: str, parameters: Any = None, *, prepare: bool = False, guard: str = ""
    ) -> Deferred[Rows]:
        """Run a statement and return its rows; an empty list if it returns none.

        With `prepare` the server plans it only once, provided that the connection is direct.
        `guard` are statements without parameters, ending with a semicolon, which are run before it
        in the same transaction. Fails with `psycopg2.Error` or `ConnectionDone`.
        """
        if not self.is_open:
            return fail(ConnectionDone())
        result: Deferred[Any]
        if not prepare or not self._is_direct:
            result = self.runQuery(guard + sql, parameters)
            return result
        statement = prepared(sql)
        if statement in self._prepared:
            result = self.runQuery(guard + statement.execute, parameters)
        else:
            result = Deferred.fromCoroutine(self._prepare(statement, parameters, guard))
        return result.addErrback(self._retry_unprepared, sql, parameters, guard)

    async def _prepare(self, statement: Prepared, parameters: Any, guard: str) -> Rows:
        await self.runQuery(statement.prepare)
        self._prepared.add(statement)
        rows: Rows = await self.runQuery(guard + statement.execute, parameters)
        return rows

    def _retry_unprepared(self, failure: Failure, sql: str, parameters: Any, guard: str) -> Any:
        if getattr(failure.value, "pgcode", None) not in _NOT_PREPARED:
            return failure
        # There is a pooler after all. Nothing was executed.
        self._is_direct = False
        return self.query(sql, parameters, guard=guard)

    def abort(self) -> None:
        """Close the connection at once; a running statement fails."""
        if self._connection is not None:
            self.close()
        self._set_closed()

    async def set_up(self) -> None:
        """Prepare a new connection for use; called by `Connector`."""
        self._is_open = True
        # The process id that a pooler reports on connecting is not that of a server process.
        [[pid]] = await self.query(_PID)
        if pid == self.get_backend_pid():
            await self.query(_PLANNING)
            self._is_direct = True

    def _set_closed(self) -> None:
        self._is_open = False
        if not self._closed.called:
            self._closed.callback(None)

    # Overridden methods of txpostgres.

    def _runQuery(self, *args: Any, **kwargs: Any) -> Deferred[Rows]:
        cursor = self.cursor()
        running: Deferred[Any] = cursor.execute(*args, **kwargs)
        return running.addCallback(_fetched)

    def doRead(self) -> None:
        try:
            super().doRead()
        except (psycopg2.Error, ValueError):
            # The server closed the connection. libpq may have closed the socket already, so that
            # there is no descriptor to unregister. The reactor would log the exception.
            self.abort()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if not self._cursors:
            self._close_quietly()
            self._set_closed()

    def _close_quietly(self) -> None:
        self.reactor.removeReader(self)
        self.reactor.removeWriter(self)
        if not self._connection.closed:
            self._connection.close()

    def checkForNotifies(self) -> None:
        # txpostgres passes each burst to its own cooperator, which reorders them.
        notifies, self._connection.notifies = self._connection.notifies, []
        if self._on_notify is not None:
            for notify in notifies:
                self._on_notify(notify.payload)


def _fetched(cursor: Any) -> Rows:
    rows: Rows = cursor.fetchall() if cursor.description is not None else []
    return rows


class Connector:
    """Makes connections to an address, one at a time, until it is stopped."""

    def __init__(
        self, address: Address, reactor: Any, on_notify: Callable[[str], None] | None = None
    ) -> None:
        self._address = address
        self._reactor = reactor
        self._on_notify = on_notify
        self._connecting: Connection | None = None
        self._is_stopped = False

    async def connect(self) -> Connection:
        """Try the hosts in order; raises `Unreachable` with the reason of the last one."""
        problem = "stopped"
        for attempt in self._address.attempts:
            if self._is_stopped:
                break
            connection = self._connecting = Connection(self._reactor, self._on_notify)
            timer = self._reactor.callLater(self._address.connect_seconds, connection.abort)
            try:
                await connection.connect(attempt)
                await connection.set_up()
            except (psycopg2.Error, ConnectionDone, ValueError) as error:
                # ValueError: aborted in the reactor turn in which its socket was made.
                connection.abort()
                problem = reason(error)
                if not timer.active():
                    problem = f"no answer within {self._address.connect_seconds:g} s"
                continue
            finally:
                self._connecting = None
                if timer.active():
                    timer.cancel()
            return connection
        raise Unreachable(problem)

    def stop(self) -> None:
        """Abort the attempt that is under way and make no others."""
        self._is_stopped = True
        if self._connecting is not None:
            self._connecting.abort()


def reason(error: BaseException) -> str:
    """The first line of an error's text; libpq never puts a password there."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
