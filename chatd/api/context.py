"""The record of one request, from its arrival to its line in the access log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct
from twisted.web import server

from chatd.errors import InvalidHeader
from chatd.http.request import Request

CLIENT_DISCONNECTED: Final = 499
"""Counted as the status of a request whose client disconnected before the response."""


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

    @property
    def body(self) -> bytes:
        """The whole request body."""
        request = self.request
        if isinstance(request, Request):
            return request.body
        assert request.content is not None
        content: bytes = request.content.read()
        return content

    def header(self, name: bytes) -> bytes | None:
        """The last value of a request header."""
        value: bytes | None = self.request.getHeader(name)
        return value

    def only_header(self, name: bytes) -> bytes | None:
        """The value of a request header that decides something; raises `InvalidHeader` for two."""
        values = self.header_values(name)
        if len(values) > 1:
            raise InvalidHeader(f"{name.decode('ascii').title()}: given more than once")
        return values[0] if values else None

    def header_values(self, name: bytes) -> Sequence[bytes]:
        """All values of a request header, in order."""
        request = self.request
        if isinstance(request, Request):
            return request.header_values(name)
        values: Sequence[bytes] = request.requestHeaders.getRawHeaders(name, ())
        return values
