"""The head of a request: what llhttp lets through, held to the rest of RFC 9112.

llhttp (strict, no leniency) refuses bad tokens, bare CR or LF, obs-fold, NUL, whitespace before a
colon, a repeated or malformed Content-Length, and Content-Length beside Transfer-Encoding. What it
leaves to its caller is here: versions, the form of the target, Host, and the framing of the body.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from chatd.http.limits import HTTPLimits

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


class HTTPError(Exception):
    """A request is answered with `status` and its connection ends."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(status, code, detail)
        self.status = status
        self.code = code
        self.detail = detail


class HeaderBlock:
    """The header lines of a head: what frames the request, and the values that are asked for.

    Most clients send the same lines with every request of a connection, so they are read once and
    known again by their bytes. Raises `HTTPError`.
    """

    __slots__ = ("_values", "block", "close", "coding", "expects", "host", "keep_alive", "length")

    def __init__(self, block: bytes) -> None:
        self.block = block
        """From the line end before the first header line to the end of the empty line."""
        self.host: bytes | None = None
        self.length = 0
        self.coding: bytes | None = None
        self.expects = False
        options: list[bytes] = []
        for name, value in _FRAMING.findall(block.lower()):
            if name == b"host":
                if self.host is not None:
                    raise HTTPError(400, "bad_request", "More than one Host header.")
                self.host = value.rstrip(b" \t")
            elif name == b"connection":
                options += [option.strip(b" \t") for option in value.split(b",")]
            elif name == b"content-length":
                self.length = int(value)
            elif name == b"transfer-encoding":
                coding = value.rstrip(b" \t")
                self.coding = coding if self.coding is None else self.coding + b"," + coding
            elif value.rstrip(b" \t") == b"100-continue":
                self.expects = True
            else:
                raise HTTPError(417, "expectation_failed", "Only 100-continue can be expected.")
        if self.host is not None and self.host not in _hosts:
            if _AUTHORITY.fullmatch(self.host) is None:
                raise HTTPError(400, "bad_request", "The Host header is not a host.")
            if len(_hosts) < 100:
                _hosts.add(self.host)
        self.close = b"close" in options
        self.keep_alive = b"keep-alive" in options
        self._values: dict[bytes, bytes | None] = {}

    def value(self, name: bytes) -> bytes | None:
        """The last value of a header, whatever the case of its name; None if there is none."""
        try:
            return self._values[name]
        except KeyError:
            value = self._find(name)
            # Names come from code; the bound is for code that makes them up.
            if len(self._values) < 100:
                self._values[name] = value
            return value

    def _find(self, name: bytes) -> bytes | None:
        block = self.block
        start = block.lower().rfind(b"\r\n%b:" % name.lower())
        if start < 0:
            return None
        start += len(name) + 3
        return block[start : block.find(b"\r\n", start)].strip(b" \t")

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Names and values of all lines, in order."""
        lines = self.block[2:-4].split(b"\r\n") if len(self.block) > 4 else ()
        parts = [line.partition(b":") for line in lines]
        return [(name, value.strip(b" \t")) for name, _, value in parts]


class Head(NamedTuple):
    """A request's head, accepted."""

    method: bytes
    target: bytes
    """In origin form (path and query) or ``*``."""
    version: bytes
    fields: HeaderBlock
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

    Raises `HTTPError` at the first byte that cannot be part of a request.
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
        raise HTTPError(400, "bad_request", f"Malformed request: {reason}.") from None
    return False


