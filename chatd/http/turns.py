"""Which connections are served in a turn of the reactor.

All sockets that have data are read in one turn. If that makes for more work than a few
milliseconds, nothing else happens meanwhile: no timer, no result of the database, no other
listener. So what a turn has no time for waits in one queue, from which each connection gets one
request at a time.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

TURN_SECONDS: Final = 0.005
"""For how long requests are handled in one turn of the reactor."""

UNTIMED: Final = 16
"""Requests of a turn that are not timed: to know where a turn ends costs as much as a tenth of a
request."""


class Waiting(Protocol):
    """A connection with a request to be handled."""

    def take_turn(self) -> None:
        """Handle one request, and queue again if there is another one."""
        ...


class Turns:
    """The queue of connections, and how much time is left in this turn."""

    __slots__ = ("_call", "_clock", "_count", "_queue", "_until", "queued")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._queue: deque[Waiting] = deque()
        self._call: IDelayedCall | None = None
        self._count = 0
        self._until = 0.0
        self.queued = 0
        """How often a connection had to wait for a later turn."""

    def __len__(self) -> int:
        return len(self._queue)

    def admits(self) -> bool:
        """Whether a request may be handled now; counts it."""
        self._count += 1
        if self._count <= UNTIMED:
            return True
        if self._call is None:
            self._until = self._clock.seconds() + TURN_SECONDS
            self._call = self._clock.callLater(0, self._next_turn)
            return True
        return not self._queue and self._clock.seconds() < self._until

    def wait(self, connection: Waiting) -> None:
        """Have a connection take its turn later."""
        self.queued += 1
        self._queue.append(connection)
        if self._call is None:
            self._call = self._clock.callLater(0, self._next_turn)

    def stop(self) -> None:
        """No connection is left."""
        self._queue.clear()
        self._count = 0
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _next_turn(self) -> None:
        queue = self._queue
        self._call = None
        self._count = 0
        if not queue:
            return
        clock = self._clock
        self._count = UNTIMED
        self._until = clock.seconds() + TURN_SECONDS
        self._call = clock.callLater(0, self._next_turn)
        # Those that queue again wait for the next turn: others may have received something.
        for _ in range(len(queue)):
            if not queue:
                break
            queue.popleft().take_turn()
            if clock.seconds() >= self._until:
                break
