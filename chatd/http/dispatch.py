"""The root resource: gives each request its id, finds its route, answers and counts it.

Routes without parameters are found in a table made from Klein's map; everything else, 404 and
405 included, goes Klein's way. Both ways answer alike (tests/http/test_dispatch.py).
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from klein import Klein, Response
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import Resource
from werkzeug.exceptions import BadRequest, NotFound

from chatd.http.access import AccessLog
from chatd.metrics import Metrics

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")

Failed = Callable[[server.Request, Failure], Response]


class Dispatch(Resource):
    """Serves the routes of `app`; `failed` turns a failure into the answer."""

    isLeaf = True

    def __init__(
        self,
        app: Klein,
        failed: Failed,
        *,
        clock: IReactorTime,
        metrics: Metrics,
        access: AccessLog | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._app = app
        self._klein = app.resource()
        self._failed = failed
        self._clock = clock
        self._metrics = metrics
        self._access = access
        self._table = _table(app)
        self._prefix = secrets.token_hex(6).encode("ascii")
        self._numbers = itertools.count(1)

    def render(self, request: server.Request) -> int:
        began = self._clock.seconds()
        request_id = request.getHeader(b"x-request-id")
        if request_id is None or _REQUEST_ID.fullmatch(request_id) is None:
            request_id = b"%b-%d" % (self._prefix, next(self._numbers))
        request.setHeader(b"X-Request-ID", request_id)
        route = self._table.get((request.method, request.path)) or self._table.get(
            (request.method, unquote_to_bytes(request.path))
        )
        if route is None or b"%2f" in request.path.lower():
            self._by_klein(request, began)
        else:
            answering = ensureDeferred(self._answer(request, route, began))
            if not answering.called:
                request.notifyFinish().addErrback(lambda _: answering.cancel())
        return server.NOT_DONE_YET

    async def _answer(
        self,
        request: server.Request,
        route: tuple[str, Callable[[server.Request], Any]],
        began: float,
    ) -> None:
        name, endpoint = route
        try:
            response = endpoint(request)
            if isinstance(response, Deferred):
                response = await response
        except CancelledError:
            self._count(request, name, 499, began, 0.0)
            return
        except Exception:
            response = self._failed(request, Failure())
        self._write(request, response)
        self._count(request, name, response.code, began, getattr(response, "waited", 0.0))

    def _write(self, request: server.Request, response: Response) -> None:
        request.setResponseCode(response.code)
        for name, value in response.headers.items():
            if isinstance(value, str | bytes):
                request.setHeader(name, value)
            else:
                request.responseHeaders.setRawHeaders(name, value)
        request.write(response.body)
        request.finish()

    def _by_klein(self, request: server.Request, began: float) -> None:
        refusal = _unreadable(request.path)
        if refusal is not None:
            response = self._failed(request, Failure(refusal))
            self._write(request, response)
            self._count(request, "none", response.code, began, 0.0)
            return

        def count(_: object) -> None:
            self._count(request, "none", request.code, began, 0.0)

        request.notifyFinish().addBoth(count)
        self._klein.render(request)

    def _count(
        self, request: server.Request, route: str, status: int, began: float, waited: float
    ) -> None:
        work = self._clock.seconds() - began - waited
        if not waited:
            self._metrics.request(request.method.decode("latin-1"), route, status, work)
        if self._access is not None:
            self._access.write(request, status, work, waited)


def _table(app: Klein) -> dict[tuple[bytes, bytes], tuple[str, Callable[[server.Request], Any]]]:
    """Endpoints by method and path, for the routes that have no parameters."""
    table: dict[tuple[bytes, bytes], tuple[str, Callable[[server.Request], Any]]] = {}
    for rule in app.url_map.iter_rules():
        if rule.arguments:
            continue
        call = partial(app.execute_endpoint, rule.endpoint)
        for method in rule.methods or ():
            for path in {rule.rule, rule.rule.rstrip("/") + "/"}:
                table[method.encode("ascii"), path.encode("ascii")] = (rule.endpoint, call)
    return table


def _unreadable(path: bytes) -> Exception | None:
    """What Klein would trip over: it decodes paths, and takes `%2F` for a separator."""
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return BadRequest("the path is not UTF-8")
    return NotFound() if b"%2f" in path.lower() else None
