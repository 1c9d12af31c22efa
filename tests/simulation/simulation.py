"""One run: clients and daemons, scheduled and disturbed as a tape says, and what went wrong."""

from __future__ import annotations

import gc
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from chatd.errors import StoreUnavailable
from chatd.store import inbox_cache
from tests import history
from tests.doubles import Now
from tests.history import Stored
from tests.simulation.clients import Client, Follower, Poller, Reader, Revoker, Sender
from tests.simulation.database import Database, Kind, Named
from tests.simulation.faults import Faults
from tests.simulation.hostile import Hostile
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.sometimes import watching
from tests.simulation.sqlite import SqliteDatabase
from tests.simulation.tape import Tape, repeatable

USERS: Final = 4
SETUP_SECONDS: Final = 30.0
LIVENESS_SECONDS: Final = 200.0
"""How long after the last fault everything may take: clients back off up to a minute."""
MAX_FAIR_STEPS: Final = 20_000

_CLIENTS: Final[Sequence[tuple[type[Any], int]]] = (
    (Sender, 1),
    (Sender, 2),
    (Sender, 3),
    (Follower, 1),
    (Follower, 2),
    (Poller, 2),
    (Poller, 3),
    (Reader, 1),
    (Reader, 2),
    (Revoker, 4),
    (Hostile, 3),
)

Action = Callable[[], None]


class Stuck(Exception):
    """Nothing can happen any more, or it never ends."""


