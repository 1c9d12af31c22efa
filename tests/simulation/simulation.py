"""One run: clients and a daemon, scheduled and disturbed as a tape says, and what went wrong."""

from __future__ import annotations

import gc
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from unittest.mock import patch

from msgspec import structs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from chatd.errors import StoreUnavailable
from chatd.store import inbox_cache
from tests import history
from tests.doubles import Now
from tests.history import Stored
from tests.simulation.clients import Client, Follower, Poller, Reader, Revoker, Sender
from tests.simulation.disk import Disk, Files, torn
from tests.simulation.network import Link, Network
from tests.simulation.node import Node
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
)

Action = Callable[[], None]


class Stuck(Exception):
    """Nothing can happen any more, or it never ends."""


class Simulation:
    """A run of at most `steps` steps under faults, then a phase without faults.

    `problems` is what was wrong; `reached` counts how often rare things happened.
    """

    def __init__(self, folder: Path, tape: Tape, steps: int = 600) -> None:
        self.tape = tape
        self.steps = steps
        # A short window pauses streams, a small cache has more read from the database.
        self.network = Network(tape.choice((64 << 10, 64 << 10, 4 << 10, 500)))
        self.cache_bytes = tape.choice((64 << 20, 64 << 20, 3000, 0))
        self.disk = Disk(folder)
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
        self.sent_at: dict[str, float] = {}
        """When the send of each text began, in seconds."""
        self._disk_is_full = False
        self._copy: tuple[int, Files] | None = None
        self._put_backs: list[tuple[int, int]] = []
        """For each copy of the database that was put back: when it was made, and put back."""
        self.node: Node | None = None
        self._crashed: list[Node] = []
        self._faults = True
        self._stalled: set[str] = set()
        """The names of actions that do not happen for a while."""

    # What clients use.

    def pause(self) -> Deferred[None]:
        """Fires when the schedule lets this client go on."""
        paused: Deferred[None] = Deferred()
        self.paused.append(paused)
        return paused

    @property
    def threads_are_busy(self) -> bool:
        """Whether a thread of the daemon has something to do, or there is no daemon."""
        return self.node is None or any(self.node.running_threads)

    def is_waiting(self, token: str) -> bool:
        """Whether a poll or stream that was begun with this token is held."""
        return self.node is not None and self.node.is_waiting(token)

    # The run.

    def run(self) -> None:
        """Run to the end; `problems` says what was wrong."""
        with patch.object(inbox_cache, "MAX_BYTES", self.cache_bytes):
            self._run()

    def _run(self) -> None:
        gc.disable()
        globalLogPublisher.addObserver(cast(ILogObserver, self._on_log))
        try:
            self._set_up()
            for _ in range(self.steps):
                self._step()
            self._faults = False
            self._stalled.clear()
            self._recover()
            self._check()
        except Stuck as stuck:
            self.problems.append(f"stuck: {stuck}")
        finally:
            if self.node is not None:
                self._leave_node(self.disk.read())
            # Failures that nobody has handled are logged here.
            gc.collect()
            globalLogPublisher.removeObserver(cast(ILogObserver, self._on_log))
            with patch.object(globalLogPublisher, "_observers", []):
                # A killed process does not end its coroutines, and cannot complain.
                self._crashed.clear()
                while gc.collect():
                    pass
            gc.enable()

    def _leave_node(self, left: Files) -> None:
        """The daemon ends at once; what it had under way stays as it is."""
        assert self.node is not None
        self.node.crash(left)
        self._crashed.append(self.node)
        self.node = None

    def _on_log(self, event: LogEvent) -> None:
        """Nothing fails unexpectedly; what a full disk prevents is told to whoever asks for it."""
        failure = event.get("log_failure")
        if failure is not None and not failure.check(StoreUnavailable):
            self.problems.append(f"logged: {formatEvent(event)}: {failure.getTraceback()}")

    def _set_up(self) -> None:
        self._start_node()
        for number in range(USERS):
            client = Client(self, f"user{number + 1}")
            self._run_fair(client.start(client.register(client.name)), SETUP_SECONDS)
            if not client.token:
                raise Stuck(f"{client.name} could not register")
            self.users[client.user_id] = client.token
        # Whom a client belongs to; the last user revokes its tokens.
        for kind, user_id in _CLIENTS:
            name = f"{kind.__name__.lower()}-{user_id}"
            client = kind(self, name, user_id, self.users[user_id])
            client.start(client.run())
            self.clients.append(client)

    def _start_node(self) -> None:
        self._disk_is_full = False
        self.node = Node(self.disk, self.network, self.now, self.clock.seconds())

    def _step(self) -> None:
        """One thing happens, chosen by the tape."""
        self.time += 1
        if self._faults and self.tape.one_in(40):
            self._fault()
            return
        actions = self._actions()
        if self._stalled:
            actions = [each for each in actions if each[0] not in self._stalled]
        if actions and not self.tape.one_in(12):
            name, action = self.tape.choice(actions)
            self._do(name, action)
        else:
            self._pass_time(self.tape.choice((0.001, 0.1, 1.0, 5.0)))
        self.network.next_turn()

    def _do(self, name: str, action: Action) -> None:
        self.trace.append(name)
        action()

    def _actions(self) -> list[tuple[str, Action]]:
        actions: list[tuple[str, Action]] = []
        for number, paused in enumerate(self.paused):
            actions.append((f"go on {number}", partial(self._go_on, paused)))
        for link in self.network.links:
            for end in link.ends:
                if end.lost is not None:
                    actions.append((f"lost {link.number} {end.name}", end.tell_lost))
                elif end.can_send:
                    actions.append((f"send {link.number} {end.name}", partial(self._send, end)))
        if self.node is not None:
            for name, thread in self.node.threads.items():
                if thread.pending:
                    actions.append((f"work {name}", thread.work))
                if thread.done:
                    actions.append((f"result {name}", thread.deliver))
            if self.node.bus.held:
                actions.append(("wake", self.node.bus.release))
        if self._is_due():
            actions.append(("turn", lambda: self._pass_time(0)))
        return actions

    def _go_on(self, paused: Deferred[None]) -> None:
        self.paused.remove(paused)
        paused.callback(None)

    def _send(self, end: Any) -> None:
        count = len(end.unsent)
        if self._faults and count > 1 and self.tape.one_in(4):
            count = 1 + self.tape.below(count)
        end.send(count)

    def _clocks(self) -> list[Clock]:
        return [self.clock] if self.node is None else [self.node.clock, self.clock]

    def _is_due(self) -> bool:
        now = self.clock.seconds()
        return any(
            call.getTime() <= now for clock in self._clocks() for call in clock.getDelayedCalls()
        )

    def _pass_time(self, seconds: float) -> None:
        self.trace.append(f"pass {seconds}, {self.network.digest:x}")
        if seconds and self.node is not None and not self.problems:
            self.problems += self.node.left_waiting()
        for clock in self._clocks():
            clock.advance(seconds)
        if self.node is not None and self.node.has_stopped:
            self.node.end()
            self.node = None

    # Faults.

    def _fault(self) -> None:
        faults: list[tuple[str, Action]] = [("jump", self._jump)] + [("stall", self._stall)] * 4
        if self.network.links:
            faults += [("cut", self._cut)] * 3 + [("slow reader", self._pause_reader)] * 2
        if self.node is None:
            faults += [("start", self._start_node)] * 6
        else:
            faults += [("crash", self._crash), ("copy", self._make_copy)]
            if self._copy is not None:
                faults += [("copy put back", self._put_back)]
            if not self.node.is_stopping:
                faults += [("drain", self.node.stop), ("hold wake-ups", self._hold)]
                faults += [
                    ("disk full or not", lambda: self._set_disk_full(not self._disk_is_full))
                ]
        name, fault = self.tape.choice(faults)
        self.reached[name] += 1
        self._do(name, fault)

    def _stall(self) -> None:
        """Something that could happen does not for a while, such as a result that is passed on.

        So what is rare, namely that everything else is faster, happens in some of the runs.
        """
        possible = [name for name, _ in self._actions() if name not in self._stalled]
        if self._stalled and (not possible or self.tape.one_in(2)):
            self._stalled.clear()
        elif possible:
            self._stalled.add(self.tape.choice(possible))

    def _jump(self) -> None:
        self.now.offset += self.tape.choice((-60, 60, -7200, 86400)) * 1_000_000

    def _cut(self) -> None:
        link: Link = self.tape.choice(self.network.links)
        ends = self.tape.choice((link.ends, (link.client,), (link.server,), ()))
        if not ends:
            self.reached["half-open connection"] += 1
        link.reset(ends)

    def _hold(self) -> None:
        assert self.node is not None
        self.node.bus.hold = not self.node.bus.hold

    def _pause_reader(self) -> None:
        end = self.tape.choice(self.network.links).client
        end.reading = not end.reading

    def _set_disk_full(self, full: bool) -> None:
        assert self.node is not None
        self._disk_is_full = full
        self.node.set_disk_full(full)

    def _make_copy(self) -> None:
        self._copy = (self.time, self.disk.read())

    def _put_back(self) -> None:
        """The daemon ends, and the next one finds the copy."""
        assert self.node is not None
        assert self._copy is not None
        made_at, files = self._copy
        self._end_suddenly(files)
        self._put_backs.append((made_at, self.time))

    @property
    def put_backs(self) -> int:
        """How often a copy of the database was put back."""
        return len(self._put_backs)

    def _excused(self) -> list[history.Event]:
        """The history, without what a copy that was put back made false."""
        if not self._put_backs:
            return self.events
        events: list[history.Event] = []
        for event in self.events:
            forgotten = any(
                event.ended >= made_at and event.began <= put_back_at
                for made_at, put_back_at in self._put_backs
            )
            if isinstance(event, history.Sent):
                events.append(structs.replace(event, outcome="unknown") if forgotten else event)
            elif not forgotten and event.reader is None:
                events.append(event)
        return events

    def _crash(self) -> None:
        node = self.node
        assert node is not None
        writer = node.threads["writer"]
        before = self.disk.read()
        if writer.done:
            self.reached["crash after commit, before the answer"] += 1
        if writer.pending and not self.tape.one_in(3):
            writer.work()
            after = self.disk.read()
            left = torn(before, after, self.tape)
            if left == after != before:
                self.reached["crash in a transaction: committed"] += 1
            elif after != before:
                self.reached["crash in a transaction: torn"] += 1
        else:
            left = before
        self._end_suddenly(left)

    def _end_suddenly(self, left: Files) -> None:
        self._leave_node(left)
        for link in self.network.links:
            link.reset((link.client,))
            link.server.connected = False
            link.server.lost = None

    # Without faults.

    def _recover(self) -> None:
        """Mend everything, and let every client come to its end."""
        if self.node is None:
            self._start_node()
        assert self.node is not None
        self.node.bus.hold = False
        while self.node.bus.held:
            self.node.bus.release()
        for link in self.network.links:
            if link.broken:
                link.reset(link.ends)
            for end in link.ends:
                end.reading = True
        self._set_disk_full(False)
        for client in self.clients:
            client.finish()
        senders = [client for client in self.clients if isinstance(client, Sender)]
        self._run_until(lambda: all(client.ended for client in senders), LIVENESS_SECONDS)
        self._run_until(
            lambda: all(client.is_done for client in self.clients),
            LIVENESS_SECONDS,
        )
        for client in self.clients:
            self._run_fair(client.stop(), SETUP_SECONDS)

    def inbox(self, user_id: int) -> list[Stored] | None:
        """What a user's inbox contains now; None if no daemon runs."""
        if self.node is None or self.node.is_stopping:
            return None
        return self.node.inboxes().get(user_id, [])

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
            if self.node is None:
                self._start_node()
            self._fair_steps()

    def _fair_steps(self) -> None:
        """Everything that needs no time to pass happens."""
        for _ in range(MAX_FAIR_STEPS):
            actions = self._actions()
            if not actions:
                return
            self.time += 1
            self._do(*actions[0])
            self.network.next_turn()
            if self.node is not None and self.node.has_stopped:
                self.node.end()
                self._start_node()
        raise Stuck(f"endless: {self.trace[-1]}")

    # Checks.

    def _check(self) -> None:
        node = self.node
        assert node is not None
        stored = node.inboxes()
        self.problems += history.check(self._excused(), stored)
        self.problems += node.times_going_back()
        for client in self.clients:
            self.problems += client.problems(stored)
        if not self.reached["hold wake-ups"]:
            self.problems += node.missed_wakeups()
        node.stop()
        self._run_until(lambda: self.node is not node, LIVENESS_SECONDS)
        self.problems += [f"left over: {each}" for each in node.remaining()]


def simulate(seed: int, given: list[int] | None = None, steps: int = 600) -> Simulation:
    """A run that has ended, in a folder in memory if possible."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(
        prefix="chatd-simulation-", dir=memory if Path(memory).is_dir() else None
    ) as folder:
        with repeatable(seed):
            simulation = Simulation(Path(folder), Tape(seed, given), steps)
            simulation.run()
        return simulation
