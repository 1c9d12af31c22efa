"""PostgreSQL whose statements run, and whose answers arrive, when the simulation says so, or never.

The product's own connections, of txpostgres, run over `Session`, which stands for a connection of
psycopg2 in asynchronous mode. Behind it the SQL is run by a real server, a statement at a time.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ
from twisted.internet.task import Clock

from chatd.store.postgres.append_sql import replay
from tests.simulation.real_postgres import FIRST, Backend, RealPostgres
from tests.simulation.tape import Tape

Action = Callable[[], None]

DEADLOCK: Final = "40P01"
SERIALIZATION: Final = "40001"
DISK_FULL: Final = "53100"
CANCELLED: Final = "57014"


class ReactorClock(Clock):
    """A clock that is the reactor of a daemon, too; `lose` what has to do with its process."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.rightNow = seconds
        self.readers: list[Any] = []
        self.has_exited = False

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def removeWriter(self, writer: Any) -> None:
        pass

    def stop(self) -> None:
        """The daemon could not start."""
        self.has_exited = True


class Cursor:
    """A cursor of psycopg2."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.description: Any = None
        self.rows: list[Any] = []

    def execute(self, sql: str, parameters: Any = None) -> None:
        """Send a statement."""
        self._session.send(self, sql, parameters)

    def fetchall(self) -> list[Any]:
        """The rows of the result."""
        return self.rows


class Statement:
    """A statement that was sent, and its outcome."""

    def __init__(self, cursor: Cursor, sql: str, parameters: Any) -> None:
        self.cursor = cursor
        self.sql = sql
        self.parameters = parameters
        self.has_run = False
        self.error: psycopg2.Error | None = None

    @property
    def appends(self) -> bool:
        """Whether it appends, and does not look up what an earlier attempt has done."""
        given = self.parameters
        return isinstance(given, dict) and "texts" in given and "EXECUTE" in self.sql


class Session:
    """A connection of psycopg2, and what the server knows of it."""

    def __init__(
        self, server: PostgresServer, number: int, reactor: ReactorClock, schema: str
    ) -> None:
        self.number = number
        self.schema = schema
        """That of the server, if there are two."""
        self.reactor = reactor
        self.closed = 0
        self.notifies: list[Any] = []
        self.is_connected = False
        self.is_listening = False
        self.is_broken = False
        """Nothing arrives any more."""
        self.is_told = False
        """The client will notice that."""
        self.notices: list[str] = []
        """On their way to the client."""
        self.statement: Statement | None = None
        self.backend: Backend | None = None
        self._answered = False
        self._pid = 0
        self._server = server

    @property
    def has_transaction(self) -> bool:
        """Whether a transaction of several statements is open."""
        return self.backend is not None and self.backend.in_transaction

    # For psycopg2's users.

    def poll(self) -> int:
        """How far the connection, or the statement, is; raises its error."""
        if self.is_broken and self.is_told:
            raise psycopg2.OperationalError("server closed the connection unexpectedly")
        if not self.is_connected:
            return int(POLL_READ)
        if self.statement is None:
            return int(POLL_OK)
        if not self._answered:
            return int(POLL_READ)
        statement, self.statement, self._answered = self.statement, None, False
        if statement.error is not None:
            raise statement.error
        return int(POLL_OK)

    def cursor(self) -> Cursor:
        """A cursor."""
        return Cursor(self)

    def send(self, cursor: Cursor, sql: str, parameters: Any) -> None:
        """Send a statement."""
        assert self.statement is None
        self.statement = Statement(cursor, sql, parameters)

    def get_backend_pid(self) -> int:
        """The id of the server's process."""
        if self.closed:
            raise psycopg2.InterfaceError("connection already closed")
        return self._pid

    def cancel(self) -> None:
        """Ask the server to cancel a statement, which it need not do."""

    def close(self) -> None:
        """Close the connection; the server may know of a statement already."""
        self.closed = 1
        self._server.abandoned(self)

    def fileno(self) -> int:
        """Some number."""
        return self.number

    # For the simulation.

    def accept(self) -> None:
        """The connection is made, unless the server is down."""
        if self._server.is_away(self):
            self.lose()
        else:
            self.backend = self._server.real.borrow(self.schema)
            self._pid = self.backend.pid
            self.is_connected = True
            self._ready()

    def run(self) -> None:
        """The server runs the statement."""
        statement = self.statement
        assert statement is not None
        self._server.run(self, statement)
        if self._server.cuts_next_append and statement.appends and not self.has_transaction:
            self._server.cuts_next_append = False
            self.break_off()

    def answer(self) -> None:
        """The answer arrives."""
        self._answered = True
        self._ready()

    def deliver(self) -> None:
        """The oldest notice arrives."""
        self.notifies.append(SimpleNamespace(payload=self.notices.pop(0)))
        self._ready()

    def break_off(self) -> None:
        """Nothing arrives any more; the client does not know yet."""
        self.is_broken = True
        self.is_listening = False
        self.notices.clear()
        if self.backend is not None:
            self._server.real.give_back(self.backend)
            self.backend = None

    def lose(self) -> None:
        """The client notices that the connection is broken."""
        if not self.is_broken:
            self.break_off()
        self.is_told = True
        self._ready()

    def _ready(self) -> None:
        for reader in tuple(self.reactor.readers):
            if reader.pollable() is self and reader in self.reactor.readers:
                reader.doRead()


