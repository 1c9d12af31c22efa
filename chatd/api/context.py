"""The record of one request, from its arrival to its line in the access log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct
from twisted.web import server

from chatd.errors import InvalidHeader
from chatd.http.request import Request

CLIENT_DISCONNECTED: Final = 499
"""Counted as the status of a request whose client disconnected before the response."""

SINGLE_HEADERS: Final = (
    b"authorization",
    b"content-type",
    b"host",
    b"idempotency-key",
    b"last-event-id",
)
"""Headers that decide something and of which a request has one at most. Those that frame the
message are the HTTP server's; `Prefer`, `Accept` and `X-Forwarded-For` are lists."""

_SINGLE_LINE: Final = re.compile(rb"\r\n(%b):" % b"|".join(SINGLE_HEADERS))


def repeated_header(block: bytes) -> bytes | None:
    """The first of `SINGLE_HEADERS` that these header lines, in lower case, have twice."""
    names = _SINGLE_LINE.findall(block)
    return next((name for name in names if names.count(name) > 1), None)


class RequestContext(Struct, eq=False):
    """The context of a request: created by dispatch, completed while it is handled.

    Metrics and the access log read it when the request has ended. `began` is the reactor's clock
    when the request was dispatched; `status` is 499 if the client disconnected before the response.
    """

    request: server.Request
    request_id: bytes
    began: float
    route: str = "none"
    """The name of the call, as it appears in the metrics."""
    path_arguments: Mapping[str, str] | None = None
    user_id: int | None = None
    """The authenticated caller."""
    held_seconds: float = 0.0
    status: int = 0
    outcome: str = ""
    """The code of the error that was answered, or how a poll or stream ended; for the access log.
    """

    def take_body(self) -> bytes:
        """The whole request body, which the request keeps no longer."""
        request = self.request
        if isinstance(request, Request):
            body = request.body
            request.forget_body()
            return body
        assert request.content is not None
        content: bytes = request.content.read()
        return content

    def header(self, name: bytes) -> bytes | None:
        """The last value of a request header."""
        value: bytes | None = self.request.getHeader(name)
        return value

    def check_headers(self) -> None:
        """Raise `InvalidHeader` for two of a header that decides something.

        Proxies pass both on, and may have decided by the other one.
        """
        request = self.request
        if isinstance(request, Request):
            repeated = repeated_header(request.header_block.lower())
        else:
            headers = request.requestHeaders
            repeated = next(
                (name for name in SINGLE_HEADERS if len(headers.getRawHeaders(name, ())) > 1), None
            )
        if repeated is not None:
            raise InvalidHeader(f"{repeated.decode('ascii').title()}: given more than once")

    def header_values(self, name: bytes) -> Sequence[bytes]:
        """All values of a request header, in order."""
        request = self.request
        if isinstance(request, Request):
            return request.header_values(name)
        values: Sequence[bytes] = request.requestHeaders.getRawHeaders(name, ())
        return values
