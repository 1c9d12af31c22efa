"""A whole daemon on a simulated network, disk, clock and threads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from ipaddress import ip_network

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.api.client_address import TrustedProxies
from chatd.api.problems import problem
from chatd.compose.api import compose_api
from chatd.compose.domain import compose_domain
from chatd.config import load
from chatd.http.limits import HTTPLimits
from chatd.http.server import Server
from chatd.metrics import Metrics
from chatd.process.listeners import Listener
from chatd.process.service import ChatService
from chatd.store.sqlite.store import SqliteStore
from tests.doubles import ControlledBus, Now, SteppedExecutor, cheap_hasher
from tests.history import Stored
from tests.simulation.disk import Disk, Files
from tests.simulation.network import Network, ServerEndpoint

DRAIN_SECONDS = 10.0


class Node:
    """A daemon that runs, from its start to its end or to a crash."""

    def __init__(self, disk: Disk, network: Network, now: Now, seconds: float) -> None:
        self.clock = Clock()
        self.clock.rightNow = seconds
        self.disk = disk
        self.network = network
        self.threads: dict[str, SteppedExecutor] = {"passwords": SteppedExecutor()}
        self.bus = ControlledBus()
        self.metrics = Metrics()
        settings = load({}, {})[0]
        self.store = SqliteStore(
            str(disk.mount()),
            clock=self.clock,
            now=now,
            worker=lambda name: self.threads.setdefault(name, SteppedExecutor()),
        )
        self.components = compose_domain(
            settings,
            self.store,
            self.bus,
            self.metrics,
            clock=self.clock,
            now=now,
            hashing=self.threads["passwords"],
            hasher=cheap_hasher(),
            rates=None,
        )
        api = compose_api(
            self.components,
            clock=self.clock,
            proxies=TrustedProxies([ip_network("127.0.0.1")]),
            retry_jitter=lambda: 2,
        )
        self.server = Server(
            resource=api.resource,
            fast_handler=api.fast_path,
            clock=self.clock,
            limits=HTTPLimits(),
            problem=problem,
            now=lambda: now() / 1_000_000,
        )
        listener = Listener("simulated", ServerEndpoint(network), self.server)
        self.service = ChatService(
            self.components, self.clock, public=[listener], admin=[], drain_seconds=DRAIN_SECONDS
        )
        self.service.startService()
        self._stopping: Deferred[None] | None = None

    @property
    def running_threads(self) -> Iterator[SteppedExecutor]:
        """The threads that have something to do, or a result."""
        return (each for each in self.threads.values() if each.pending or each.done)

    def stop(self) -> None:
        """Begin to drain, as at SIGTERM."""
        self._stopping = self.service.stopService()

    @property
    def is_stopping(self) -> bool:
        return self._stopping is not None

    @property
    def has_stopped(self) -> bool:
        return self._stopping is not None and bool(self._stopping.called)

    def crash(self, left: Files) -> None:
        """End at once, leaving these files to the next daemon."""
        self.network.factory = None
        self.disk.leave(left)
        for call in self.clock.getDelayedCalls():
            call.cancel()
        # Closing merges the log into the database, but nobody reads that one any more.
        self.store._read_db.close()
        self.store._write_db.close()
        if self.store._lock is not None:
            self.store._lock.release()
        self.disk.remove()

    def end(self) -> None:
        """After the daemon has stopped: leave its files to the next one."""
        self.disk.leave(self.disk.read())
        self.disk.remove()

    def set_disk_full(self, full: bool) -> None:
        """Whether the database cannot grow."""
        if self.is_stopping:
            return
        db = self.store._write_db
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages if full else 1 << 30}")

    def inboxes(self) -> dict[int, list[Stored]]:
        """What the database contains: the messages of each user."""
        rows = self.store._read_db.execute(
            "SELECT received_by, seq, sent_by, text FROM message ORDER BY received_by, seq"
        )
        found: dict[int, list[Stored]] = {}
        for user_id, *message in rows:
            found.setdefault(user_id, []).append(Stored(*message))
        return found

    def left_waiting(self) -> list[str]:
        """A line for each waiter that does not know of messages, though nothing is going on."""
        busy = any(self.running_threads) or self.bus.held or self.is_stopping
        due = any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls())
        held = self.components.notifier.held_by_user()
        if busy or due or not held:
            return []
        ends = dict(self.store._read_db.execute("SELECT user_id, last_seq FROM inbox"))
        return [
            f"left waiting: user {user_id} waits after {waiter.seq}, there is {ends[user_id]}"
            for user_id, waiters in held.items()
            for waiter in waiters
            if waiter.seq < ends.get(user_id, 0) and not waiter.is_behind
        ]

    def is_waiting(self, token: str) -> bool:
        """Whether a poll or stream that was begun with this token is held."""
        digest = hashlib.sha256(token.encode()).digest()
        held = self.components.notifier.held_by_user().values()
        return any(waiter.session.token == digest for waiters in held for waiter in waiters)

    def missed_wakeups(self) -> list[str]:
        """A line if the sweep has found polls that nobody had woken."""
        found = re.search(
            r"^chatd_sweep_found_total ([1-9].*)$", self.metrics.render().decode(), re.M
        )
        return [] if found is None else [f"the sweep found {found[1]} polls that were not woken"]

    def times_going_back(self) -> list[str]:
        """A line for each message that seems to be older than the one before it in its inbox."""
        query = """
            SELECT later.received_by, later.seq FROM message AS earlier JOIN message AS later
            ON later.received_by = earlier.received_by AND later.seq = earlier.seq + 1
            WHERE later.sent_at < earlier.sent_at
        """
        rows = self.store._read_db.execute(query)
        return [f"message {seq} of user {user_id} is older than the last" for user_id, seq in rows]

    def remaining(self) -> list[str]:
        """What a daemon that has stopped should not have any more."""
        notifier = self.components.notifier
        calls = [str(call) for call in self.clock.getDelayedCalls()]
        found = [f"timer: {call}" for call in calls]
        found += [f"{self.server.connections} connections"] * (self.server.connections > 0)
        found += [f"{notifier.held} polls held"] * (notifier.held > 0)
        found += ["waiters"] * bool(notifier._waiters)
        return found
