"""A NATS server whose messages arrive when the simulation says so, or are lost with a connection.

The product's bus runs over `SimulatedConnector`, which stands for the product's own, and its
connections. All messages of a connection arrive in the order in which they were published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from chatd.nats.protocol import Handler, Info, NatsError

Action = Callable[[], None]


class SimulatedProtocol:
    """A connection, in the place of `NatsProtocol`."""

    def __init__(self, server: SimulatedNats, clock: Clock, handler: Handler, number: int) -> None:
        self.clock = clock
        self.number = number
        self.handler = handler
        self.info = Info()
        self.closed: Deferred[str] = Deferred()
        self.subjects: dict[bytes, bytes] = {}
        """The sid of each subject."""
        self.arriving: list[Action] = []
        """Messages and PONGs on their way to the client."""
        self._pongs: list[Deferred[None]] = []
        self._server = server

    def subscribe(self, subscriptions: Iterable[tuple[bytes, bytes]]) -> None:
        """See `NatsProtocol`."""
        self.subjects.update(subscriptions)

    def unsubscribe(self, sids: Iterable[bytes]) -> None:
        """See `NatsProtocol`."""
        gone = set(sids)
        self.subjects = {each: sid for each, sid in self.subjects.items() if sid not in gone}

    def publish(self, messages: Iterable[tuple[bytes, bytes]]) -> None:
        """See `NatsProtocol`; others that have subscribed get the messages."""
        for subject, payload in messages:
            for other in self._server.connections:
                sid = other.subjects.get(subject)
                if other is not self and sid is not None:
                    other.arriving.append(partial(other.handler.on_message, sid, payload))

    def ping(self) -> Deferred[None]:
        """See `NatsProtocol`."""
        if self not in self._server.connections:
            return fail(NatsError("the connection is closed"))
        pong: Deferred[None] = Deferred()
        self._pongs.append(pong)
        self.arriving.append(lambda: self._pongs.pop(0).callback(None))
        return pong

    def abort(self, reason: str) -> None:
        """See `NatsProtocol`."""
        if self in self._server.connections:
            self._server.connections.remove(self)
            self.arriving.clear()
            while self._pongs:
                self._pongs.pop(0).errback(NatsError(reason))
            self.closed.callback(reason)

    close = abort

    def arrive(self) -> None:
        """Everything that is on its way arrives."""
        arriving, self.arriving = self.arriving, []
        for each in arriving:
            if self in self._server.connections:
                each()


class SimulatedNats:
    """The server."""

    def __init__(self) -> None:
        self.connections: list[SimulatedProtocol] = []
        self._made = 0

    def connect(self, clock: Clock, handler: Handler) -> SimulatedProtocol:
        """A new connection of the process with that clock."""
        self._made += 1
        made = SimulatedProtocol(self, clock, handler, self._made)
        self.connections.append(made)
        return made

    def actions(self) -> list[tuple[str, Action]]:
        """What can happen next."""
        return [(f"nats {each.number}", each.arrive) for each in self.connections if each.arriving]

    def is_busy(self, clock: Clock) -> bool:
        """Whether something is on its way to that process."""
        return any(each.arriving for each in self.connections if each.clock is clock)

    def killed(self, clock: Clock) -> None:
        """The process with that clock is gone."""
        self.connections = [each for each in self.connections if each.clock is not clock]


def connector(server: SimulatedNats) -> Callable[..., Any]:
    """In the place of the class `chatd.nats.connector.Connector`."""

    class SimulatedConnector:
        def __init__(self, address: object, clock: Clock, *_: object) -> None:
            self._clock = clock

        def connect(self, handler: Handler) -> Deferred[SimulatedProtocol]:
            """A connection, at once."""
            return succeed(server.connect(self._clock, handler))

        def learn(self, info: Info) -> None:
            """There are no other servers."""

        def stop(self) -> None:
            """No attempt is under way."""

    return SimulatedConnector
