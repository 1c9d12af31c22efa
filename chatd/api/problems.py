"""Error responses: RFC 9457 `application/problem+json`, each with a stable `code`."""

from __future__ import annotations

from http import HTTPStatus
from math import ceil
from typing import Annotated, Final

import msgspec
from klein import Response
from msgspec import Meta, Struct
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from chatd.api.authentication import credentials
from chatd.api.context import RequestContext
from chatd.api.error_codes import DOMAIN_ERRORS, NotReady
from chatd.api.responses import Headers
from chatd.errors import Busy, DomainError, InsufficientScope, Unauthorized

CONTENT_TYPE: Final = b"application/problem+json"

_log = Logger()


class Problem(Struct):
    """An error (RFC 9457). Programs match on `code`, which is stable; `detail` is for people."""

    type: str
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    code: str


def problem(status: int, code: str, detail: str, title: str = "", **more: object) -> bytes:
    """A problem document; `title` defaults to the phrase of the status."""
    document = msgspec.json.encode(
        {
            "type": f"/api/v1/docs/#{code}",
            "title": title or HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "code": code,
            **more,
        }
    )
    return document + b"\n"


def response_to(failure: Failure, context: RequestContext) -> Response:
    """The response to a request that failed; routing answers `OPTIONS` here, too."""
    error = failure.value
    if isinstance(error, DomainError):
        return _domain_error(error, context)
    if isinstance(error, NotFound):
        return _response(context, 404, "not_found", "there is nothing at this path")
    if isinstance(error, MethodNotAllowed):
        allow = ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"}))
        if context.request.method == b"OPTIONS":
            return Response(204, {"Allow": allow}, b"")
        detail = f"this path takes {allow}"
        return _response(context, 405, "method_not_allowed", detail, headers={"Allow": allow})
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        return _response(context, error.code, "bad_request", error.description or "")
    request_id = context.request_id.decode("ascii")
    _log.failure("request {request_id} failed", failure, request_id=request_id)
    return _response(
        context,
        500,
        "internal_error",
        f"something went wrong inside the service; its log names this request: {request_id}",
        request_id=request_id,
    )


def _domain_error(error: DomainError, context: RequestContext) -> Response:
    headers: Headers = {}
    if isinstance(error, Busy):
        headers = {"Retry-After": str(max(1, ceil(error.retry_after)))}
    elif isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": _challenges(context)}
    elif isinstance(error, InsufficientScope):
        headers = {"WWW-Authenticate": _scope_challenge(error.scope)}
    more = {"reasons": error.reasons} if isinstance(error, NotReady) else {}
    status = DOMAIN_ERRORS[type(error)].status
    return _response(context, status, error.code, error.detail, error.title, headers, **more)


def _challenges(context: RequestContext) -> list[str]:
    """The challenge of the scheme that was tried, or of all there are."""
    # RFC 6750 section 3. A Basic challenge makes browsers open their own log-in window, so a client
    # that sent a token does not get one.
    scheme, _ = credentials(context.header(b"authorization"))
    if scheme == b"bearer":
        return ['Bearer realm="chatd", error="invalid_token"']
    basic = 'Basic realm="chatd", charset="UTF-8"'
    return [basic] if scheme == b"basic" else ['Bearer realm="chatd"', basic]


def _scope_challenge(scope: str) -> str:
    # RFC 6750 section 3.1.
    return f'Bearer realm="chatd", error="insufficient_scope", scope="{scope}"'


def _response(
    context: RequestContext,
    status: int,
    code: str,
    detail: str,
    title: str = "",
    headers: Headers | None = None,
    **more: object,
) -> Response:
    context.outcome = code
    body = problem(status, code, detail, title, **more)
    fixed: Headers = {
        "Content-Type": CONTENT_TYPE,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
    }
    return Response(status, {**fixed, **(headers or {})}, body)
