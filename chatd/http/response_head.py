"""Pieces of an answer's head: status lines, the Date of this second, blocks of headers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache
from http import HTTPStatus

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers

SERVER = b"chatd"


def header_block(*fields: tuple[bytes, bytes]) -> bytes:
    """Header lines for `Request.answer`, rendered once and used many times.

    Names are made canonical. Raises ValueError for a name that is no token and for a value with
    CR, LF or NUL: nothing in a block can start another header (RFC 9110 section 5.5).
    """
    lines = []
    for name, value in fields:
        if any(octet in value for octet in (b"\r", b"\n", b"\0")):
            raise ValueError(f"{name!r}: {value!r} is no header value")
        lines.append(b"%b: %b\r\n" % (canonical(name), value))
    return b"".join(lines)


@cache
def status_line(version: bytes, status: int) -> bytes:
    """The first line of an answer. Versions and statuses are few, so all are kept."""
    # Not twisted.web's phrases: they end before RFC 6585.
    try:
        phrase = HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        phrase = b"Unknown Status"
    return b"%b %d %b\r\n" % (version, status, phrase)


_canonical: dict[bytes | str, bytes] = {}


def canonical(name: bytes | str) -> bytes:
    """The name of a header as twisted.web writes it; ValueError if it is no token."""
    known = _canonical.get(name)
    if known is not None:
        return known
    headers = Headers()
    headers.setRawHeaders(name, ())
    [(result, _)] = headers.getAllRawHeaders()
    # Names come from code; the bound is for code that makes them up.
    if len(_canonical) < 1000:
        _canonical[name] = result
    return result


def one_line(value: bytes) -> bytes:
    """`value` without line breaks, as `Headers` would have it."""
    if b"\n" in value or b"\r" in value:
        return b" ".join(value.splitlines())
    return value


def render(fields: Iterable[tuple[bytes, Iterable[bytes]]]) -> bytes:
    """Header lines of clean names and values."""
    return b"".join([b"%b: %b\r\n" % (name, value) for name, values in fields for value in values])


class StandardHeaders:
    """The headers that every answer carries, made at most once a second."""

    __slots__ = ("_clock", "_made", "_now", "block", "date")

    def __init__(self, clock: IReactorTime, now: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._now = now
        self._made = float("-inf")
        self.date = b""
        self.block = b""

    def refresh(self) -> bytes:
        """`block` (Server and Date lines), made again if `clock` says that a second went by."""
        now = self._clock.seconds()
        # A clock that was set back is no reason to keep the old date.
        if not self._made <= now < self._made + 1.0:
            self._made = now // 1
            self.date = datetimeToString(self._now())
            self.block = b"Server: %b\r\nDate: %b\r\n" % (SERVER, self.date)
        return self.block
