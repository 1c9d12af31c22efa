"""Parts of a response's head: status lines, blocks of header lines, and the standard headers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache
from http import HTTPStatus
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers

SERVER: Final = b"chatd"
NOSNIFF: Final = (b"X-Content-Type-Options", b"nosniff")
HSTS: Final = (b"Strict-Transport-Security", b"max-age=31536000")

# Where Python 3.11 has phrases older than RFC 9110, or different ones.
_REASON_PHRASES: Final = {
    413: b"Content Too Large",
    414: b"URI Too Long",
    416: b"Range Not Satisfiable",
    418: b"I'm a teapot",
    422: b"Unprocessable Content",
}


def header_block(*fields: tuple[bytes, bytes]) -> bytes:
    """Header lines for `Request.respond`, to be rendered once and used many times.

    Names are made canonical. Raises ValueError for a name that is not a token and for a value with
    CR, LF or NUL, so nothing in a block can start another header (RFC 9110 section 5.5).
    """
    lines = []
    for name, value in fields:
        if any(octet in value for octet in (b"\r", b"\n", b"\0")):
            raise ValueError(f"{name!r}: {value!r} is no header value")
        lines.append(b"%b: %b\r\n" % (canonical(name), value))
    return b"".join(lines)


@cache
def reason_phrase(status: int) -> bytes:
    """The registered reason phrase of `status`.

    Not from twisted.web's table, which lacks the statuses of RFC 6585, such as 429.
    """
    if status in _REASON_PHRASES:
        return _REASON_PHRASES[status]
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Unknown Status"


@cache
def status_line(version: bytes, status: int) -> bytes:
    """The first line of a response. All are cached, since versions and statuses are few."""
    return b"%b %d %b\r\n" % (version, status, reason_phrase(status))


def whole_response(start: bytes, headers: bytes, body: bytes) -> bytes:
    """A response with a body, whose length is added: `start` is the status line and the first
    header lines."""
    return b"%b%bContent-Length: %d\r\n\r\n%b" % (start, headers, len(body), body)


_canonical: dict[bytes | str, bytes] = {}


def canonical(name: bytes | str) -> bytes:
    """The name of a header as twisted.web writes it. Raises ValueError if it is not a token."""
    known = _canonical.get(name)
    if known is not None:
        return known
    headers = Headers()
    headers.setRawHeaders(name, ())
    [(result, _)] = headers.getAllRawHeaders()
    # Names come from code; the limit is for code that generates them.
    if len(_canonical) < 1000:
        _canonical[name] = result
    return result


def one_line(value: bytes) -> bytes:
    """`value` with line breaks replaced by spaces, as in `Headers`."""
    if b"\n" in value or b"\r" in value:
        return b" ".join(value.splitlines())
    return value


def render(fields: Iterable[tuple[bytes, Iterable[bytes]]]) -> bytes:
    """Header lines of names and values that are known to be valid."""
    return b"".join([b"%b: %b\r\n" % (name, value) for name, values in fields for value in values])


class StandardHeaders:
    """The headers of every response, Server, Date and those that browsers need to be safe, rendered
    at most once a second.

    `secure`: the responses are sent over TLS, and browsers are told to use nothing else from now on
    (RFC 6797), which they ignore where they do not trust the certificate.
    """

    __slots__ = ("_block", "_clock", "_date", "_fixed", "_now", "_rendered")

    def __init__(
        self, clock: IReactorTime, now: Callable[[], float] = time.time, *, secure: bool = False
    ) -> None:
        self._clock = clock
        self._now = now
        self._fixed = [NOSNIFF, *([HSTS] if secure else [])]
        self._rendered = float("-inf")
        self._date = b""
        self._block = b""

    def block(self) -> bytes:
        """The header lines, rendered again when a second of wall time ends, by `clock`."""
        now = self._clock.seconds()
        if now >= self._rendered + 1.0:
            wall_time = self._now()
            self._rendered = now - wall_time % 1
            self._date = datetimeToString(wall_time)
            fixed = header_block(*self._fixed)
            self._block = b"Server: %b\r\nDate: %b\r\n%b" % (SERVER, self._date, fixed)
        return self._block

    def fields(self) -> list[tuple[bytes, bytes]]:
        """The same as names and values."""
        self.block()
        return [(b"Server", SERVER), (b"Date", self._date), *self._fixed]
