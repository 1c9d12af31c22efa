"""Writing to a TCP socket without waiting for the reactor.

`transport.write` has the reactor watch the socket for one iteration, which costs two system calls a
response although the socket nearly always takes it at once. This is the only module that uses
private attributes of Twisted's transport; tests/http/test_eager_write.py checks what it relies on.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp

from chatd.http.tcp_state import below_tls


def can_write_eagerly(transport: object) -> bool:
    """Whether `transport` is Twisted's own TCP transport: neither TLS nor any other wrapper."""
    return type(transport) is tcp.Server and hasattr(transport, "_tempDataBuffer")


def write_eagerly(transport: Any, data: bytes) -> bool:
    """Send `data` at once as far as the socket accepts it, and the rest by `transport.write`.

    Returns whether nothing is left.
    Order is kept: if anything is still buffered, all of `data` is queued after it.
    """
    if (
        not transport.dataBuffer
        and not transport._tempDataBuffer
        and transport.connected
        and not transport.disconnecting
    ):
        try:
            sent = transport.socket.send(data)
        except OSError:
            # Full or broken: the transport will find out which, and report it.
            sent = 0
        if sent == len(data):
            return True
        data = data[sent:]
    transport.write(data)
    return False


def unsent_bytes(transport: Any) -> int:
    """How much `transport` still has to send, below TLS if it is that; 0 if unknown."""
    transport = below_tls(transport)
    try:
        unsent: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    except AttributeError:
        return 0
    return unsent
