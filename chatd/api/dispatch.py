"""The root resource of a listener: finds the call of each request, runs it and counts it.

Calls without path arguments are found in a table, as is what is no call at all: 404 and 405 must
not cost more than an answer. The others go through Klein. Both respond alike
(tests/api/test_dispatch.py).
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import Resource
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, NotFound

from chatd.api.access_log import AccessLog
from chatd.api.calls import Application, Handler
from chatd.api.context import CLIENT_DISCONNECTED, RequestContext
from chatd.api.cors import CORS
from chatd.api.problems import response_to
from chatd.api.responses import (
    ConstantResponse,
    JSONResponse,
    Response,
    StreamResponse,
)
from chatd.errors import DomainError, InvalidHeader
from chatd.http.request import Request
from chatd.http.request_ids import HEADER, RequestIds
from chatd.metrics import Metrics

_WHOLE: Final = (JSONResponse, ConstantResponse)


class Route(NamedTuple):
    """A handler, and the name of its call."""

    name: str
    handler: Handler


class Dispatch(Resource):
    """Serves the calls of an application."""

    isLeaf = True

    def __init__(
        self,
        application: Application,
        *,
        clock: IReactorTime,
        metrics: Metrics,
        access: AccessLog | None = None,
        request_ids: RequestIds | None = None,
        cors: CORS | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Klein keeps only a weak reference to the routes that it binds to an application.
        self._app = application.app
        self._klein = self._app.resource()
        self._seconds = clock.seconds
        self._metrics = metrics
        self.access = access
        """The access log, or None."""
        self._table = _table(application)
        self._methods: dict[bytes, list[str]] = {}
        for method, path in sorted(self._table):
            self._methods.setdefault(path, []).append(method.decode("ascii"))
        # Of the paths with arguments, what comes before them.
        self._prefixes = tuple(
            call.path.partition("<")[0].encode("ascii")
            for call in application.calls
            if "<" in call.path
        )
        self._request_ids = request_ids or RequestIds()
        self._cors = cors

    def render(self, request: server.Request) -> int:
        began = self._seconds()
        context = RequestContext(request, b"", began)
        given = context.header_values(b"x-request-id")
        context.request_id = self._request_ids.of(given[0] if len(given) == 1 else None)
        if self._cors is not None and self._share(self._cors, context):
            return server.NOT_DONE_YET
        try:
            context.check_headers()
        except InvalidHeader:
            self.fail(context, Failure())
            return server.NOT_DONE_YET
        route = self._table.get((request.method, request.path)) or self._unquoted(request)
        if route is None:
            self._render_other(context)
        else:
            context.route = route.name
            CoroutineRunner(self, context, route.handler(context)).advance()
        return server.NOT_DONE_YET

    def _share(self, cors: CORS, context: RequestContext) -> bool:
        """Set the headers for apps of other origins; returns whether it was a preflight, which has
        been answered then.
        """
        request = context.request
        origins = context.header_values(b"origin")
        for name, value in cors.headers(origins):
            request.setHeader(name, value)
        requested = context.header_values(b"access-control-request-method")
        fields = cors.preflight(request.method, origins, requested)
        if fields is None:
            return False
        headers: dict[str | bytes, bytes] = dict(fields)
        methods = {method for method, path in self._table if path == request.path}
        if methods:
            headers[b"Allow"] = b", ".join(sorted({*methods, b"OPTIONS"}))
        self.respond(context, klein.Response(204, headers, b""))
        return True

    def _unquoted(self, request: server.Request) -> Route | None:
        # Klein treats %2F as a separator; here it is not one.
        if b"%" not in request.path or b"%2f" in request.path.lower():
            return None
        return self._table.get((request.method, unquote_to_bytes(request.path)))

    def _render_other(self, context: RequestContext) -> None:
        """Respond to a request for none of the calls in the table."""
        path = context.request.path
        refusal = _unreadable(path)
        if refusal is None:
            path = unquote_to_bytes(path)
            methods = self._methods.get(path)
            if methods is not None:
                refusal = MethodNotAllowed(methods)
            elif not path.startswith(self._prefixes):
                refusal = NotFound()
        if refusal is not None:
            self.fail(context, Failure(refusal))
        else:
            self._render_by_klein(context)

    def _render_by_klein(self, context: RequestContext) -> None:
        request: Any = context.request

        def finished(_: object) -> None:
            context.status = request.code
            self.record(context)

        request.setHeader(HEADER, context.request_id)
        request.setComponent(RequestContext, context)
        request.notifyFinish().addBoth(finished)
        try:
            self._klein.render(request)
        except HTTPException:
            # A Host that werkzeug cannot encode, such as `a..b`.
            _write(request, response_to(Failure(), context))

    def fail(self, context: RequestContext, failure: Failure) -> None:
        """Respond to a request that failed, and was not rendered by Klein."""
        self.count_refusal(failure.value)
        self.respond(context, response_to(failure, context))

    def count_refusal(self, error: object) -> None:
        """Count an error by the bound that was reached, if it says one."""
        if isinstance(error, DomainError) and error.bound:
            self._metrics.count_refusal(error.bound)

    def respond(self, context: RequestContext, response: Response) -> None:
        """Respond to a request that was not rendered by Klein."""
        request = context.request
        if (
            isinstance(response, _WHOLE)
            and isinstance(request, Request)
            and (response.headers is None or b"Connection" not in response.headers)
        ):
            # Written with one send. Responses that close the connection are rare.
            block = b"X-Request-ID: %b\r\n%b" % (context.request_id, response.header_block)
            channel = request.channel
            request.respond(response.code, block, response.body)
            if channel is not None:
                channel.claim_unsent(context.user_id)
        elif isinstance(response, StreamResponse):
            request.setHeader(HEADER, context.request_id)
            context.status = 200
            response.start(partial(self.record, context))
            return
        else:
            request.setHeader(HEADER, context.request_id)
            _write(
                request,
                response if isinstance(response, klein.Response) else response.as_klein(),
            )
        context.status = response.code
        self.record(context)

    def record(self, context: RequestContext) -> None:
        """Count and log a request that is finished or whose client has disconnected."""
        held = context.held_seconds
        work = self._seconds() - context.began - held
        self.count(context.request.method, context.route, context.status, work, held)
        if self.access is not None:
            self.access.write(context, work)

    def count(self, method: bytes, route: str, status: int, work: float, held: float) -> None:
        """Count a request that took `work` seconds; polls that were held are counted as such."""
        if not held:
            self._metrics.observe_request(method, route, status, work)


class CoroutineRunner:
    """Runs a handler's coroutine to its response; cancels it when the client disconnects.

    It does what `Deferred.fromCoroutine` would do with three objects and some fifty frames a
    request, in one object, which a held poll keeps for as long as it waits.
    """

    __slots__ = ("_awaited", "_context", "_coroutine", "_dispatch")

    def __init__(
        self, dispatch: Dispatch, context: RequestContext, coroutine: Coroutine[Any, Any, Response]
    ) -> None:
        self._dispatch = dispatch
        self._context = context
        self._coroutine = coroutine
        self._awaited: Deferred[Any] | None = None

    def advance(self, failure: Failure | None = None) -> None:
        """Run the handler until it waits for a Deferred or is done."""
        try:
            # An awaited Deferred returns its result to the coroutine by itself; its failure has
            # to be raised there.
            if failure is None:
                awaited = self._coroutine.send(None)
            else:
                awaited = failure.throwExceptionIntoGenerator(self._coroutine)
        except StopIteration as done:
            self._dispatch.respond(self._context, done.value)
        except CancelledError as error:
            self._context.status = CLIENT_DISCONNECTED
            self._dispatch.record(self._context)
            _break_cycles(error)
        except Exception as error:
            self._dispatch.fail(self._context, Failure())
            _break_cycles(error)
        else:
            if self._awaited is None:
                self._watch_disconnect()
            self._awaited = awaited
            awaited.addBoth(self._resume)

    def client_disconnected(self, reason: Failure) -> None:
        """Called when the client has disconnected before the response."""
        if self._awaited is not None:
            self._awaited.cancel()

    def _resume(self, result: object) -> None:
        self.advance(result if isinstance(result, Failure) else None)

    def _watch_disconnect(self) -> None:
        request = self._context.request
        if isinstance(request, Request):
            request.watch_disconnect(self)
        else:
            request.notifyFinish().addErrback(self.client_disconnected)


def _break_cycles(error: Exception) -> None:
    """Release a request's frames now instead of at the next full garbage collection.

    A Deferred ties the exception that it raises to its Failure, and both refer to the frames.
    """
    error.__traceback__ = None
    error.__dict__.pop("__failure__", None)


def _write(request: server.Request, response: klein.Response) -> None:
    request.setResponseCode(response.code)
    for name, value in response.headers.items():
        if isinstance(value, str | bytes):
            request.setHeader(name, value)
        else:
            request.responseHeaders.setRawHeaders(name, value)
    request.write(response.body)
    request.finish()


def _table(application: Application) -> dict[tuple[bytes, bytes], Route]:
    """Routes by method and path, for the calls without path arguments."""
    table = {}
    for call in application.calls:
        if "<" in call.path:
            continue
        route = Route(call.name, application.handlers[call.name])
        for method in ("GET", "HEAD") if call.method == "GET" else (call.method,):
            for path in {call.path, call.path.rstrip("/") + "/"}:
                table[method.encode("ascii"), path.encode("ascii")] = route
    return table


def _unreadable(path: bytes) -> Exception | None:
    """The error for a path that Klein would misread: it decodes `%2F` and `//` to `/`."""
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return BadRequest("the path is not UTF-8")
    return NotFound() if b"%2f" in path.lower() or path.startswith(b"//") else None
