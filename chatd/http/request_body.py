"""Collecting the body of a request, of known length or in chunks (RFC 9112 section 7.1)."""

from __future__ import annotations

import re

from httptools import HttpParserError, HttpRequestParser

from chatd.http.errors import bad_request, body_too_large
from chatd.http.limits import HTTPLimits

_END = b"\r\n\r\n"
_SIZE = re.compile(rb"[0-9A-Fa-f]+")
_SIZE_LINE = 64
# The request's own head has been parsed already. This one takes a new parser to the body.
_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class FixedLengthBody:
    """Collects a body of `length` bytes."""

    __slots__ = ("_length", "_missing", "_pieces")

    def __init__(self, length: int) -> None:
        self._length = self._missing = length
        self._pieces: list[bytes] = []

    @property
    def complete(self) -> bool:
        """Whether all of the body has been received."""
        return not self._missing

    @property
    def size(self) -> int:
        """How much has been received."""
        return self._length - self._missing

    def feed(self, data: bytes) -> bytes:
        """Take the body's part of `data`; returns the rest."""
        missing = self._missing
        if len(data) <= missing:
            self._pieces.append(data)
            self._missing = missing - len(data)
            return b""
        self._pieces.append(data[:missing])
        self._missing = 0
        return data[missing:]

    def value(self) -> bytes:
        """What has been received."""
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class ChunkSizes:
    """Adds up the sizes that the chunks of a valid body declare, before they have come.

    llhttp, which has accepted the bytes, passes on what is in the chunks but not what their sizes
    say.
    """

    __slots__ = ("_line", "_skip", "_total")

    def __init__(self) -> None:
        self._total = 0
        # What has come of the line with the next size; None after the last chunk.
        self._line: bytes | None = b""
        # Bytes of the chunk, and the CRLF after it, that have not come yet.
        self._skip = 0

    def feed(self, data: bytes) -> int:
        """Take more of the body; returns how large it will be at least."""
        start = 0
        while self._line is not None and start < len(data):
            if self._skip:
                passed = min(self._skip, len(data) - start)
                self._skip -= passed
                start += passed
                continue
            end = data.find(b"\n", start) + 1
            # A size so long has zeros before it, and counts when its chunk comes.
            self._line = (self._line + data[start : end or len(data)])[:_SIZE_LINE]
            start = end or len(data)
            if end:
                digits = _SIZE.match(self._line)
                size = int(digits[0], 16) if digits is not None else 0
                self._total += size
                self._skip = size + 2
                self._line = b"" if size else None
        return self._total


class ChunkedBody:
    """Decodes a body in chunks with llhttp; extensions and trailers are checked and dropped."""

    __slots__ = (
        "_limits",
        "_parser",
        "_pieces",
        "_received",
        "_size",
        "_sizes",
        "_tail",
        "complete",
    )

    def __init__(self, limits: HTTPLimits) -> None:
        self._limits = limits
        self._pieces: list[bytes] = []
        self._size = 0
        self._received = 0
        self._tail = b""
        self._sizes = ChunkSizes()
        self.complete = False
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)

    def feed(self, data: bytes) -> bytes:
        """Take the body's part of `data`; returns the rest, empty until the body is `complete`.

        Raises `HTTPError` for malformed chunks and for a body over the limit, as soon as the size
        of a chunk says that it will be.
        """
        view = memoryview(data)
        start = 0
        while start < len(data):
            # A body can end only right after CRLF CRLF. Nothing beyond the next one is passed on,
            # since it may belong to the next request.
            end = self._next_end(data, start)
            self._tail = (self._tail + data[start:end])[-3:]
            self._received += end - start
            try:
                self._parser.feed_data(view[start:end])
            except HttpParserError as error:
                raise bad_request(f"Malformed body: {error}.") from None
            # The second limit is for chunks of a byte (six on the wire), extensions and trailers.
            limits = self._limits
            size = max(self._size, self._sizes.feed(data[start:end]))
            if size > limits.body_bytes or (
                self._received > 6 * limits.body_bytes + limits.head_bytes
            ):
                raise body_too_large(limits)
            if self.complete:
                return data[end:]
            start = end
        return b""

    @property
    def size(self) -> int:
        """How much has been received, decoded."""
        return self._size

    def value(self) -> bytes:
        """What has been received, decoded."""
        return b"".join(self._pieces)

    def on_body(self, piece: bytes) -> None:
        """Called by llhttp with a piece of a chunk."""
        self._size += len(piece)
        if self._size <= self._limits.body_bytes:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """Called by llhttp at the end of the trailers."""
        self.complete = True

    def _next_end(self, data: bytes, start: int) -> int:
        """The index after the next CRLF CRLF, which may have begun in the data before."""
        across = (self._tail + data[start : start + 3]).find(_END)
        if across >= 0:
            return start + across + 4 - len(self._tail)
        found = data.find(_END, start)
        return len(data) if found < 0 else found + 4
