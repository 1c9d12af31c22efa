"""Parsing the head of a request: llhttp, and the checks of RFC 9112 that it leaves to its caller.

llhttp (strict, no leniency) rejects bad tokens, bare CR or LF, obs-fold, NUL, whitespace before a
colon, a repeated or malformed Content-Length, and Content-Length together with Transfer-Encoding.
Checked here: versions, the form of the target, Host, and the framing of the body.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from chatd.http.errors import (
    HTTPError,
    bad_request,
    bad_transfer_coding,
    bad_version,
    body_too_large,
    misdirected_request,
    too_many_headers,
    uri_too_long,
)
from chatd.http.limits import HTTPLimits
from chatd.http.request_headers import HeaderBlock, is_authority

CHUNKED = -1
"""The `Head.length` of a body in chunks."""

VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)

_PLAIN_LINE = re.compile(rb"(GET|POST|PUT|DELETE) (/[A-Za-z0-9/?&=._~%+-]*) HTTP/1\.1")

# One object for all requests that are held.
_METHODS = {method: method for method in (b"GET", b"POST", b"PUT", b"DELETE")}
_VERSIONS = {version: version for version in VERSIONS}

_HOST_LINE = re.compile(rb"\r\nhost:[^\r]*", re.IGNORECASE)


class Head(NamedTuple):
    """The head of a valid request."""

    method: bytes
    target: bytes
    """In origin form (path and query) or ``*``."""
    version: bytes
    headers: HeaderBlock
    length: int
    """Bytes of the body, or `CHUNKED`."""
    keep_alive: bool
    """Whether the client wants the connection to stay open."""
    expects_continue: bool


def new_parser() -> HttpRequestParser:
    """A parser for one head. Creating one costs only 0.2 µs, so they are not reused."""
    return HttpRequestParser(None)


def feed_parser(parser: HttpRequestParser, data: bytes) -> bool:
    """Pass more of a head to llhttp; returns whether the head asks for another protocol.

    Raises `HTTPError` at the first byte that cannot be part of a request.
    """
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        return True
    except HttpParserError as error:
        reason = str(error)
        if reason == "Invalid HTTP version":
            raise bad_version() from None
        if reason == "Request has invalid `Transfer-Encoding`":
            raise bad_transfer_coding() from None
        raise bad_request(f"Malformed request: {reason}.") from None
    return False


def parse_head(
    raw: bytes, limits: HTTPLimits, upgrade: bool, previous: HeaderBlock | None = None
) -> Head:
    """Parse `raw`, a whole head that llhttp has accepted. Raises `HTTPError`.

    `upgrade`: llhttp found a request for another protocol. None is offered, so the request is
    served as if it had not asked (RFC 9110 section 7.8), and the connection closes after it.
    `previous`: the header lines of the connection's last request.
    """
    check_target_length(raw, limits)
    end = raw.find(b"\r\n")
    parts = raw[:end].split(b" ")
    if len(parts) != 3:
        raise bad_request("The request line is not METHOD TARGET VERSION.")
    method, target, version = parts
    if version not in VERSIONS:
        if version.startswith(b"HTTP/"):
            raise bad_version()
        raise bad_request("The request is not HTTP.")
    # The shortest header line has four bytes, so most heads need no counting.
    if len(raw) > 4 * limits.headers and raw.count(b"\r\n") - 2 > limits.headers:
        raise too_many_headers(limits)
    block = raw[end:]
    headers = previous if previous is not None and previous.block == block else HeaderBlock(block)

    http_1_1 = version == b"HTTP/1.1"
    if http_1_1 and headers.host is None:
        raise bad_request("The Host header is missing.")
    length = headers.length
    if headers.coding is not None:
        if not http_1_1:
            # RFC 9112 section 6.1: its framing is faulty.
            raise bad_request("Transfer-Encoding in an HTTP/1.0 request.")
        if length or headers.coding != b"chunked":
            raise bad_transfer_coding()
        length = CHUNKED
    # RFC 9112 section 9.3.
    keep_alive = (http_1_1 or headers.keep_alive) and not headers.close
    if upgrade:
        if method == b"CONNECT":
            raise HTTPError(501, "not_implemented", "CONNECT is not implemented.")
        keep_alive = False
    if not target.startswith(b"/"):
        target, block = _origin_form(method, target, block)
        if block is not headers.block:
            headers = HeaderBlock(block)
    if headers.host is not None and not limits.hosts.allow(headers.host):
        raise misdirected_request()
    if b"#" in target:
        raise bad_request("A fragment in the request target.")
    if length > limits.body_bytes:
        raise body_too_large(limits)
    # RFC 9110 section 10.1.1: an expectation in an HTTP/1.0 request is ignored.
    # NamedTuple's own constructor is written in Python and slower.
    return tuple.__new__(
        Head,
        (
            _METHODS.get(method, method),
            target,
            _VERSIONS[version],
            headers,
            length,
            keep_alive,
            http_1_1 and headers.expects,
        ),
    )


def repeated_head(raw: bytes, limits: HTTPLimits, previous: HeaderBlock) -> Head | None:
    """The head `raw` if it has a plain request line and repeats the header lines of `previous`,
    apart from the values of Content-Length and Idempotency-Key.

    llhttp has accepted these bytes on this connection before, and a request line of this shape is
    valid with any of them. None if the head has to be parsed.
    """
    if previous.host is None or previous.coding is not None or previous.expects:
        return None
    end = raw.find(b"\r\n")
    match = _PLAIN_LINE.fullmatch(raw, 0, end)
    if match is None or end > limits.uri_bytes:
        return None
    block = raw[end:]
    headers = previous if block == previous.block else previous.repeated(block)
    if headers is None or headers.length > limits.body_bytes:
        return None
    return tuple.__new__(
        Head,
        (
            _METHODS[match[1]],
            match[2],
            b"HTTP/1.1",
            headers,
            headers.length,
            not headers.close,
            False,
        ),
    )


def check_target_length(raw: bytes, limits: HTTPLimits) -> None:
    """Raise `HTTPError` (414) if the target in `raw`, a head or part of one, is too long."""
    if len(raw) <= limits.uri_bytes:
        return
    end = raw.find(b"\r\n")
    line = raw if end < 0 else raw[:end]
    if max(map(len, line.split(b" "))) > limits.uri_bytes:
        raise uri_too_long(limits)


def _origin_form(method: bytes, target: bytes, block: bytes) -> tuple[bytes, bytes]:
    """`target` as path and query, and the header lines with the Host that the target names.

    RFC 9112 section 3.2.2: the authority of an absolute target replaces Host.
    """
    if target == b"*":
        if method != b"OPTIONS":
            raise bad_request("The target * is for OPTIONS only.")
        return target, block
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not is_authority(match[1].lower()):
        raise bad_request("The request target is not a path or an http URI.")
    authority, rest = match.groups()
    if not rest and method == b"OPTIONS":
        rest = b"*"  # Section 3.2.4.
    elif not rest.startswith(b"/"):
        rest = b"/" + rest
    return rest, b"\r\nHost: %b%b" % (authority, _HOST_LINE.sub(b"", block))