class Simulation:
    """A run of at most `steps` steps under faults, then a phase without faults.

    `make_database` is given the run. `problems` is what was wrong; `reached` counts how often rare
    things happened.
    """

    def __init__(
        self, tape: Tape, steps: int, make_database: Callable[[Simulation], Database]
    ) -> None:
        self.tape = tape
        self.steps = steps
        # A short window pauses streams, a small cache has more read from the database.
        self.network = Network(tape.choice((64 << 10, 64 << 10, 4 << 10, 500)), tape.choice)
        self.cache_bytes = tape.choice((64 << 20, 64 << 20, 3000, 0))
        self.clock = Clock()
        """The clock of the clients, with which those of daemons keep in step."""
        self.now = Now(self.clock)
        self.events: list[history.Event] = []
        self.problems: list[str] = []
        self.reached: Counter[str] = Counter()
        self.trace: list[str] = []
        self.time = 0
        """Counts steps: the times of the history."""
        self.clients: list[Client] = []
        self.paused: list[Deferred[None]] = []
        self.users: dict[int, str] = {}
        self.sending = 0
        """How many sends are under way that are repeated with their keys."""
        self.sent_at: dict[str, float] = {}
        """When the send of each text began, in seconds."""
        self.database = make_database(self)
        self.node_count = 1 + tape.below(self.database.max_nodes)
        self.nodes: list[Node] = []
        self._nodes_started = 0
        self._gone: list[Node] = []
        self.faults = Faults(self)
        self._last_critical = ""
        """Such as why a daemon cannot start."""

    # What clients use.

    def pause(self) -> Deferred[None]:
        """Fires when the schedule lets this client go on."""
        paused: Deferred[None] = Deferred()
        self.paused.append(paused)
        return paused

    @property
    def is_busy(self) -> bool:
        """Whether a daemon has something to do, or there is none."""
        return not self.nodes or any(
            node.is_busy or self.database.is_busy(node) for node in self.nodes
        )

    @property
    def put_backs(self) -> int:
        """How often a copy of the database was put back."""
        return self.faults.put_backs

    def is_waiting(self, token: str) -> bool:
        """Whether a poll or stream that was begun with this token is held."""
        return any(node.is_waiting(token) for node in self.nodes)

    def inbox(self, user_id: int) -> list[Stored] | None:
        """What a user's inbox contains now; None if no daemon runs."""
        if not any(node.is_serving for node in self.nodes):
            return None
        return self.database.inboxes().get(user_id, [])

    # The run.

    def run(self) -> None:
        """Run to the end; `problems` says what was wrong."""
        with (
            patch.object(inbox_cache, "MAX_BYTES", self.cache_bytes),
            watching(self.reached),
            self.database.running(),
        ):
            self._run()

    def _run(self) -> None:
        gc.disable()
        # What is there already is no garbage of this run.
        gc.freeze()
        globalLogPublisher.addObserver(cast(ILogObserver, self._on_log))
        try:
            self._set_up()
            for _ in range(self.steps):
                self._step()
            self._recover()
            self._check()
        except Stuck as stuck:
            self.problems.append(f"stuck: {stuck}")
        finally:
            for node in tuple(self.nodes):
                self.kill(node)
            self.database.close()
            # Failures that nobody has handled are logged here.
            gc.collect()
            globalLogPublisher.removeObserver(cast(ILogObserver, self._on_log))
            with patch.object(globalLogPublisher, "_observers", []):
                # A killed process does not end its coroutines, and cannot complain.
                self._gone.clear()
                while gc.collect():
                    pass
            gc.enable()

    def _on_log(self, event: LogEvent) -> None:
        """Nothing fails unexpectedly; what a full disk prevents is told to whoever asks for it."""
        failure = event.get("log_failure")
        if event["log_level"] is LogLevel.critical:
            self._last_critical = formatEvent(event)
        if failure is not None and not failure.check(StoreUnavailable):
            self.problems.append(f"logged: {formatEvent(event)}: {failure.getTraceback()}")

    def _set_up(self) -> None:
        for _ in range(self.node_count):
            self.start_node()
        self._run_until(lambda: bool(self.network.listening), SETUP_SECONDS)
        for number in range(USERS):
            client = Client(self, f"user{number + 1}")
            self._run_fair(client.start(client.register(client.name)), SETUP_SECONDS)
            if not client.token:
                raise Stuck(f"{client.name} could not register")
            self.users[client.user_id] = client.token
        # Whom a client belongs to; the last user revokes its tokens.
        user_ids = list(self.users)
        for kind, number in (*_CLIENTS, *self.database.clients):
            user_id = user_ids[number - 1]
            if kind is Hostile and self.tape.one_in(2):
                # In half of the runs everything else has its turn more often.
                continue
            name = f"{kind.__name__.lower()}-{number}"
            client = kind(self, name, user_id, self.users[user_id])
            client.start(client.run())
            self.clients.append(client)

    def start_node(self) -> None:
        """Start one more daemon."""
        self._nodes_started += 1
        node = self.database.new_node(f"node{self._nodes_started}", self.clock.seconds())
        self.nodes.append(node)
        node.start()

    def kill(self, node: Node) -> None:
        """`kill -9`; what it had under way stays as it is."""
        self.database.killed(node)
        node.kill()
        self._remove(node)

    def _remove(self, node: Node) -> None:
        self.nodes.remove(node)
        self._gone.append(node)
        self.network.server_gone(node.name)

    def _remove_stopped(self) -> None:
        for node in tuple(self.nodes):
            if node.has_stopped:
                self.database.ended(node)
                self._remove(node)

    def _step(self) -> None:
        """One thing happens, chosen by the tape."""
        self.time += 1
        if self.tape.one_in(40):
            self.faults.once()
            return
        actions = self.actions()
        if self.faults.stalled:
            actions = [each for each in actions if each[0] not in self.faults.stalled]
        if actions and not self.tape.one_in(12):
            self.do(*self.tape.choice(actions))
        else:
            self._pass_time(self.tape.choice((0.001, 0.1, 1.0, 5.0)))
        self.network.next_turn()
        self._remove_stopped()

    def do(self, name: str, action: Action) -> None:
        """Do something, and note it in the trace."""
        self.trace.append(name)
        action()

    def actions(self) -> list[Named]:
        """Everything that can happen now."""
        actions: list[Named] = []
        for number, paused in enumerate(self.paused):
            actions.append((f"go on {number}", partial(self._go_on, paused)))
        for link in self.network.links:
            for end in link.ends:
                if end.lost is not None:
                    actions.append((f"lost {link.number} {end.name}", end.tell_lost))
                elif end.can_send:
                    actions.append((f"send {link.number} {end.name}", partial(self._send, end)))
        for node in self.nodes:
            actions += node.actions()
        actions += self.database.actions()
        if any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            actions.append(("turn", partial(self.clock.advance, 0)))
        return actions

    def _go_on(self, paused: Deferred[None]) -> None:
        self.paused.remove(paused)
        paused.callback(None)

    def _send(self, end: Any) -> None:
        count = len(end.unsent)
        if self.faults.active and count > 1 and self.tape.one_in(4):
            count = 1 + self.tape.below(count)
        end.send(count)

    def _clocks(self) -> list[Clock]:
        return [*(node.clock for node in self.nodes), self.clock]

    def _pass_time(self, seconds: float) -> None:
        self.trace.append(f"pass {seconds}, {self.network.digest:x}")
        told = [
            node for node in self.nodes if self.database.tells_all(node) and not node.is_working
        ]
        if seconds and not self.problems:
            for node in told:
                self.problems += node.left_waiting(self.database.ends)
        for node in self.nodes:
            swept = node.swept
            node.clock.advance(seconds)
            if node.swept > swept and node in told:
                self.problems.append(f"the sweep of {node.name} found polls that were not woken")
        self.clock.advance(seconds)
        self._remove_stopped()

    # Without faults.

    def _recover(self) -> None:
        """Mend everything, and let every client come to its end."""
        self.faults.end()
        self._start_missing()
        for client in self.clients:
            client.finish()
        senders = [client for client in self.clients if isinstance(client, Sender)]
        self._run_until(lambda: all(client.ended for client in senders), LIVENESS_SECONDS)
        self._run_until(lambda: all(client.is_done for client in self.clients), LIVENESS_SECONDS)
        for client in self.clients:
            self._run_fair(client.stop(), SETUP_SECONDS)

    def _start_missing(self) -> None:
        while len(self.nodes) < self.node_count:
            self.start_node()

    def _run_fair(self, deferred: Deferred[Any], seconds: float) -> None:
        results: list[Any] = []
        deferred.addBoth(results.append)
        self._run_until(lambda: bool(results), seconds)
        if isinstance(results[0], Failure):
            results[0].raiseException()

    def _run_until(self, condition: Callable[[], bool], seconds: float) -> None:
        until = self.clock.seconds() + seconds
        self._fair_steps()
        while not condition():
            due = [call.getTime() for clock in self._clocks() for call in clock.getDelayedCalls()]
            if not due or min(due) > until:
                waiting = [client.name for client in self.clients if not client.ended]
                raise Stuck(f"waiting for {waiting} at {self.clock.seconds():.3f}")
            self._pass_time(max(0.0, min(due) - self.clock.seconds()))
            self._fair_steps()

    def _fair_steps(self) -> None:
        """Everything that needs no time to pass happens."""
        for _ in range(MAX_FAIR_STEPS):
            self._remove_stopped()
            self._start_missing()
            actions = self.actions()
            if not actions:
                return
            self.time += 1
            self.do(*actions[0])
            self.network.next_turn()
        raise Stuck(f"endless: {self.trace[-1]}; {self._last_critical}")

    # Checks.

    def _check(self) -> None:
        stored = self.database.inboxes()
        self.problems += history.check(self.faults.excused(self.events), stored)
        self.problems += self.database.times_going_back()
        for client in self.clients:
            self.problems += client.problems(stored)
        nodes = tuple(self.nodes)
        self.node_count = 0
        for node in nodes:
            if not node.is_stopping:
                node.stop()
        self._run_until(lambda: not self.nodes, LIVENESS_SECONDS)
        for node in nodes:
            self.problems += [f"left over: {each}" for each in node.remaining()]


def simulate(
    seed: int, given: list[int] | None = None, steps: int = 600, kind: Kind = "sqlite"
) -> Simulation:
    """A run that has ended, in a folder in memory if possible."""
    memory = "/dev/shm"
    with (
        tempfile.TemporaryDirectory(
            prefix="chatd-simulation-", dir=memory if Path(memory).is_dir() else None
        ) as folder,
        repeatable(seed),
    ):

        def make_database(run: Simulation) -> Database:
            if kind == "sqlite":
                return SqliteDatabase(Path(folder), run.tape, run.network, run.now, run.reached)
            from tests.simulation.postgres_database import PostgresDatabase
            from tests.simulation.sharded_database import ShardedDatabase

            made = ShardedDatabase if kind == "sharded" else PostgresDatabase
            return made(seed, run.tape, run.network, run.now, run.reached)

        simulation = Simulation(Tape(seed, given), steps, make_database)
        simulation.run()
        return simulation
