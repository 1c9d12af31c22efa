"""Collecting the body of a request, of known length or in chunks (RFC 9112 section 7.1)."""

from __future__ import annotations

import re

from httptools import HttpParserError, HttpRequestParser

from chatd.http.errors import bad_request, body_too_large
from chatd.http.limits import HTTPLimits

_END = b"\r\n\r\n"
_SIZE = re.compile(rb"[0-9A-Fa-f]+")
_SIZE_LINE = 64
_MAX_CHUNKS = 500
"""Chunks that are decoded in one call. One may have a byte, and takes as long as a large one."""
# The request's own head has been parsed already. This one takes a new parser to the body.
_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class FixedLengthBody:
    """Collects a body of `length` bytes."""

    __slots__ = ("_length", "_missing", "_more", "_value")

    def __init__(self, length: int) -> None:
        self._length = self._missing = length
        # The first piece, which usually is all, and the others: a client may send a byte at a time,
        # and objects for so many pieces would take much more memory than is counted.
        self._value = b""
        self._more = bytearray()

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
        piece = data if len(data) <= missing else data[:missing]
        if self._missing == self._length:
            self._value = piece
        else:
            self._more += piece
        self._missing = missing - len(piece)
        return data[len(piece) :]

    def value(self) -> bytes:
        """What has been received."""
        return self._value + self._more if self._more else self._value


class ChunkSizes:
    """Adds up the sizes that the chunks of a valid body declare, before they have come, and finds
    the last chunk.

    llhttp, which is given the same bytes, passes on what is in the chunks but not what their sizes
    say.
    """

    __slots__ = ("_line", "_skip", "ended", "total")

    def __init__(self) -> None:
        self.total = 0
        """How large the body will be at least."""
        self.ended = False
        """Whether the size of the last chunk has come; trailers follow."""
        # What has come of the line with the next size.
        self._line = b""
        # Bytes of the chunk, and the CRLF after it, that have not come yet.
        self._skip = 0

    def feed(self, data: bytes, start: int) -> int:
        """Take more of the body, of `_MAX_CHUNKS` at most; returns where the rest begins."""
        chunks = 0
        while not self.ended and start < len(data) and chunks < _MAX_CHUNKS:
            if self._skip:
                passed = min(self._skip, len(data) - start)
                self._skip -= passed
                start += passed
                continue
            end = data.find(b"\n", start) + 1
            self._line = (self._line + data[start : end or len(data)])[:_SIZE_LINE]
            start = end or len(data)
            if end:
                chunks += 1
                digits = _SIZE.match(self._line)
                if digits is not None and digits.end() == _SIZE_LINE:
                    raise bad_request("Malformed body: a chunk size with too many digits.")
                size = int(digits[0], 16) if digits is not None else 0
                self.total += size
                self._skip = size + 2
                self._line = b""
                self.ended = not size
        return start


class ChunkedBody:
    """Decodes a body in chunks with llhttp; extensions and trailers are checked and dropped."""

    __slots__ = ("_body", "_limits", "_parser", "_received", "_sizes", "_tail", "complete")

    def __init__(self, limits: HTTPLimits) -> None:
        self._limits = limits
        self._body = bytearray()
        self._received = 0
        self._tail = b""
        self._sizes = ChunkSizes()
        self.complete = False
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)

    def feed(self, data: bytes) -> bytes:
        """Take the body's part of `data`; returns the rest.

        Until the body is `complete`, that is what there was no time for: it has to be passed again.
        Raises `HTTPError` for malformed chunks and for a body over the limit, as soon as the size
        of a chunk says that it will be.
        """
        sizes = self._sizes
        end = sizes.feed(data, 0)
        self._parse(data[:end])
        if self.complete and not sizes.ended:
            raise bad_request("Malformed body: it ends within a chunk.")
        if sizes.ended and end < len(data):
            # The body ends after the next CRLF CRLF. Nothing beyond that is passed on, since it may
            # belong to the next request.
            start, end = end, self._next_end(data, end)
            self._parse(data[start:end])
        return data[end:]

    def _parse(self, data: bytes) -> None:
        if not data:
            return
        self._tail = (self._tail + data)[-3:]
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            raise bad_request(f"Malformed body: {error}.") from None
        # The second limit is for chunks of a byte (six on the wire), extensions and trailers.
        limits = self._limits
        if max(len(self._body), self._sizes.total) > limits.body_bytes or (
            self._received > 6 * limits.body_bytes + limits.head_bytes
        ):
            raise body_too_large(limits)

    @property
    def size(self) -> int:
        """How much has been received, decoded."""
        return len(self._body)

    def value(self) -> bytes:
        """What has been received, decoded."""
        return bytes(self._body)

    def on_body(self, piece: bytes) -> None:
        """Called by llhttp with a piece of a chunk."""
        self._body += piece

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
