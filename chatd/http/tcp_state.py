"""What the kernel knows of TCP connections before they are accepted, or anything is read."""

from __future__ import annotations

import socket
import sys
from typing import Any, Final

from twisted.protocols.policies import ProtocolWrapper

_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)  # of Linux, tcp(7)
# linux/tcp.h
_ESTABLISHED: Final = 1
_CLOSE_WAIT: Final = 8
# Where `tcpi_unacked` is, a number of four bytes: of a listening socket, what may be accepted.
_QUEUED: Final = 24
# As a number: to combine flags takes longer than the system call.
_PEEK: Final = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)


def below_tls(transport: Any) -> Any:
    """The transport that has the socket: below TLS, if it is that, and other wrappers."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def has_ended(transport: Any) -> bool:
    """Whether the client of a transport, below TLS if it is that, has closed its side, perhaps
    after data that was not read yet. False if it is not TCP, or the kernel does not tell."""
    connection = getattr(below_tls(transport), "socket", None)
    return isinstance(connection, socket.socket) and _state(connection) == _CLOSE_WAIT


def is_gone(connection: Any) -> bool:
    """Whether the client of a socket has reset it, or closed its side and sent nothing before."""
    if _state(connection) == _ESTABLISHED:
        return False
    try:
        if not connection.recv(1, _PEEK):
            return True
        # What came before a reset can still be read.
        connection.getpeername()
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def peek(connection: socket.socket, most: int) -> bytes:
    """The first bytes that can be read from a socket, which they are not taken from."""
    try:
        return connection.recv(most, _PEEK)
    except OSError:
        return b""


def queued_connections(listening: socket.socket) -> int:
    """How many connections wait to be accepted; 0 if the kernel does not tell."""
    if _TCP_INFO is None:
        return 0
    try:
        information = listening.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _QUEUED + 4)
    except OSError:
        return 0
    return int.from_bytes(information[_QUEUED:], sys.byteorder)


def _state(connection: socket.socket) -> int | None:
    """The state of a socket; None if it is closed, or the kernel does not tell."""
    if _TCP_INFO is None:
        return None
    try:
        # It is the first byte of the information.
        return connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0]
    except OSError:
        return None
