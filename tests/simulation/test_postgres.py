"""A daemon that starts while a simulated PostgreSQL goes away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from twisted.internet.task import Clock

from tests.conftest import LoggedFailures
from tests.doubles import Now
from tests.simulation.network import Network
from tests.simulation.postgres import Session
from tests.simulation.postgres_database import PostgresDatabase, PostgresNode
from tests.simulation.tape import Tape


class Start:
    """A daemon that starts, whose database does one thing after another."""

    def __init__(self) -> None:
        tape = Tape(0, [])
        network = Network(1 << 16, tape.choice)
        self.database = PostgresDatabase(0, tape, network, Now(Clock()), Counter())
        self.node = PostgresNode("node", network, Now(Clock()), 0.0)

    def step_until(self, is_so: Callable[[], bool]) -> None:
        """Have one thing happen after another until something is so."""
        while not is_so():
            actions = [*self.node.actions(), *self.database.actions()]
            actions[0][1]()

    def is_running(self, beginning: str) -> bool:
        """Whether such a statement has been sent."""
        return any(
            session.statement is not None and session.statement.sql.startswith(beginning)
            for session in self.sessions
        )

    @property
    def sessions(self) -> list[Session]:
        """The connections to the server."""
        return self.database.server.sessions


@pytest.fixture
def start() -> Iterator[Start]:
    made = Start()
    with made.database.running():
        made.node.start()
        yield made
        made.database.ended(made.node)
        made.node.kill()
        made.database.close()


@pytest.mark.parametrize("statement", ["begin", "SELECT pg_advisory", "SELECT epoch", "commit"])
def test_a_daemon_that_loses_the_database_while_it_looks_at_the_schema_says_so(
    start: Start, statement: str, logged_failures: LoggedFailures
) -> None:
    start.step_until(lambda: start.is_running(statement))
    start.database.server.set_down(True)
    start.step_until(lambda: start.node.has_stopped)
    [text] = logged_failures.flush_messages()
    assert text.startswith("chatd cannot start: cannot use the database postgresql://")


def test_a_daemon_that_cannot_open_its_connections_says_so(
    start: Start, logged_failures: LoggedFailures
) -> None:
    start.step_until(lambda: start.is_running("commit"))
    start.step_until(lambda: not start.is_running("commit"))
    start.database.server.set_down(True)
    start.step_until(lambda: start.node.has_stopped)
    [text] = logged_failures.flush_messages()
    assert text.startswith("chatd cannot start: cannot reach the database postgresql://")
