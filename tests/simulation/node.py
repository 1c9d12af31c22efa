"""A whole daemon on a simulated network, clock and threads, whatever its database is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.api.client_address import TrustedProxies
from chatd.api.problems import problem
from chatd.compose.api import compose_api
from chatd.compose.domain import compose_domain
from chatd.config import Settings
from chatd.http.limits import HTTPLimits
from chatd.http.server import Server
from chatd.interfaces import IBus, IStore
from chatd.metrics import Metrics
from chatd.process.listeners import Listener
from chatd.process.service import ChatService
from tests.doubles import Now, SteppedExecutor, cheap_hasher
from tests.simulation.network import Network, ServerEndpoint

DRAIN_SECONDS = 10.0

Action = Callable[[], None]


class Node:
    """A daemon that runs, from its start to its end or to a crash.

    `threads` are those of the store, as far as there are any yet. The times of a `clock` of its
    own are those of all others.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        store: IStore,
        bus: IBus,
        *,
        clock: Clock,
        now: Now,
        network: Network,
        metrics: Metrics,
        threads: dict[str, SteppedExecutor],
    ) -> None:
        self.name = name
        self.clock = clock
        self.network = network
        self.metrics = metrics
        self.threads = threads
        threads["passwords"] = SteppedExecutor()
        self.components = compose_domain(
            settings,
            store,
            bus,
            metrics,
            clock=clock,
            now=now,
            hashing=threads["passwords"],
            hasher=cheap_hasher(),
            rates=None,
        )
        api = compose_api(
            self.components,
            clock=clock,
            proxies=TrustedProxies([ip_network("127.0.0.1")]),
            retry_jitter=lambda: 2,
        )
        self.server = Server(
            resource=api.resource,
            fast_handler=api.fast_path,
            clock=clock,
            limits=HTTPLimits(),
            problem=problem,
            now=lambda: now() / 1_000_000,
        )
        listener = Listener("simulated", ServerEndpoint(network, name), self.server)
        self.service = ChatService(
            self.components, clock, public=[listener], admin=[], drain_seconds=DRAIN_SECONDS
        )
        self._stopping: Deferred[None] | None = None

    def start(self) -> None:
        """Start it; it may not be ready yet when this returns."""
        self.service.startService()

    @property
    def running_threads(self) -> Iterator[SteppedExecutor]:
        """The threads that have something to do, or a result."""
        return (each for each in self.threads.values() if each.pending or each.done)

    def actions(self) -> Iterator[tuple[str, Action]]:
        """What can happen next in this process, without time passing."""
        for name, thread in self.threads.items():
            if thread.pending:
                yield f"{self.name} work {name}", thread.work
            if thread.done:
                yield f"{self.name} result {name}", thread.deliver
        if self.is_due:
            yield f"{self.name} turn", partial(self.clock.advance, 0)

    @property
    def is_due(self) -> bool:
        """Whether a call of the clock is due."""
        now = self.clock.seconds()
        return any(call.getTime() <= now for call in self.clock.getDelayedCalls())

    @property
    def is_serving(self) -> bool:
        """Whether it has started, and does not stop."""
        return self._stopping is None and self.name in self.network.listening

    def stop(self) -> None:
        """Begin to drain, as at SIGTERM."""
        self._stopping = self.service.stopService()

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self._stopping is not None

    @property
    def has_stopped(self) -> bool:
        """Whether the process has ended by itself."""
        return self._stopping is not None and bool(self._stopping.called)

    def kill(self) -> None:
        """End at once."""
        self.network.listening.pop(self.name, None)
        for call in self.clock.getDelayedCalls():
            call.cancel()

    @property
    def is_working(self) -> bool:
        """Whether the store is doing something, whose end may wake somebody."""
        return any(self.running_threads)

    @property
    def is_busy(self) -> bool:
        """Whether something is going on that may wake somebody."""
        return self.is_due or self.is_working or self.is_stopping

    def left_waiting(self, read_ends: Callable[[], Mapping[int, int]]) -> list[str]:
        """A line for each waiter that does not know of messages, though nothing is going on.

        `read_ends` reads the seq of the last message of each user.
        """
        held = {} if self.is_busy else self.components.notifier.held_by_user()
        if not held:
            return []
        ends = read_ends()
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

    @property
    def swept(self) -> int:
        """How many polls the sweep has found that nobody had woken."""
        return self.metrics._missed_wakeups

    def remaining(self) -> list[str]:
        """What a daemon that has stopped should not have any more."""
        notifier: Any = self.components.notifier
        calls = [str(call) for call in self.clock.getDelayedCalls()]
        found = [f"timer: {call}" for call in calls]
        found += [f"{self.server.connections} connections"] * (self.server.connections > 0)
        found += [f"{notifier.held} polls held"] * (notifier.held > 0)
        found += ["waiters"] * bool(notifier._waiters)
        return found
