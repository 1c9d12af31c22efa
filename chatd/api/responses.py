"""JSON responses that the daemon's own HTTP server writes with one send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import klein
from msgspec import Struct

from chatd.http.response_head import header_block

Headers = Mapping[str | bytes, str | bytes | Sequence[str | bytes]]

_STANDARD_BLOCK = header_block(
    (b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")
)


class JSONResponse(Struct, frozen=True):
    """A JSON response with `Cache-Control: no-store`; `headers` are additional ones."""

    code: int
    body: bytes
    headers: Mapping[bytes, bytes] | None = None

    @property
    def header_block(self) -> bytes:
        """The header lines, without Content-Length."""
        if not self.headers:
            return _STANDARD_BLOCK
        return _STANDARD_BLOCK + header_block(*self.headers.items())

    def as_klein(self) -> klein.Response:
        """The same as a `klein.Response`, which works on any server."""
        headers: dict[str | bytes, bytes] = {
            b"Content-Type": b"application/json",
            b"Content-Length": b"%d" % len(self.body),
            b"Cache-Control": b"no-store",
        }
        for name, value in (self.headers or {}).items():
            headers[name] = value
        return klein.Response(self.code, headers, self.body)


Response = klein.Response | JSONResponse
"""What handlers return."""


def as_klein(response: Response) -> klein.Response:
    """The response as a `klein.Response`."""
    return response.as_klein() if isinstance(response, JSONResponse) else response


def no_content() -> klein.Response:
    """204, without a body."""
    return klein.Response(204, {"Cache-Control": "no-store"}, b"")
