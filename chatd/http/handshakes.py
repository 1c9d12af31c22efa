"""TLS handshakes, which take their turns like requests.

The server signs in each, which takes a millisecond with an RSA key. Thousands of connections that
begin to speak in the same moment would have nothing else happen for seconds.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.interfaces import IProtocol
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory

from chatd.http.turns import Turns


class TurnTakingTLS(BufferingTLSTransport):
    """A TLS connection whose handshake goes on when it has its turn."""

    def __init__(self, turns: Turns, factory: TLSMemoryBIOFactory, wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)
        self._turns = turns
        # What waits for a turn; None: nothing.
        self._early: bytes | None = None

    def dataReceived(self, data: bytes) -> None:
        """`IProtocol`: the client has sent `data`."""
        # An attribute of Twisted's class that is not public; tests/http/test_handshakes.py would
        # fail without it.
        if self._handshakeDone:
            self._receive(data)
        elif self._early is not None:
            self._early += data
        elif self._turns.admits():
            self._receive(data)
        else:
            self._early = data
            transport: Any = self.transport
            transport.pauseProducing()
            self._turns.wait(self, getattr(transport.getPeer(), "host", ""))

    def take_turn(self) -> None:
        """`chatd.http.turns.Waiting`; the connection may be closed meanwhile."""
        data, self._early = self._early, None
        transport: Any = self.transport
        if data is not None and self.connected and not self.disconnecting:
            self._receive(data)
            transport.resumeProducing()

    def _receive(self, data: bytes) -> None:
        super().dataReceived(data)  # type: ignore[no-untyped-call]


def is_tls(port: Any) -> bool:
    """Whether an open port is one of TLS."""
    return isinstance(getattr(port, "factory", None), TLSMemoryBIOFactory)


def take_turns(port: Any, turns: Turns) -> None:
    """Have the handshakes of an open port, if it is one of TLS, take turns."""
    if is_tls(port):
        port.factory.protocol = partial(TurnTakingTLS, turns)
