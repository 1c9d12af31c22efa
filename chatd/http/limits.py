"""Limits of the HTTP server: sizes, counts and timeouts of one connection, and its names."""

from __future__ import annotations

import attrs

from chatd.http.allowed_hosts import ANY_HOST, AllowedHosts


@attrs.frozen(kw_only=True)
class HTTPLimits:
    """Sizes in bytes as on the wire, and times in seconds.

    Timeouts are checked once a second, so they come up to a second late.
    """

    hosts: AllowedHosts = ANY_HOST
    """The names in Host that are answered to; others are 421 ``misdirected_request``."""
    head_bytes: int = 16 * 1024
    """Request line and headers together; more is 431 ``head_too_large``."""
    uri_bytes: int = 8 * 1024
    """The request target; more is 414 ``uri_too_long``."""
    headers: int = 100
    """Header lines; more is 431 ``head_too_large``."""
    body_bytes: int = 128 * 1024
    """The body without its chunk framing; more is 413 ``body_too_large``."""
    pipelined: int = 16
    """Pipelined requests that may be buffered while one is being answered; also about how many
    requests of one connection are answered before other connections get their turn."""
    pipelined_bytes: int = 16 * 1024
    """Bytes that may be buffered while a request is being answered before reading pauses."""
    head_seconds: float = 15.0
    """From a connection's start, or a later head's first byte, to that head's end."""
    body_seconds: float = 20.0
    """From the end of a head to the end of its body."""
    idle_seconds: float = 75.0
    """From the end of a response to the first byte of the next request."""
    last_request_seconds: float = 1.0
    """What replaces `idle_seconds` once the server drains: a request may be on its way."""
    linger_seconds: float = 2.0
    """How long input is discarded after a response that closes the connection early."""
    linger_bytes: int = 256 * 1024
    """How much input is discarded in that time."""
    close_seconds: float = 30.0
    """How long a client may read nothing of a response before its connection is aborted."""
