"""Framing of a response body that is written in pieces (RFC 9112 section 6)."""

from __future__ import annotations

from typing import Final

LAST_CHUNK: Final = b"0\r\n\r\n"
"""What ends a body that is `ResponseBody.chunked`."""


class ResponseBody:
    """Frames the pieces of a body by Content-Length, as chunks, or by the end of the connection.

    `length` is the Content-Length, if there is one. A body that is `omitted`, as in the response to
    HEAD, is not sent at all.
    """

    __slots__ = ("_omitted", "chunked", "excess", "missing", "sent")

    def __init__(self, length: int | None, *, chunked: bool = False, omitted: bool = False) -> None:
        self.chunked = chunked
        self._omitted = omitted
        self.missing = length
        """Bytes that Content-Length promises and that were not written yet."""
        self.sent = 0
        """Bytes of the body that were sent, without chunk framing."""
        self.excess = False
        """Whether more was written than Content-Length allows. The excess is not sent."""

    def frame(self, data: bytes) -> bytes:
        """A piece of the body, as it is sent."""
        if self._omitted:
            return b""
        missing = self.missing
        if missing is not None:
            if len(data) > missing:
                self.excess = True
                data = data[:missing]
            self.missing = missing - len(data)
        self.sent += len(data)
        if self.chunked and data:
            return b"%x\r\n%b\r\n" % (len(data), data)
        return data
