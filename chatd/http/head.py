"""The head of a request: what llhttp lets through, held to the rest of RFC 9112.

llhttp (strict, no leniency) refuses bad tokens, bare CR or LF, obs-fold, NUL, whitespace before a
colon, a repeated or malformed Content-Length, and Content-Length beside Transfer-Encoding. What it
leaves to its caller is here: versions, the form of the target, Host, and the framing of the body.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from chatd.http.limits import Limits

CHUNKED = -1
"""The length of a body that comes in chunks."""

VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")

# One pass finds every header that frames the message or the connection. It is safe on a head that
# llhttp accepted: names start right after CRLF, end at the colon, and no value is folded.
_FRAMING = re.compile(
    rb"\r\n(host|connection|content-length|expect|transfer-encoding):[ \t]*([^\r]*)"
)

# RFC 3986 section 3.2.2 with an optional port, lower-cased. An empty host is no http URI
# (RFC 9110 section 4.2.1), although the grammar of the field would allow it.
_AUTHORITY = re.compile(rb"(?:[a-z0-9._~!$&'()*+,;=%-]+|\[[0-9a-f:.]+\])(?::[0-9]{0,5})?")

# Hosts that were found good; a server has few names.
_hosts: set[bytes] = set()

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)

_HOST_LINE = re.compile(rb"\r\nhost:[^\r]*", re.IGNORECASE)


class Refused(Exception):
    """A request is answered with `status` and its connection ends."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(status, code, detail)
        self.status = status
        self.code = code
        self.detail = detail


class Head(NamedTuple):
    """A request's head, accepted."""

    method: bytes
    target: bytes
    """In origin form (path and query) or ``*``."""
    version: bytes
    raw: bytes
    """Request line and header lines with their line ends, and the empty line."""
    length: int
    """Bytes of body to come, or `CHUNKED`."""
    persistent: bool
    """The client wants the connection to stay open."""
    expects_continue: bool


def new_parser() -> HttpRequestParser:
    """A parser for one head. Making one is cheap (0.2 µs); none outlives the head it reads."""
    return HttpRequestParser(None)


def feed(parser: HttpRequestParser, data: bytes) -> bool:
    """Have llhttp look at more of a head; true if the head asks for another protocol.

    Raises `Refused` at the first byte that cannot be part of a request.
    """
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        return True
    except HttpParserError as error:
        reason = str(error)
        if reason == "Invalid HTTP version":
            raise _bad_version() from None
        if reason == "Request has invalid `Transfer-Encoding`":
            raise _bad_coding() from None
        raise Refused(400, "bad_request", f"Malformed request: {reason}.") from None
    return False


