"""Networks that connect faster than connections can be taken from the kernel's queue.

That queue has an order: whoever fills it has the connections of all others wait behind its own. So
while many are left in it, the kernel drops the handshakes of networks of which many were taken from
it lately, which costs nothing here. Their clients try again after a second. While nobody else is
connected, a network may fill the queue as it likes.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chatd.http.packet_filter import MAX_NETWORKS, drop_nothing, drop_packets
from chatd.http.tcp_state import queued_connections

MAX_QUEUED: Final = 256
"""How many connections may be left in the queue: they are taken in some 20 ms."""
WINDOW_SECONDS: Final = 0.1
MOST_IN_WINDOW: Final = 64
"""How many connections of a network may be taken in a window while more than that are left."""
DROP_SECONDS: Final = 1.0
"""For how long the handshakes of a network that has more are dropped."""
STEP_SECONDS: Final = 0.1
"""At least so much time passes until the filter is changed because that time is over."""


class ConnectionFloods:
    """Counts the connections that are taken from one listening socket.

    `dropped` is called for each network whose handshakes are dropped for a while. `others` tells
    how many connections are open that are not of these networks.
    """

    def __init__(
        self,
        listening: socket.socket,
        clock: IReactorTime,
        *,
        others: Callable[[Iterable[str]], int],
        dropped: Callable[[], None],
    ) -> None:
        self._listening = listening
        self._clock = clock
        self._others = others
        self._dropped = dropped
        self._taken: Counter[str] = Counter()
        self._window_ends = 0.0
        # Until when the handshakes of networks are dropped, in order.
        self._until: dict[str, float] = {}
        self._call: IDelayedCall | None = None
        # A socket that systemd keeps may have the filter of a process that was killed.
        drop_nothing(listening)

    def count(self, network: str) -> None:
        """A connection of this IPv4 address or IPv6 /48 network was taken."""
        now = self._clock.seconds()
        if now >= self._window_ends:
            self._window_ends = now + WINDOW_SECONDS
            self._taken.clear()
        self._taken[network] += 1

    def overflow(self) -> None:
        """There was no time to take all connections that there may be."""
        now = self._clock.seconds()
        if now >= self._window_ends or queued_connections(self._listening) <= MAX_QUEUED:
            return
        flooding = [
            network
            for network, taken in self._taken.items()
            if taken > MOST_IN_WINDOW and network not in self._until
        ][: MAX_NETWORKS - len(self._until)]
        if not flooding or not self._others([*self._until, *flooding]):
            return
        self._until |= dict.fromkeys(flooding, now + DROP_SECONDS)
        self._apply()
        for _ in flooding:
            self._dropped()

    def stop(self) -> None:
        """The socket is closed here."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._until.clear()
        drop_nothing(self._listening)

    def _apply(self) -> None:
        """Have the kernel drop what is to be dropped; nothing if it cannot."""
        if not (self._until and drop_packets(self._listening, self._until)):
            self._until.clear()
            drop_nothing(self._listening)
        elif self._call is None:
            left = next(iter(self._until.values())) - self._clock.seconds()
            self._call = self._clock.callLater(max(STEP_SECONDS, left), self._expire)

    def _expire(self) -> None:
        self._call = None
        now = self._clock.seconds()
        self._until = {network: until for network, until in self._until.items() if until > now}
        self._apply()
