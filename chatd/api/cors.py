"""Cross-origin resource sharing (WHATWG Fetch, section 3.3): browser apps of other origins.

A browser lets a page read responses of another origin only if they carry these headers, and asks
with a preflight before it sends what a form could not. The API uses no cookies: an app has to
have a token or a password, so what an origin is permitted here gives it no account.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from chatd.api.unknown_parameters import HEADER
from chatd.http.request_headers import values_in_head
from chatd.http.response_head import header_block

Fields = tuple[tuple[bytes, bytes], ...]

ANY: Final = "*"
"""Stands for every origin, also the opaque one of files and sandboxed frames, `null`."""

PREFLIGHT_SECONDS: Final = 7200
"""How long browsers remember the response to a preflight; Chromium does for two hours at most."""

_EXPOSED: Final = (
    b"Location, Link, Retry-After, X-Request-ID, Idempotency-Replayed, Preference-Applied, "
    b"WWW-Authenticate, Allow, " + HEADER
)
_PREFLIGHT: Final[Fields] = (
    # The same for every path, so that an app is told 404 and 405 as by any other client.
    (b"Access-Control-Allow-Methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
    (
        b"Access-Control-Allow-Headers",
        b"Authorization, Content-Type, Idempotency-Key, Prefer, Last-Event-ID, X-Request-ID, "
        b"Accept",
    ),
    (b"Access-Control-Max-Age", b"%d" % PREFLIGHT_SECONDS),
)
_VARY: Final[Fields] = ((b"Vary", b"Origin"),)

_in_head: Final = values_in_head(b"origin")


class CORS:
    """The headers for apps of the permitted `origins`; apps of others get none."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.encode("ascii") for origin in origins)
        self._any = ANY.encode("ascii") in self._origins

    def headers(self, origins: Sequence[bytes]) -> Fields:
        """The headers of a response to a request with these values of Origin."""
        allowed = self._allowed(origins)
        if allowed is None:
            # Caches must not give the response to an app that is permitted.
            return _VARY
        return (
            *_VARY,
            (b"Access-Control-Allow-Origin", allowed),
            (b"Access-Control-Expose-Headers", _EXPOSED),
        )

    def preflight(
        self, method: bytes, origins: Sequence[bytes], requested: Sequence[bytes]
    ) -> Fields | None:
        """The additional headers of the response to a preflight, or None if there is none.

        `requested` are the values of Access-Control-Request-Method.
        """
        is_preflight = method == b"OPTIONS" and requested and self._allowed(origins) is not None
        return _PREFLIGHT if is_preflight else None

    def in_head(self, raw: bytes) -> bytes:
        """The header lines for a rejected request, of which `raw` is as much of the head as was
        received."""
        return header_block(*self.headers(_in_head(raw)))

    def _allowed(self, origins: Sequence[bytes]) -> bytes | None:
        """The value of Access-Control-Allow-Origin."""
        if len(origins) != 1:
            return None
        if self._any:
            return b"*"
        return origins[0] if origins[0] in self._origins else None
