"""How connections are accepted: for some time in a turn, and without those that are reset already.

Twisted's ports accept 20 more each time that there were as many as expected, and so all that a
flood has left in the kernel's queue in one turn. In that queue the kernel also keeps connections
that their clients have reset meanwhile. To close one of them at once takes a small part of the time
that its objects, its request and its end do, for which a new client behind it waits.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from chatd.runtime.turn import turn_of

ACCEPT_SECONDS: Final = 0.001
"""For how long a port accepts connections in one turn of the reactor."""
MAX_RESET: Final = 64
"""How many connections that are reset are closed before anything else."""


class LiveConnections:
    """A listening socket of which only connections are accepted that are not reset."""

    def __init__(self, listening: Any) -> None:
        self._listening = listening

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listening, name)

    def accept(self) -> tuple[socket.socket, Any]:
        """See `socket.socket.accept`; also raises `BlockingIOError` after `MAX_RESET`."""
        for _ in range(MAX_RESET):
            connection, address = self._listening.accept()
            if not _is_reset(connection):
                return connection, address
            connection.close()
        raise BlockingIOError(errno.EAGAIN, "enough for now")


def accept_in_turn(port: Any, clock: IReactorTime) -> None:
    """Have an open port of Twisted accept connections for `ACCEPT_SECONDS` each time, or one."""
    accept = getattr(port, "doRead", None)
    if accept is None:
        return
    if isinstance(getattr(port, "socket", None), socket.socket) and _is_tcp(port.socket):
        port.socket = LiveConnections(port.socket)
    turn = turn_of(clock)
    seconds = clock.seconds

    def accept_some() -> None:
        until = turn.until(seconds(), ACCEPT_SECONDS)
        while True:
            before = port.sessionno
            # Afterwards it is what Twisted expects next time.
            port.numberAccepts = 1
            accept()
            if port.sessionno == before or seconds() >= until:
                break

    port.doRead = accept_some


def _is_tcp(listening: socket.socket) -> bool:
    return listening.family in (socket.AF_INET, socket.AF_INET6)


def _is_reset(connection: socket.socket) -> bool:
    # Nothing is read: what came before the reset would still be there.
    try:
        connection.getpeername()
    except OSError:
        return True
    return False
