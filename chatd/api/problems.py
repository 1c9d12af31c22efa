"""Errors on the wire: RFC 9457 `application/problem+json`, each with a stable `code`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Final

import msgspec
from klein import Response
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from chatd import errors
from chatd.api.responses import Headers
from chatd.errors import Busy, DomainError

CONTENT_TYPE: Final = b"application/problem+json"

STATUSES: Final[Mapping[type[DomainError], int]] = {
    errors.InvalidBody: 400,
    errors.InvalidQuery: 400,
    errors.InvalidHeader: 400,
    errors.InvalidCursor: 400,
    errors.NotAToken: 400,
    errors.Unauthorized: 401,
    errors.RegistrationClosed: 403,
    errors.UserNotFound: 404,
    errors.PageNotFound: 404,
    errors.UsernameTaken: 409,
    errors.CursorEpoch: 410,
    errors.MessageTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.IdempotencyKeyReused: 422,
    errors.RateLimited: 429,
    errors.Overloaded: 503,
    errors.StoreUnavailable: 503,
}
"""The HTTP status of every domain error."""

_log = Logger()


class NotReady(DomainError):
    """`GET /readyz` where the process is not ready."""

    code = "not_ready"
    title = "This process should not be sent requests now"

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


def problem(status: int, code: str, detail: str, title: str = "", **more: object) -> bytes:
    """A problem document; `title` defaults to the phrase of the status."""
    return msgspec.json.encode(
        {
            "type": f"/api/v1/docs/#{code}",
            "title": title or HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "code": code,
            **more,
        }
    )


def respond(failure: Failure, request_id: str, *, scheme: str = "") -> Response:
    """The answer to a request that failed: the one place where errors become statuses.

    `scheme` is how the request was authenticated, lower case, empty if it was not: a failed
    authentication is challenged with the scheme that was tried, or with all there are.
    """
    error = failure.value
    if isinstance(error, NotReady):
        return _response(503, error.code, error.detail, error.title, reasons=error.reasons)
    if isinstance(error, DomainError):
        headers: Headers = {}
        if isinstance(error, Busy):
            headers = {"Retry-After": str(max(1, ceil(error.retry_after)))}
        elif isinstance(error, errors.Unauthorized):
            headers = {"WWW-Authenticate": _challenges(scheme)}
        status = STATUSES[type(error)]
        return _response(status, error.code, error.detail, error.title, headers)
    if isinstance(error, NotFound):
        return _response(404, "not_found", "there is nothing at this path")
    if isinstance(error, MethodNotAllowed):
        return _method_not_allowed(error)
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        return _response(error.code, "bad_request", error.description or "")
    _log.failure("request {request_id} failed", failure, request_id=request_id)
    return _response(
        500,
        "internal_error",
        f"something went wrong inside the service; its log names this request: {request_id}",
        request_id=request_id,
    )


def allowed(error: MethodNotAllowed) -> str:
    """The value of `Allow`."""
    return ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"}))


def _method_not_allowed(error: MethodNotAllowed) -> Response:
    allow = allowed(error)
    detail = f"this path takes {allow}"
    return _response(405, "method_not_allowed", detail, headers={"Allow": allow})


def _challenges(scheme: str) -> list[str]:
    # RFC 6750 section 3. A browser opens its own log-in window at a Basic challenge, so a client
    # that came with a token is not given one.
    if scheme == "bearer":
        return ['Bearer realm="chatd", error="invalid_token"']
    basic = 'Basic realm="chatd", charset="UTF-8"'
    return [basic] if scheme == "basic" else ['Bearer realm="chatd"', basic]


def _response(
    status: int,
    code: str,
    detail: str,
    title: str = "",
    headers: Headers | None = None,
    **more: object,
) -> Response:
    body = problem(status, code, detail, title, **more)
    fixed: Headers = {
        "Content-Type": CONTENT_TYPE,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
    }
    return Response(status, {**fixed, **(headers or {})}, body)
