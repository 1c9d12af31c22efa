"""Which connections are served in a turn of the reactor.

All sockets that have data are read in one turn. If that makes for more work than a few
milliseconds, nothing else happens meanwhile: no timer, no result of the database, no other
listener. So what a turn has no time for waits in one queue, from which each connection gets one
request at a time, and addresses take turns, where an IPv6 /48 network counts as one: hundreds of
connections of one address, each asking for something large, are in the way of another address for
one request. An address of which nothing waits may have one request handled at once in each turn, as
what it asks for takes a turn more for each time that it waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from chatd.runtime.networks import network
from chatd.runtime.round_robin import RoundRobin
from chatd.runtime.turn import turn_of

TURN_SECONDS: Final = 0.002
"""For how long requests are handled before others have their turn; twice that at most, because
nobody tells when a turn of the reactor begins."""
FIRST_SECONDS: Final = 0.01
"""For how long after that addresses of which nothing waits are still admitted."""


def host_of(peer: IAddress | None) -> str:
    """The address of a client as text; empty if it has none."""
    host: str = getattr(peer, "host", "")
    return host


ClientOf = Callable[[str, bytes], str]
"""Returns the address whose turns a request takes; called with that of the peer, which may be a
proxy, and as much of the head as was received."""


class Waiting(Protocol):
    """A connection with a request, or a TLS handshake, to be handled."""

    def take_turn(self) -> None:
        """Handle one request, and queue again if there is another one."""
        ...


class Turns:
    """The queue of connections, and how much time is left in this turn."""

    __slots__ = ("_call", "_clock", "_first", "_turn", "_until", "_waiting", "queued", "seconds")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.seconds = clock.seconds
        """The clock by which turns are measured."""
        # By address or network.
        self._waiting: RoundRobin[Waiting] = RoundRobin()
        self._turn = turn_of(clock)
        self._call: IDelayedCall | None = None
        self._until = 0.0
        # The networks of which a request was handled in this turn though others waited.
        self._first: set[str] = set()
        self.queued = 0
        """How often a connection had to wait for a later turn."""

    def __len__(self) -> int:
        return self._waiting.length

    def admits(self) -> bool:
        """Whether any request may be handled now."""
        now = self._clock.seconds()
        if self._call is not None:
            return not self._waiting.length and now < self._until
        if now >= self._until:
            # This may be a later turn than that in which the time began, or still the same: only a
            # call tells, and one in each turn would cost as much as a tenth of a request.
            self._until = self._turn.until(now, TURN_SECONDS)
            self._call = self._clock.callLater(0, self._next_turn)
        return True

    def admits_first(self, address: str) -> bool:
        """Whether a request from this address may be handled before others that wait: nothing of
        the address waits, and it has had no such request in this turn."""
        if not self._waiting or self._clock.seconds() >= self._until + FIRST_SECONDS:
            return False
        place = network(address)
        if self._waiting.count(place) or place in self._first:
            return False
        self._first.add(place)
        return True

    def wait(self, connection: Waiting, address: str) -> None:
        """Have a connection from this address take its turn later."""
        self.queued += 1
        self._waiting.append(network(address), connection)
        if self._call is None:
            self._call = self._clock.callLater(0, self._next_turn)

    def stop(self) -> None:
        """No connection is left."""
        self._waiting.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _next_turn(self) -> None:
        self._call = None
        self._first.clear()
        if not self._waiting:
            return
        clock = self._clock
        self._until = self._turn.until(clock.seconds(), TURN_SECONDS)
        self._call = clock.callLater(0, self._next_turn)
        # Those that queue again wait for the next turn: others may have received something.
        for _ in range(len(self._waiting)):
            if not self._waiting:
                break
            self._waiting.popleft().take_turn()
            if clock.seconds() >= self._until:
                break
