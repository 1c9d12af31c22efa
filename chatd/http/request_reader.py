"""Incremental parser of the requests on one connection. It does no I/O."""

from __future__ import annotations

import re

from httptools import HttpRequestParser

from chatd.http.errors import HTTPError, bad_request, head_too_large
from chatd.http.head import (
    CHUNKED,
    Head,
    check_target_length,
    feed_parser,
    new_parser,
    parse_head,
    repeated_head,
)
from chatd.http.limits import HTTPLimits
from chatd.http.received import SMALL_BYTES
from chatd.http.request_body import ChunkedBody, FixedLengthBody
from chatd.http.request_headers import HeaderBlock

_END = b"\r\n\r\n"
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")


class RequestReader:
    """Splits the bytes received on a connection into the heads and bodies of requests.

    `read_head` returns the next head; if it has a body, `read_body` must return that before the
    next head is read. Both return None until more data has been fed, and raise `HTTPError`.
    """

    __slots__ = ("_body", "_limits", "_parser", "_previous", "buffer", "head", "parsed")

    def __init__(self, limits: HTTPLimits) -> None:
        self._limits = limits
        self.buffer = b""
        """What has been received and is not yet part of a complete head, or of a body."""
        self.parsed = 0
        """How much of an incomplete head at the start of `buffer` has been parsed."""
        self.head: Head | None = None
        """The head whose body is to be read."""
        self._parser: HttpRequestParser | None = None
        # Header lines of the previous request, reused if the next one repeats them. Large ones are
        # not kept: an idle connection has them, and nobody counts them.
        self._previous: HeaderBlock | None = None
        self._body: FixedLengthBody | ChunkedBody | None = None

    def has_backlog(self, limits: HTTPLimits) -> bool:
        """Whether as much has been received as may wait behind the request being answered."""
        buffer = self.buffer
        return len(buffer) > limits.pipelined_bytes or buffer.count(_END) > limits.pipelined

    @property
    def size(self) -> int:
        """How many bytes of requests that were not returned yet are kept."""
        return len(self.buffer) + (0 if self._body is None else self._body.size)

    def feed(self, data: bytes) -> None:
        """Append received data to the buffer."""
        self.buffer = self.buffer + data if self.buffer else data

    def read_head(self) -> Head | None:
        """Take the head of the next request from the buffer."""
        data = self.buffer
        if data[0] == 13 or data[0] == 10:
            data = self._skip_empty_lines()
            if not data:
                return None
        limits = self._limits
        size = data.find(_END) + 4
        if size < 4 or size > limits.head_bytes:
            self._check_part(data)
            return None
        if size == len(data):
            raw = data
            self.buffer = b""
        else:
            raw = data[:size]
            self.buffer = data[size:]
        previous = self._previous
        if previous is not None and self._parser is None:
            head = repeated_head(raw, limits, previous)
            if head is not None:
                self._previous = head.headers
                if head.length != 0:
                    self.head = head
                return head
        try:
            if self._parser is None:
                upgrade = feed_parser(new_parser(), raw)
            else:
                upgrade = feed_parser(self._parser, raw[self.parsed :])
                self._parser = None
                self.parsed = 0
            head = parse_head(raw, limits, upgrade, previous)
        except HTTPError:
            self.buffer = raw
            raise
        self._previous = head.headers if size <= SMALL_BYTES else None
        if head.length != 0:
            self.head = head
        return head

    def read_body(self) -> bytes | None:
        """Take the body of the request whose head was returned last.

        If it returns None and leaves something in `buffer`, it is to be called again for that.
        """
        data = self.buffer
        body = self._body
        if body is None:
            assert self.head is not None
            length = self.head.length
            if 0 < length <= len(data):
                self.buffer = data[length:]
                self.head = None
                return data[:length]
            body = ChunkedBody(self._limits) if length == CHUNKED else FixedLengthBody(length)
            self._body = body
        self.buffer = body.feed(data)
        if not body.complete:
            return None
        self.head = self._body = None
        return body.value()

    def rejected(self) -> tuple[bool, bytes]:
        """Of a request that cannot be read: whether its method is HEAD, and its header lines."""
        if self.head is None:
            return self.buffer.startswith(b"HEAD "), self.buffer
        return self.head.method == b"HEAD", self.head.headers.block

    def clear(self) -> None:
        """Discard everything received."""
        self.buffer = b""
        self.parsed = 0
        self.head = self._body = self._parser = self._previous = None

    def _skip_empty_lines(self) -> bytes:
        # RFC 9112 section 2.2: some clients send one after a body.
        match = _EMPTY_LINES.match(self.buffer)
        if match is not None:
            self.buffer = self.buffer[match.end() :]
        if self.buffer in (b"", b"\r"):
            return b""
        if self.buffer[0] == 13 or self.buffer[0] == 10:
            raise bad_request("A bare CR or LF before the request line.")
        return self.buffer

    def _check_part(self, data: bytes) -> None:
        """Check a head that is incomplete or too large, as far as the limit allows."""
        limits = self._limits
        if self._parser is None:
            self._parser = new_parser()
        part = data[: limits.head_bytes]
        feed_parser(self._parser, part[self.parsed :])
        self.parsed = len(part)
        if len(data) > limits.head_bytes:
            check_target_length(part, limits)
            raise head_too_large(limits)