def accept(raw: bytes, limits: Limits, upgrade: bool) -> Head:
    """The `Head` in `raw`, which ends in an empty line and which llhttp has accepted.

    `upgrade`: llhttp found another protocol asked for. It is not offered, so the request is served
    as if it had not asked (RFC 9110 section 7.8), and the connection ends after its answer.
    Raises `Refused`.
    """
    check_line(raw, limits)
    parts = raw[: raw.find(b"\r\n")].split(b" ")
    if len(parts) != 3:
        raise Refused(400, "bad_request", "The request line is not METHOD TARGET VERSION.")
    method, target, version = parts
    if version not in VERSIONS:
        if version.startswith(b"HTTP/"):
            raise _bad_version()
        raise Refused(400, "bad_request", "The request is not HTTP.")
    # The shortest header line has four bytes, so most heads need no counting.
    if len(raw) > 4 * limits.headers and raw.count(b"\r\n") - 2 > limits.headers:
        raise Refused(431, "head_too_large", f"More than {limits.headers} header lines.")

    host: bytes | None = None
    length = 0
    options: list[bytes] = []
    expects_continue = False
    for name, value in _FRAMING.findall(raw.lower()):
        if name == b"host":
            if host is not None:
                raise Refused(400, "bad_request", "More than one Host header.")
            host = value.rstrip(b" \t")
        elif name == b"connection":
            options += [option.strip(b" \t") for option in value.split(b",")]
        elif name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            if version != b"HTTP/1.1":
                # RFC 9112 section 6.1: its framing is faulty.
                raise Refused(400, "bad_request", "Transfer-Encoding in an HTTP/1.0 request.")
            if length or value.rstrip(b" \t") != b"chunked":
                raise _bad_coding()
            length = CHUNKED
        else:
            if value.rstrip(b" \t") != b"100-continue":
                raise Refused(417, "expectation_failed", "Only 100-continue can be expected.")
            # RFC 9110 section 10.1.1: it means nothing in HTTP/1.0.
            expects_continue = version == b"HTTP/1.1"

    if host is None:
        if version == b"HTTP/1.1":
            raise Refused(400, "bad_request", "The Host header is missing.")
    elif host not in _hosts:
        if _AUTHORITY.fullmatch(host) is None:
            raise Refused(400, "bad_request", "The Host header is not a host.")
        if len(_hosts) < 100:
            _hosts.add(host)
    # RFC 9112 section 9.3.
    persistent = (version == b"HTTP/1.1" or b"keep-alive" in options) and b"close" not in options
    if upgrade:
        if method == b"CONNECT":
            raise Refused(501, "not_implemented", "CONNECT is not implemented.")
        persistent = False
    if not target.startswith(b"/"):
        target, raw = _origin_form(method, target, version, raw)
    if b"#" in target:
        raise Refused(400, "bad_request", "A fragment in the request target.")
    if length > limits.body_bytes:
        raise body_too_large(limits)
    # Past NamedTuple's own constructor, which is written in Python.
    fields = (method, target, version, raw, length, persistent, expects_continue)
    return tuple.__new__(Head, fields)


def check_line(raw: bytes, limits: Limits) -> None:
    """Raise `Refused` (414) if the target in `raw`, a head or its beginning, is too long."""
    if len(raw) <= limits.uri_bytes:
        return
    end = raw.find(b"\r\n")
    line = raw if end < 0 else raw[:end]
    if max(map(len, line.split(b" "))) > limits.uri_bytes:
        raise Refused(
            414, "uri_too_long", f"The request target has more than {limits.uri_bytes} bytes."
        )


def head_too_large(limits: Limits) -> Refused:
    """431 (RFC 6585 section 5)."""
    return Refused(
        431, "head_too_large", f"Request line and headers have more than {limits.head_bytes} bytes."
    )


def body_too_large(limits: Limits) -> Refused:
    """413 (RFC 9110 section 15.5.14)."""
    return Refused(413, "body_too_large", f"The body has more than {limits.body_bytes} bytes.")


def _bad_version() -> Refused:
    return Refused(505, "version_not_supported", "This server speaks HTTP/1.1 and HTTP/1.0.")


def _bad_coding() -> Refused:
    return Refused(501, "not_implemented", "The only transfer coding is chunked.")


def _origin_form(method: bytes, target: bytes, version: bytes, raw: bytes) -> tuple[bytes, bytes]:
    """`target` as path and query, and `raw` with the Host that the target names.

    RFC 9112 section 3.2.2: the authority of an absolute target replaces Host.
    """
    if target == b"*":
        if method != b"OPTIONS":
            raise Refused(400, "bad_request", "The target * is for OPTIONS only.")
        return target, raw
    match = _ABSOLUTE.fullmatch(target)
    if match is None or _AUTHORITY.fullmatch(match[1].lower()) is None:
        raise Refused(400, "bad_request", "The request target is not a path or an http URI.")
    authority, rest = match.groups()
    if not rest and method == b"OPTIONS":
        rest = b"*"  # Section 3.2.4.
    elif not rest.startswith(b"/"):
        rest = b"/" + rest
    headers = _HOST_LINE.sub(b"", raw[raw.find(b"\r\n") :])
    return rest, b"%b %b %b\r\nHost: %b%b" % (method, rest, version, authority, headers)