def accept(raw: bytes, limits: HTTPLimits, upgrade: bool, known: HeaderBlock | None = None) -> Head:
    """The `Head` in `raw`, which ends in an empty line and which llhttp has accepted.

    `upgrade`: llhttp found another protocol asked for. It is not offered, so the request is served
    as if it had not asked (RFC 9110 section 7.8), and the connection ends after its answer.
    `known`: the header lines of the connection's last request. Raises `HTTPError`.
    """
    check_line(raw, limits)
    end = raw.find(b"\r\n")
    parts = raw[:end].split(b" ")
    if len(parts) != 3:
        raise HTTPError(400, "bad_request", "The request line is not METHOD TARGET VERSION.")
    method, target, version = parts
    if version not in VERSIONS:
        if version.startswith(b"HTTP/"):
            raise _bad_version()
        raise HTTPError(400, "bad_request", "The request is not HTTP.")
    # The shortest header line has four bytes, so most heads need no counting.
    if len(raw) > 4 * limits.headers and raw.count(b"\r\n") - 2 > limits.headers:
        raise HTTPError(431, "head_too_large", f"More than {limits.headers} header lines.")
    block = raw[end:]
    fields = known if known is not None and known.block == block else HeaderBlock(block)

    modern = version == b"HTTP/1.1"
    if modern and fields.host is None:
        raise HTTPError(400, "bad_request", "The Host header is missing.")
    length = fields.length
    if fields.coding is not None:
        if not modern:
            # RFC 9112 section 6.1: its framing is faulty.
            raise HTTPError(400, "bad_request", "Transfer-Encoding in an HTTP/1.0 request.")
        if length or fields.coding != b"chunked":
            raise _bad_coding()
        length = CHUNKED
    # RFC 9112 section 9.3.
    persistent = (modern or fields.keep_alive) and not fields.close
    if upgrade:
        if method == b"CONNECT":
            raise HTTPError(501, "not_implemented", "CONNECT is not implemented.")
        persistent = False
    if not target.startswith(b"/"):
        target, block = _origin_form(method, target, block)
        if block is not fields.block:
            fields = HeaderBlock(block)
    if b"#" in target:
        raise HTTPError(400, "bad_request", "A fragment in the request target.")
    if length > limits.body_bytes:
        raise body_too_large(limits)
    # RFC 9110 section 10.1.1: an expectation means nothing in HTTP/1.0.
    # Past NamedTuple's own constructor, which is written in Python.
    return tuple.__new__(
        Head, (method, target, version, fields, length, persistent, modern and fields.expects)
    )


def check_line(raw: bytes, limits: HTTPLimits) -> None:
    """Raise `HTTPError` (414) if the target in `raw`, a head or its beginning, is too long."""
    if len(raw) <= limits.uri_bytes:
        return
    end = raw.find(b"\r\n")
    line = raw if end < 0 else raw[:end]
    if max(map(len, line.split(b" "))) > limits.uri_bytes:
        raise HTTPError(
            414, "uri_too_long", f"The request target has more than {limits.uri_bytes} bytes."
        )


def head_too_large(limits: HTTPLimits) -> HTTPError:
    """431 (RFC 6585 section 5)."""
    return HTTPError(
        431, "head_too_large", f"Request line and headers have more than {limits.head_bytes} bytes."
    )


def body_too_large(limits: HTTPLimits) -> HTTPError:
    """413 (RFC 9110 section 15.5.14)."""
    return HTTPError(413, "body_too_large", f"The body has more than {limits.body_bytes} bytes.")


def _bad_version() -> HTTPError:
    return HTTPError(505, "version_not_supported", "This server speaks HTTP/1.1 and HTTP/1.0.")


def _bad_coding() -> HTTPError:
    return HTTPError(501, "not_implemented", "The only transfer coding is chunked.")


def _origin_form(method: bytes, target: bytes, block: bytes) -> tuple[bytes, bytes]:
    """`target` as path and query, and the header lines with the Host that the target names.

    RFC 9112 section 3.2.2: the authority of an absolute target replaces Host.
    """
    if target == b"*":
        if method != b"OPTIONS":
            raise HTTPError(400, "bad_request", "The target * is for OPTIONS only.")
        return target, block
    match = _ABSOLUTE.fullmatch(target)
    if match is None or _AUTHORITY.fullmatch(match[1].lower()) is None:
        raise HTTPError(400, "bad_request", "The request target is not a path or an http URI.")
    authority, rest = match.groups()
    if not rest and method == b"OPTIONS":
        rest = b"*"  # Section 3.2.4.
    elif not rest.startswith(b"/"):
        rest = b"/" + rest
    return rest, b"\r\nHost: %b%b" % (authority, _HOST_LINE.sub(b"", block))