class PostgresServer:
    """The server as the simulation sees it: its sessions, and what can happen next to each.

    `now` returns the server's time, in microseconds since the Unix epoch.
    """

    def __init__(
        self,
        tape: Tape,
        seed: int,
        now: Callable[[], int],
        reached: Counter[str],
        real: RealPostgres,
    ) -> None:
        self.real = real
        self._tape = tape
        self._now = now
        self._random = random.Random(f"database {seed}")
        self._numbers = iter(range(10**9))
        self._late: list[tuple[int, Session, Statement]] = []
        """Statements of connections that were closed, which the server runs nevertheless."""
        self.sessions: list[Session] = []
        self.is_down = False
        self.hangs = False
        self.cuts_next_append = False
        """The connection of the next append breaks after its commit, before the answer."""
        """It takes connections and statements, and does nothing, as if its disk was stuck."""
        self._reached = reached
        real.clear()

    def is_away(self, session: Session) -> bool:
        """Whether the connection cannot be made."""
        return self.is_down

    def connect(self, reactor: ReactorClock, schema: str = FIRST) -> Session:
        """A connection that is being made."""
        session = Session(self, next(self._numbers), reactor, schema)
        self.sessions.append(session)
        return session

    def actions(self) -> list[tuple[str, Action]]:
        """What can happen next."""
        found: list[tuple[str, Action]] = []
        busy = next((each for each in self.sessions if each.has_transaction), None)
        for session in self.sessions:
            name = f"db {session.number}"
            statement = session.statement
            if session.is_broken:
                if session.is_told:
                    continue
                found.append((f"{name} lost", session.lose))
            elif not session.is_connected:
                found.append((f"{name} connect", session.accept))
            elif statement is not None and statement.has_run:
                found.append((f"{name} answer", session.answer))
            elif statement is not None and busy in (None, session) and not self.hangs:
                # It could wait for what a transaction has locked.
                found.append((f"{name} run", session.run))
            if session.notices:
                found.append((f"{name} notice", session.deliver))
        if busy is None and not self.hangs:
            for number, session, statement in self._late:
                found.append((f"db late {number}", partial(self._run_late, session, statement)))
        return found

    def run(self, session: Session, statement: Statement) -> None:
        """Run a statement, and give its notices to all who listen."""
        statement.has_run = True
        self._reached["batch looked up after a lost answer"] += statement.sql == replay()
        backend = session.backend
        assert backend is not None
        try:
            description, found, payloads = backend.run(
                statement.sql, statement.parameters, now=self._now(), random=self._random.random()
            )
        except psycopg2.Error as error:
            if error.pgcode == CANCELLED:
                raise AssertionError(f"a statement waits for another: {statement.sql}") from None
            statement.error = error
            return
        statement.cursor.description = description
        statement.cursor.rows = found
        if statement.sql.startswith("LISTEN "):
            session.is_listening = True
        for payload in payloads:
            for each in self.sessions:
                if each.is_listening:
                    each.notices.append(payload)

    def abandoned(self, session: Session) -> None:
        """The client has closed a connection, or was killed."""
        self.sessions.remove(session)
        statement = session.statement
        backend, session.backend = session.backend, None
        if backend is None:
            return
        if (
            statement is not None
            and not (statement.has_run or backend.in_transaction or session.is_broken)
            and self._tape.one_in(2)
        ):
            session.backend = backend
            self._reached["statement of a closed connection"] += 1
            self._late.append((session.number, session, statement))
        else:
            self.real.give_back(backend)

    def _run_late(self, session: Session, statement: Statement) -> None:
        self._late = [each for each in self._late if each[2] is not statement]
        self.run(session, statement)
        backend, session.backend = session.backend, None
        assert backend is not None
        self.real.give_back(backend)

    # Faults.

    def pending(self) -> list[Session]:
        """The sessions whose statements have not run yet."""
        return [
            each
            for each in self.sessions
            if each.statement is not None and not each.statement.has_run and not each.is_broken
            and not each.has_transaction
        ]  # fmt: skip

    def fail(self, session: Session, state: str) -> None:
        """The statement fails with this SQLSTATE, without an effect."""
        assert session.backend is not None
        assert session.statement is not None
        session.statement.has_run = True
        session.statement.error = session.backend.error(state)

    def set_down(self, down: bool) -> None:
        """Whether the server is down; all connections break when it goes."""
        self.is_down = down
        if down:
            self.break_all()

    def break_all(self) -> None:
        """All connections break at once."""
        for session in tuple(self.sessions):
            session.break_off()
        for _, session, _ in self._late:
            assert session.backend is not None
            self.real.give_back(session.backend)
            session.backend = None
        self._late.clear()

    def fail_over(self) -> None:
        """A standby takes over that has what was copied; not all notice that at once."""
        self.break_all()
        self.real.put_back()
        for session in tuple(self.sessions):
            if not self._tape.one_in(3):
                session.lose()

    def close(self) -> None:
        """End everything."""
        self.break_all()
