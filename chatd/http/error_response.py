"""The response to a request that cannot be read."""

from __future__ import annotations

from twisted.logger import Logger

from chatd.http.errors import HTTPError
from chatd.http.request_ids import HEADER
from chatd.http.response_head import status_line
from chatd.http.site import Site

_log = Logger()


def error_response(
    error: HTTPError, site: Site, request_id: bytes, more: bytes = b"", *, omit_body: bool
) -> bytes:
    """Render `error` as a whole response that announces the end of the connection.

    `more` are additional header lines. If the problem document cannot be rendered, the response has
    no body.
    """
    try:
        body = site.problem(error.status, error.code, error.detail)
    except Exception:
        _log.failure("No problem document could be rendered")
        body = b""
    return (
        b"%b%b%b: %b\r\n%b%bContent-Type: application/problem+json\r\nContent-Length: %d\r\n"
        b"Connection: close\r\n\r\n%b"
    ) % (
        status_line(b"HTTP/1.1", error.status),
        site.standard_headers.block(),
        HEADER,
        request_id,
        more,
        b"Retry-After: 1\r\n" if error.status == 503 else b"",
        len(body),
        b"" if omit_body else body,
    )
