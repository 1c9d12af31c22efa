"""PostgreSQL in a simulation: up to four daemons with one database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, cast
from unittest.mock import patch

import attrs
from psycopg2.extensions import parse_dsn

from chatd.compose import storage
from chatd.config import load
from chatd.metrics import Metrics
from chatd.postgres.connection import Connection
from chatd.process import service
from chatd.store.postgres.store import PostgresStore
from tests.doubles import Now
from tests.history import Stored
from tests.simulation.database import Named
from tests.simulation.key_clients import KeylessSender
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.postgres import (
    DEADLOCK,
    DISK_FULL,
    SERIALIZATION,
    PostgresServer,
    ReactorClock,
    Session,
)
from tests.simulation.real_postgres import FIRST, SECOND, real_postgres
from tests.simulation.tape import Tape

_MESSAGES: Final = ":m:"
"""In notices of new messages."""


class PostgresNode(Node):
    """A daemon with connections to the server; `bus` is the setting."""

    def __init__(
        self, name: str, network: Network, now: Now, seconds: float, bus: str | None = None
    ) -> None:
        self.reactor = ReactorClock(seconds)
        settings = attrs.evolve(load({}, {})[0], db="postgresql://chatd@simulated/chatd", bus=bus)
        metrics = Metrics()
        with patch.object(storage, "microseconds", now):
            store, self.bus = storage.compose_store_and_bus(settings, self.reactor, metrics)
        self.store = cast(PostgresStore, store)
        super().__init__(
            name,
            settings,
            store,
            self.bus,
            clock=self.reactor,
            now=now,
            network=network,
            metrics=metrics,
            threads={},
        )

    @property
    def has_stopped(self) -> bool:
        return self.reactor.has_exited or super().has_stopped

    @property
    def is_working(self) -> bool:
        executor: Any = self.store._executor
        return super().is_working or executor._running > 0

    @property
    def is_busy(self) -> bool:
        return super().is_busy or self.bus.problem() is not None


class PostgresDatabase:
    """The server, and the daemons that use it."""

    max_nodes = 4
    clients: Sequence[tuple[type[Any], int]] = ((KeylessSender, 3),)
    # Tables, or what stands for them in FROM.
    _messages = "message"
    _inboxes = "inbox"

    def __init__(
        self, seed: int, tape: Tape, network: Network, now: Now, reached: Counter[str]
    ) -> None:
        self._tape = tape
        self._network = network
        self._now = now
        self._reached = reached
        self.server = self._make_server(seed)
        self._has_lost_notices = False
        # Notices are only lost with their connection, so most runs lose no others.
        self._loses_notices = tape.below(4) == 3

    def _make_server(self, seed: int) -> PostgresServer:
        return PostgresServer(self._tape, seed, self._now, self._reached, real_postgres())

    @contextmanager
    def running(self) -> Iterator[None]:
        # A daemon that cannot start ends, but not this process.
        exits = SimpleNamespace(register=lambda *_: None)
        with (
            patch.object(Connection, "connectionFactory", _connect_to(self.server)),
            patch.object(service, "atexit", exits),
        ):
            yield

    def new_node(self, name: str, seconds: float) -> Node:
        return PostgresNode(name, self._network, self._now, seconds)

    def actions(self) -> list[Named]:
        return self.server.actions()

    def faults(self, nodes: list[Node]) -> list[Named]:
        server = self.server
        down, hangs = ("database down or up", self._toggle), ("database hangs or not", self._hang)
        if server.is_down or server.hangs:
            return [down if server.is_down else hangs] * 6
        found: list[Named] = [down, hangs]
        if server.sessions:
            found.append(("database connection lost", partial(self._lose, server.sessions)))
        listening = [session for session in server.sessions if session.is_listening]
        if listening:
            found.append(("listening connection lost", partial(self._lose, listening)))
        if self.server.pending():
            found += [
                ("cut before the statement", self._cut_before),
                ("cut after the commit, before the answer", self._cut_after),
                ("cut after the commit, before the answer", self._cut_after),
                ("statement refused", self._refuse),
            ]
        if self._with_notices():
            found.append(("notice doubled", self._double))
            if self._loses_notices:
                found.append(("notice dropped", self._drop))
        return found

    def _toggle(self) -> None:
        self.server.set_down(not self.server.is_down)

    def _hang(self) -> None:
        self.server.hangs = not self.server.hangs

    def _lose(self, sessions: Sequence[Session]) -> None:
        self._tape.choice(sessions).break_off()

    def _cut_before(self) -> None:
        self._tape.choice(self.server.pending()).break_off()

    def _cut_after(self) -> None:
        if self._tape.one_in(2):
            # One of which it matters what becomes of it; few are waiting at any moment.
            self.server.cuts_next_append = True
            return
        session = self._tape.choice(self.server.pending())
        session.run()
        session.break_off()

    def _refuse(self) -> None:
        state = self._tape.choice((DEADLOCK, SERIALIZATION, DISK_FULL))
        session = self._tape.choice(self.server.pending())
        self._reached[f"SQLSTATE {state}"] += 1
        self.server.fail(session, state)

    def _with_notices(self) -> list[Session]:
        return [
            session
            for session in self.server.sessions
            if any(_MESSAGES in payload for payload in session.notices)
        ]

    def _double(self) -> None:
        notices = self._tape.choice(self._with_notices()).notices
        notices.insert(0, next(each for each in notices if _MESSAGES in each))

    def _drop(self) -> None:
        notices = self._tape.choice(self._with_notices()).notices
        notices.remove(next(each for each in notices if _MESSAGES in each))
        self._has_lost_notices = True

    def is_busy(self, node: Node) -> bool:
        return self.server.hangs or any(
            session.notices or session.is_broken
            for session in self.server.sessions
            if session.reactor is node.clock
        )

    def tells_all(self, node: Node) -> bool:
        return not (
            self._has_lost_notices
            or self.is_busy(node)
            or cast(PostgresNode, node).bus.problem() is not None
        )

    def killed(self, node: Node) -> None:
        self.ended(node)

    def ended(self, node: Node) -> None:
        for session in tuple(self.server.sessions):
            if session.reactor is node.clock:
                session.close()

    def copy(self) -> bool:
        if any(session.has_transaction for session in self.server.sessions):
            return False
        self.server.real.save()
        return True

    def put_back(self, nodes: list[Node]) -> list[Node]:
        self.server.fail_over()
        return []

    def mend(self, nodes: list[Node]) -> None:
        self.server.is_down = self.server.hangs = False
        for session in tuple(self.server.sessions):
            if session.is_broken and not session.is_told:
                session.lose()

    def inboxes(self) -> dict[int, list[Stored]]:
        rows = self.server.real.rows(
            f"SELECT received_by, seq, sent_by, text FROM {self._messages} AS message"
            " ORDER BY received_by, seq"
        )
        found: dict[int, list[Stored]] = {}
        for user_id, *message in rows:
            found.setdefault(user_id, []).append(Stored(*message))
        return found

    def ends(self) -> Mapping[int, int]:
        return dict(
            self.server.real.rows(f"SELECT user_id, last_seq FROM {self._inboxes} AS inbox")
        )

    def times_going_back(self) -> list[str]:
        rows = self.server.real.rows(
            f"""
            SELECT later.received_by, later.seq
            FROM {self._messages} AS earlier JOIN {self._messages} AS later
            ON later.received_by = earlier.received_by AND later.seq = earlier.seq + 1
            WHERE later.sent_at < earlier.sent_at
            """
        )
        return [f"message {seq} of user {user_id} is older than the last" for user_id, seq in rows]

    def close(self) -> None:
        self.server.close()


def _connect_to(server: PostgresServer) -> Callable[..., Session]:
    """In the place of `psycopg2.connect`, as a method of `Connection`."""

    def connect(self: Connection, dsn: str, **_: Any) -> Session:
        # Servers of a sharded database are named by it.
        is_second = parse_dsn(dsn)["host"] == "node2"
        return server.connect(self.reactor, SECOND if is_second else FIRST)

    return connect
