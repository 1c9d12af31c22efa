"""`LineReader`: the lines of an endless response, received no faster than they are read."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from chatd.client.errors import Unreachable
from chatd.client.exchange import MAX_RESPONSE_BYTES, describe

BUFFER_BYTES: Final = 65_536
"""While this much waits to be read, nothing more is received from the network."""


class LineReader(Protocol):
    """Receives a response body and gives it out line by line.

    A body that is silent for `silence` seconds while somebody waits for a line has ended: the
    network lost the connection without a word. One that nobody reads for as long is closed, and
    so takes nothing from the service.
    """

    def __init__(self, clock: IReactorTime, silence: float) -> None:
        self.disconnected: Deferred[None] = Deferred()
        """Fires when the connection is no longer used."""
        self._buffer = bytearray()
        # Where the first line in the buffer ends, -1 if it is incomplete.
        self._line_end = -1
        self._paused = False
        self._closed = False
        self._end: Unreachable | None = None
        self._waiting: Deferred[None] | None = None
        self._silence = silence
        self._timer = clock.callLater(silence, self._on_silence)

    @property
    def is_waiting(self) -> bool:
        """Whether somebody waits for a line."""
        return self._waiting is not None

    @property
    def exhausted(self) -> bool:
        """Whether it was closed by this side, and everything received before has been read."""
        return self._closed and self._line_end < 0

    async def read(self) -> bytes:
        """The next line, without its line feed.

        Raises `Unreachable` after the last complete line. Cancelling it closes the connection.
        """
        await self.wait()
        line = bytes(self._buffer[: self._line_end])
        del self._buffer[: self._line_end + 1]
        self._line_end = self._buffer.find(b"\n")
        if self._paused and self._line_end < 0:
            self._paused = False
            self._transport.resumeProducing()
        return line

    async def wait(self) -> None:
        """Wait until `read` has a line; raises like `read`."""
        self._restart_timer()
        while self._line_end < 0:
            if self._end is not None:
                raise self._end
            self._waiting = Deferred(self._on_cancel)
            await self._waiting

    def close(self) -> None:
        """Close the connection. What was received before can still be read."""
        if self._end is None:
            self._closed = True
            self._end_with(Unreachable("the stream was closed"))

    def dataReceived(self, data: bytes) -> None:
        if self._end is not None:
            return
        searched = len(self._buffer)
        self._buffer += data
        if self._waiting is not None:
            self._restart_timer()
        if self._line_end < 0:
            self._line_end = self._buffer.find(b"\n", searched)
        if self._line_end >= 0:
            self._wake()
        # The reader may have taken lines, or closed the connection, meanwhile.
        if self._line_end < 0 and len(self._buffer) > MAX_RESPONSE_BYTES:
            self._end_with(Unreachable("a line of the stream is too long"))
        elif self._line_end >= 0 and len(self._buffer) >= BUFFER_BYTES and self._end is None:
            self._paused = True
            self._transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        cause = reason.value
        if cause is None or isinstance(cause, ResponseDone | PotentialDataLoss):
            text = "the stream ended"
        else:
            text = describe(cause)
        self._end_with(Unreachable(text), connected=False)
        self.disconnected.callback(None)

    @property
    def _transport(self) -> Any:
        return self.transport

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _restart_timer(self) -> None:
        if self._timer.active():
            self._timer.reset(self._silence)

    def _on_silence(self) -> None:
        if self._waiting is None:
            self.close()
        else:
            self._end_with(Unreachable(f"nothing was received in {self._silence:g} s"))

    def _on_cancel(self, _: object) -> None:
        self._waiting = None
        self.close()

    def _end_with(self, reason: Unreachable, *, connected: bool = True) -> None:
        if self._end is not None:
            return
        self._end = reason
        if self._timer.active():
            self._timer.cancel()
        if connected:
            # A paused connection would not notice that the other side has closed it, too.
            self._transport.resumeProducing()
            self._transport.loseConnection()
        self._wake()
