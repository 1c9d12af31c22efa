"""How connections are accepted: for some time in a turn, for addresses in turn, and without those
that are reset already.

Twisted's ports accept 20 more each time that there were as many as expected, and so all that a
flood has left in the kernel's queue in one turn. That queue has an order, and in it are also
connections that their clients have reset meanwhile. To take a connection from it is cheap; what
takes time is to make its objects. So they are taken from it as far as there are descriptors, and
those that are reset are closed at once. The others wait here, where addresses take turns and an
IPv6 /48 network counts as one: a new client waits for one connection of a flood, not for all.
"""

from __future__ import annotations

import errno
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chatd.runtime.networks import networks
from chatd.runtime.turn import turn_of

ACCEPT_SECONDS: Final = 0.001
"""For how long a port makes connections in one turn of the reactor."""
MAX_TAKEN: Final = 128
"""How many are taken from the kernel's queue at once."""
MAX_WAITING: Final = 1024
"""How many may wait here."""
PAUSE_SECONDS: Final = 0.05
"""After which those that wait are tried again while there is no room."""

Accepted = tuple[socket.socket, Any]
"""A connection and the address of its peer."""


class WaitingConnections:
    """The listening socket of a port, of which connections are accepted for addresses in turn.

    `room` is how many connections may be open besides those that are.
    """

    def __init__(self, listening: Any, room: Callable[[], int]) -> None:
        self._listening = listening
        self._room = room
        # By address or network, in the order in which they are accepted next.
        self._queues: OrderedDict[str, deque[Accepted]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listening, name)

    def take(self) -> None:
        """Take what the kernel has, as far as there is room."""
        room = min(MAX_WAITING, self._room())
        for _ in range(MAX_TAKEN):
            if self._length >= room:
                break
            try:
                connection, address = self._listening.accept()
            except OSError:  # there is none; anything else is told to who calls `accept`
                break
            if _is_reset(connection):
                connection.close()
            else:
                network = networks(address[0])[-1]
                self._queues.setdefault(network, deque()).append((connection, address))
                self._length += 1

    def accept(self) -> Accepted:
        """See `socket.socket.accept`."""
        while self._length:
            network, queue = next(iter(self._queues.items()))
            connection, address = queue.popleft()
            self._length -= 1
            if queue:
                self._queues.move_to_end(network)
            else:
                del self._queues[network]
            if not _is_reset(connection):
                return connection, address
            connection.close()
        for _ in range(MAX_TAKEN):
            connection, address = self._listening.accept()
            if not _is_reset(connection):
                return connection, address
            connection.close()
        raise BlockingIOError(errno.EAGAIN, "enough for now")

    def close(self) -> None:
        """See `socket.socket.close`; those that wait are closed as well."""
        for queue in self._queues.values():
            for connection, _ in queue:
                connection.close()
        self._queues.clear()
        self._length = 0
        self._listening.close()


class Acceptor:
    """Has an open port of Twisted accept connections for `ACCEPT_SECONDS` a time, or one.

    `room` is how many connections may be open besides those that are; while it is negative, those
    that wait go on waiting.
    """

    def __init__(self, port: Any, clock: IReactorTime, room: Callable[[], int]) -> None:
        self._port = port
        self._clock = clock
        self._turn = turn_of(clock)
        self._room = room
        self._accept = port.doRead
        self._call: IDelayedCall | None = None
        self._waiting = port.socket = WaitingConnections(port.socket, room)
        port.doRead = self.accept

    def accept(self) -> None:
        """The port is ready."""
        port = self._port
        seconds = self._clock.seconds
        until = self._turn.until(seconds(), ACCEPT_SECONDS)
        self._waiting.take()
        while True:
            before = port.sessionno
            # Afterwards it is what Twisted expects next time.
            port.numberAccepts = 1
            self._accept()
            if port.sessionno == before or seconds() >= until:
                break
        # The kernel does not know of those that wait here.
        if self._waiting and self._call is None:
            self._call = self._clock.callLater(0, self._accept_waiting)

    def _accept_waiting(self) -> None:
        self._call = None
        if not self._waiting:  # or the port is closed
            return
        if self._room() < 0:
            self._call = self._clock.callLater(PAUSE_SECONDS, self._accept_waiting)
        else:
            self.accept()


def accept_in_turn(port: Any, clock: IReactorTime, room: Callable[[], int]) -> None:
    """Have an open port accept connections so, if it is one of TCP."""
    listening = getattr(port, "socket", None)
    if getattr(listening, "family", None) in (socket.AF_INET, socket.AF_INET6):
        Acceptor(port, clock, room)


def _is_reset(connection: socket.socket) -> bool:
    # Nothing is read: what came before the reset would still be there.
    try:
        connection.getpeername()
    except OSError:
        return True
    return False
