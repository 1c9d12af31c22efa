"""`MemoryConnection`: a connection to a server in this process, without sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.testing import StringTransport

Turn = Callable[[], None]
"""One unit of the work that is measured; raises AssertionError if its result is wrong."""


class _Transport(StringTransport):
    """A transport that, as a TCP transport, tells that everything was sent."""

    dataBuffer = b""
    offset = 0
    _tempDataLen = 0


class MemoryConnection:
    """A connection to a server made of a Twisted factory, which writes at once."""

    def __init__(self, factory: Any) -> None:
        self._protocol = factory.buildProtocol(None)
        self._transport: Any = _Transport()  # type: ignore[no-untyped-call]
        self._protocol.makeConnection(self._transport)

    def exchange(self, request: bytes) -> bytes:
        """What the server writes when it receives these bytes."""
        self._protocol.dataReceived(request)
        return self.taken()

    def taken(self) -> bytes:
        """What the server has written since the last call."""
        written: bytes = self._transport.value()
        self._transport.clear()
        return written
