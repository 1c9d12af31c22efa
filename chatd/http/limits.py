"""What one connection may ask of the server, in bytes, counts and seconds."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class HTTPLimits:
    """Bounds of the HTTP side. Bytes are as on the wire, times are seconds.

    A deadline is looked at once a second, so it passes at most a second late.
    """

    head_bytes: int = 16 * 1024
    """Request line and headers together; more is 431 ``head_too_large``."""
    uri_bytes: int = 8 * 1024
    """The request target; more is 414 ``uri_too_long``."""
    headers: int = 100
    """Header lines; more is 431 ``head_too_large``."""
    body_bytes: int = 128 * 1024
    """The body without its chunk framing; more is 413 ``body_too_large``."""
    pipelined: int = 16
    """Requests that may wait, unread, behind one that is being answered; and about how many of
    one connection are answered before others have their turn."""
    pipelined_bytes: int = 16 * 1024
    """Bytes that may wait behind a request that is being answered before reading pauses."""
    head_seconds: float = 15.0
    """From a connection's start, or a later head's first byte, to that head's end."""
    body_seconds: float = 20.0
    """From the end of a head to the end of its body."""
    idle_seconds: float = 75.0
    """From the end of an answer to the first byte of the next request."""
    linger_seconds: float = 2.0
    """How long input is discarded after an answer that ends the connection early."""
    linger_bytes: int = 256 * 1024
    """How much input is discarded then."""
    close_seconds: float = 30.0
    """How long a client may take nothing of an answer that waits for it, before it is cut off."""
