"""TLS connections, which take their turns like requests: for handshakes, and for many records.

The server signs in each handshake, which takes a millisecond with an RSA key. Thousands of
connections that begin to speak in the same moment would have nothing else happen for seconds.
Afterwards a record may have a single byte, and costs as much to decrypt as a large one: what is
received at once from a dozen connections may be hundreds of thousands of records.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from chatd.http.received import SMALL_BYTES, ReceivedBytes
from chatd.http.turns import Turns, host_of

PART_BYTES: Final = 4096
"""What is decrypted before others may have their turn: up to two hundred records, or less than one.
A client that sends a request sends less."""
PART_SECONDS: Final = 0.0005
"""How long that should take. If it takes longer, it is less the next time."""
MIN_PART_BYTES: Final = 64


class TurnTakingTLS(BufferingTLSTransport):
    """A TLS connection that goes on with its handshake when it has its turn, and with more than
    `PART_BYTES` that it has received, or less if they have taken long.

    Whoever uses it may pause it meanwhile. What waits, up to 64 KiB, is counted in `received`, and
    the connection is aborted if that is too much.
    """

    def __init__(
        self,
        turns: Turns,
        received: ReceivedBytes,
        factory: TLSMemoryBIOFactory,
        wrapped: IProtocol,
    ) -> None:
        super().__init__(factory, wrapped)
        self._turns = turns
        self._received = received
        # What waits for a turn; None: nothing.
        self._rest: bytes | None = None
        self._is_queued = False
        # How many bytes are decrypted at a time.
        self._part_bytes = PART_BYTES
        # Whether the protocol wants to receive nothing.
        self._is_paused = False

    def dataReceived(self, data: bytes) -> None:
        """`IProtocol`: the client has sent `data`."""
        if self._rest is not None:
            self._set_rest(self._rest + data)
        # An attribute of Twisted's class that is not public, like others here;
        # tests/http/test_handshakes.py would fail without them.
        elif self._handshakeDone or self._admits():
            self._receive(data)
        else:
            self._keep(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """`IProtocol`: the connection is closed."""
        self._set_rest(None)
        # What was received before is decrypted. Twisted would ask for more, and the error would
        # leave a cycle behind, of its traceback, with all that belongs to the connection.
        self._lostTLSConnection = True
        super().connectionLost(reason)
        # The channel, which knows this.
        self._producer = None

    def pauseProducing(self) -> None:
        """The protocol wants to receive nothing for now."""
        self._is_paused = True
        self._socket.pauseProducing()

    def resumeProducing(self) -> None:
        """The protocol wants to receive again."""
        self._is_paused = False
        if self._rest is None:
            self._socket.resumeProducing()
        else:
            self._queue()

    def take_turn(self) -> None:
        """`chatd.http.turns.Waiting`; the connection may be closed meanwhile."""
        self._is_queued = False
        data = self._rest
        if data is None or self._is_paused or self._aborted:
            return
        self._set_rest(None)
        self._receive(data)
        if self.connected and not (self._waits or self._is_paused):
            self._socket.resumeProducing()

    @property
    def _waits(self) -> bool:
        return self._rest is not None

    def _receive(self, data: bytes) -> None:
        """Decrypt a part of `data`, and the rest as long as there is time."""
        start = 0
        seconds = self._turns.seconds
        while True:
            size = self._part_bytes
            began = seconds()
            super().dataReceived(data[start : start + size])  # type: ignore[no-untyped-call]
            taken = seconds() - began
            if taken > PART_SECONDS:
                self._part_bytes = max(MIN_PART_BYTES, int(size * PART_SECONDS / taken))
            else:
                self._part_bytes = min(PART_BYTES, size * 2)
            start += size
            if start >= len(data) or not self.connected:
                return
            if self._is_paused or not self._admits():
                self._keep(data[start:])
                return

    def _keep(self, rest: bytes) -> None:
        if self._set_rest(rest) and not self._is_paused:
            self._socket.pauseProducing()
            self._queue()

    def _set_rest(self, rest: bytes | None) -> bool:
        """Have `rest` wait; returns whether there was room for it."""
        if self._rest is not None:
            self._received.release(self)
        self._rest = rest
        if rest is None or len(rest) <= SMALL_BYTES:
            return True
        counted: tuple[str, ...] = getattr(self.wrappedProtocol, "counted", ())
        if self._received.hold(self, counted, len(rest)):
            return True
        self._rest = None
        self.abortConnection()  # type: ignore[no-untyped-call]
        return False

    def _queue(self) -> None:
        if not self._is_queued:
            self._is_queued = True
            self._turns.wait(self, host_of(self._socket.getPeer()))

    def _admits(self) -> bool:
        return self._turns.admits() or self._turns.admits_first(host_of(self._socket.getPeer()))

    @property
    def _socket(self) -> Any:
        return self.transport


def is_tls(port: Any) -> bool:
    """Whether an open port is one of TLS."""
    return isinstance(getattr(port, "factory", None), TLSMemoryBIOFactory)


def take_turns(port: Any, turns: Turns, received: ReceivedBytes) -> None:
    """Have the connections of an open port, if it is one of TLS, take turns."""
    if is_tls(port):
        port.factory.protocol = partial(TurnTakingTLS, turns, received)
