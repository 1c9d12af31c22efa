"""A request body in chunks (RFC 9112 section 7.1), decoded by llhttp."""

from __future__ import annotations

from httptools import HttpParserError, HttpRequestParser

from chatd.http.head import HTTPError, body_too_large
from chatd.http.limits import HTTPLimits

_END = b"\r\n\r\n"
# The request's own head has been read. This one brings a parser to where its body starts.
_PRIMER = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class ChunkedBody:
    """Collects the chunks of one body; extensions and trailers are checked and dropped."""

    __slots__ = ("_limits", "_parser", "_pieces", "_received", "_size", "_tail", "complete")

    def __init__(self, limits: HTTPLimits) -> None:
        self._limits = limits
        self._pieces: list[bytes] = []
        self._size = 0
        self._received = 0
        self._tail = b""
        self.complete = False
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(_PRIMER)

    def feed(self, data: bytes) -> bytes:
        """Take `data`; returns what lies behind the body's end, empty until it is `complete`.

        Raises `HTTPError` for malformed chunks and for a body over the limit.
        """
        view = memoryview(data)
        start = 0
        while start < len(data):
            # A body can end only right after CRLF CRLF, so nothing beyond the next one is fed:
            # what follows may be the next request's.
            end = self._next_end(data, start)
            self._tail = (self._tail + data[start:end])[-3:]
            self._received += end - start
            try:
                self._parser.feed_data(view[start:end])
            except HttpParserError as error:
                raise HTTPError(400, "bad_request", f"Malformed body: {error}.") from None
            # The second bound is for chunks of a byte (six on the wire), extensions and trailers.
            limits = self._limits
            if self._size > limits.body_bytes or (
                self._received > 6 * limits.body_bytes + limits.head_bytes
            ):
                raise body_too_large(limits)
            if self.complete:
                return data[end:]
            start = end
        return b""

    def body(self) -> bytes:
        """What has been collected."""
        return b"".join(self._pieces)

    def on_body(self, piece: bytes) -> None:
        """llhttp's callback."""
        self._size += len(piece)
        if self._size <= self._limits.body_bytes:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """llhttp's callback."""
        self.complete = True

    def _next_end(self, data: bytes, start: int) -> int:
        across = (self._tail + data[start : start + 3]).find(_END)
        if across >= 0:
            return start + across + 4 - len(self._tail)
        found = data.find(_END, start)
        return len(data) if found < 0 else found + 4
