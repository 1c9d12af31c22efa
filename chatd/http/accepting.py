"""How connections are accepted: for some time in a turn, for addresses in turn, and without those
whose clients have gone already.

Twisted's ports accept 20 more each time that there were as many as expected, and so all that a
flood has left in the kernel's queue in one turn. That queue has an order, and in it are also
connections whose clients have gone meanwhile. To take a connection from it is cheap; what takes
time is to make its objects. So they are taken from it as far as there are descriptors, and those of
clients that have gone are closed at once, as are those of an address that has too many. The others
wait here, where addresses take turns and an IPv6 /48 network counts as one: a new client waits for
one connection of a flood, not for all. Those of a trusted proxy count as those of its clients, as
far as their first requests have come already.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chatd.http.admission import Admission
from chatd.http.connection_floods import ConnectionFloods
from chatd.http.eviction import MARGIN
from chatd.http.tcp_state import is_gone, peek
from chatd.http.turns import ClientOf
from chatd.runtime.networks import network
from chatd.runtime.round_robin import RoundRobin
from chatd.runtime.turn import turn_of

TAKE_SECONDS: Final = 0.004
"""For how long a port takes connections from the kernel's queue in one turn of the reactor: there,
those of a flood are in front of all others, up to thousands of them."""
ACCEPT_SECONDS: Final = 0.001
"""For how long it makes some, in what is left of that, or one."""
MAX_PASSED_OVER: Final = 16
"""How many are looked at for one whose client has not gone."""
PAUSE_SECONDS: Final = 0.05
"""After which those that wait are tried again while there is no room."""
MAX_HEAD: Final = 4096
"""How many bytes are looked at for the client of a proxy."""

Accepted = tuple[socket.socket, Any]
"""A connection and the address of its peer."""
_Waiting = tuple[socket.socket, Any, tuple[str, ...]]
"""The same, and how `Admission` counts it."""


class WaitingConnections:
    """The listening socket of a port, of which connections are accepted for addresses in turn.

    All ports of a server share its `admission`, and so the descriptors. `client_of` tells the
    clients of proxies.
    """

    def __init__(
        self,
        listening: Any,
        admission: Admission,
        clock: IReactorTime,
        client_of: ClientOf | None = None,
    ) -> None:
        self._listening = listening
        self._admission = admission
        self._client_of = client_of
        self._floods = ConnectionFloods(
            listening, clock, others=admission.count_others, dropped=admission.handshakes_dropped
        )
        # By address or network.
        self._waiting: RoundRobin[_Waiting] = RoundRobin()

    def __len__(self) -> int:
        return len(self._waiting)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listening, name)

    def take(self, has_time: Callable[[], bool]) -> None:
        """Take what the kernel has, one at least, as far as there are room and time."""
        admission = self._admission
        while admission.takes_more:
            try:
                connection, address = self._listening.accept()
            except OSError:  # there is none; anything else is told to who calls `accept`
                break
            place = network(address[0])
            if admission.is_limited(address[0]):
                self._floods.count(place)
            elif self._client_of is not None:
                place = network(self._client_of(address[0], peek(connection, MAX_HEAD)))
            counted = admission.wait(address[0], partial(self._make_room, place))
            if counted is None:
                connection.close()
            elif is_gone(connection):
                connection.close()
                admission.stop_waiting(counted)
            else:
                self._waiting.append(place, (connection, address, counted))
            if not has_time():
                self._floods.overflow()
                break

    def accept(self) -> Accepted:
        """See `socket.socket.accept`."""
        for _ in range(MAX_PASSED_OVER):
            connection, address = self._next()
            if not is_gone(connection):
                return connection, address
            connection.close()
        raise BlockingIOError(errno.EAGAIN, "enough for now")

    def _next(self) -> Accepted:
        """Whose turn it is of those that wait; if there are none, what the kernel has."""
        if not self._waiting:
            accepted: Accepted = self._listening.accept()
            return accepted
        connection, address, counted = self._waiting.popleft()
        self._admission.stop_waiting(counted)
        return connection, address

    def _make_room(self, place: str) -> bool:
        """Close the newest connection of the network of which most wait here, if it has more by
        `MARGIN` than another one."""
        if not self._waiting:
            return False
        most = self._waiting.owner_of_most()
        if self._waiting.count(most) <= self._waiting.count(place) + MARGIN:
            return False
        connection, _, counted = self._waiting.pop(most)
        connection.close()
        self._admission.give_up(counted)
        return True

    def close(self) -> None:
        """See `socket.socket.close`; those that wait are closed as well."""
        while self._waiting:
            connection, _ = self._next()
            connection.close()
        self._floods.stop()
        self._listening.close()


class Acceptor:
    """Has an open port of Twisted accept connections for `ACCEPT_SECONDS` a time, or one.

    While `admission` is full, those that wait go on waiting.
    """

    def __init__(
        self, port: Any, clock: IReactorTime, admission: Admission, client_of: ClientOf | None
    ) -> None:
        self._port = port
        self._clock = clock
        self._turn = turn_of(clock)
        self._admission = admission
        self._accept = port.doRead
        self._call: IDelayedCall | None = None
        waiting = WaitingConnections(port.socket, admission, clock, client_of)
        self._waiting = port.socket = waiting
        port.doRead = self.accept

    def accept(self) -> None:
        """The port is ready."""
        port = self._port
        seconds = self._clock.seconds
        began = seconds()
        until = self._turn.until(began, TAKE_SECONDS)
        self._waiting.take(lambda: seconds() < until)
        until = self._turn.until(began, ACCEPT_SECONDS)
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
        if self._admission.is_full:
            self._call = self._clock.callLater(PAUSE_SECONDS, self._accept_waiting)
        else:
            self.accept()


def accept_in_turn(
    port: Any, clock: IReactorTime, admission: Admission, client_of: ClientOf | None = None
) -> None:
    """Have an open port accept connections so, if it is one of TCP."""
    listening = getattr(port, "socket", None)
    if getattr(listening, "family", None) in (socket.AF_INET, socket.AF_INET6):
        Acceptor(port, clock, admission, client_of)
