"""The root resource: gives each request its id, finds its route, answers and counts it.

Routes without parameters are found in a table made from Klein's map; everything else, 404 and
405 included, goes Klein's way. Both ways answer alike (tests/api/test_dispatch.py).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from klein import Klein, Response
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import Resource
from werkzeug.exceptions import BadRequest, HTTPException, NotFound

from chatd.api.access_log import AccessLog
from chatd.api.responses import JSONResponse
from chatd.http.request import Request
from chatd.http.request_ids import HEADER, RequestIds
from chatd.metrics import Metrics

CLIENT_GONE: Final = 499
"""Counted as the status of a request whose client did not wait for the answer."""


class Routed(Protocol):
    """An object with Klein routes, whose handlers are methods named as their endpoints."""

    @property
    def app(self) -> Klein:
        """The routes."""
        ...

    def error(self, request: server.Request, failure: Failure) -> Response:
        """The answer to a request that failed."""
        ...


class Route(NamedTuple):
    """A handler and what it is called in the metrics."""

    name: str
    handler: Callable[[server.Request], Coroutine[Any, Any, Response]]


class Dispatch(Resource):
    """Serves the routes of `routed`."""

    isLeaf = True

    def __init__(
        self,
        routed: Routed,
        *,
        clock: IReactorTime,
        metrics: Metrics,
        access: AccessLog | None = None,
        request_ids: RequestIds | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Klein keeps only a weak reference to the application that it binds to an instance.
        self._app = routed.app
        self._klein = self._app.resource()
        self.failed = routed.error
        self.seconds = clock.seconds
        self._metrics = metrics
        self._access = access
        self._table = _table(routed)
        self.request_ids = request_ids or RequestIds()

    def render(self, request: server.Request) -> int:
        began = self.seconds()
        request_id = self.request_ids.of(request.getHeader(b"x-request-id"))
        route = self._table.get((request.method, request.path)) or self._unquoted(request)
        if route is None:
            request.setHeader(HEADER, request_id)
            self._by_klein(request, request_id, began)
        else:
            Handling(self, request, request_id, route, began).advance()
        return server.NOT_DONE_YET

    def _unquoted(self, request: server.Request) -> Route | None:
        # Klein takes %2F for a separator; here it is none.
        if b"%" not in request.path or b"%2f" in request.path.lower():
            return None
        return self._table.get((request.method, unquote_to_bytes(request.path)))

    def _by_klein(self, request: server.Request, request_id: bytes, began: float) -> None:
        refusal = _unreadable(request.path)
        if refusal is not None:
            response = self.failed(request, Failure(refusal))
            _write(request, response)
            self.count(request, request_id, "none", response.code, began, 0.0)
            return

        def count(_: object) -> None:
            self.count(request, request_id, "none", request.code, began, 0.0)

        request.notifyFinish().addBoth(count)
        try:
            self._klein.render(request)
        except HTTPException:
            # A Host that werkzeug cannot encode, such as `a..b`.
            _write(request, self.failed(request, Failure()))

    def count(
        self,
        request: server.Request,
        request_id: bytes,
        route: str,
        status: int,
        began: float,
        waited: float,
    ) -> None:
        """A request was answered `waited` seconds later than its work took."""
        work = self.seconds() - began - waited
        if not waited:
            self._metrics.observe_request(request.method, route, status, work)
        if self._access is not None:
            self._access.write(request, request_id, status, work, waited)


class Handling:
    """A handler's coroutine being run for a request, cancelled when its client goes away.

    What `Deferred.fromCoroutine` would do with three objects and some fifty frames a request is
    done here with one object; a held poll keeps it all the time that it waits. It stands in its
    request's `notifications` in place of a Deferred, with the two methods that are called there.
    """

    __slots__ = ("_awaited", "_began", "_dispatch", "_request", "_request_id", "_route", "_work")

    def __init__(
        self,
        dispatch: Dispatch,
        request: server.Request,
        request_id: bytes,
        route: Route,
        began: float,
    ) -> None:
        self._dispatch = dispatch
        self._request = request
        self._request_id = request_id
        self._route = route
        self._began = began
        self._work = route.handler(request)
        self._awaited: Deferred[Any] | None = None

    def advance(self, failure: Failure | None = None) -> None:
        """Run the handler until it waits for something or is done."""
        try:
            # An awaited Deferred hands its result to the coroutine by itself, its failure not.
            if failure is None:
                awaited = self._work.send(None)
            else:
                awaited = failure.throwExceptionIntoGenerator(self._work)
        except StopIteration as done:
            self._answer(done.value)
        except CancelledError as gone:
            self._count(CLIENT_GONE, getattr(gone, "waited", 0.0))
            _untie(gone)
        except Exception as error:
            self._request.setHeader(HEADER, self._request_id)
            response = self._dispatch.failed(self._request, Failure())
            _write(self._request, response)
            self._count(response.code, getattr(error, "waited", 0.0))
            _untie(error)
        else:
            if self._awaited is None:
                self._request.notifications.append(self)  # type: ignore[arg-type]
            self._awaited = awaited
            awaited.addBoth(self._resume)

    def _resume(self, result: object) -> None:
        self.advance(result if isinstance(result, Failure) else None)

    def callback(self, _: object) -> None:
        """The answer was written."""

    def errback(self, _: object) -> None:
        """The client has gone away."""
        if self._awaited is not None:
            self._awaited.cancel()

    def _answer(self, response: Response) -> None:
        request = self._request
        waited = 0.0
        if isinstance(response, JSONResponse):
            waited = response.waited
        if isinstance(response, JSONResponse) and response.whole and isinstance(request, Request):
            request_id = b"X-Request-ID: %b\r\n" % self._request_id
            request.answer(response.code, request_id + response.block, response.body)
        else:
            request.setHeader(HEADER, self._request_id)
            _write(request, response)
        self._count(response.code, waited)

    def _count(self, status: int, waited: float) -> None:
        name = self._route.name
        self._dispatch.count(self._request, self._request_id, name, status, self._began, waited)


def _untie(error: Exception) -> None:
    """Break the circles that keep a request and its frames until the next full collection.

    A Deferred ties the exception that it raises to its Failure, and both know the frames.
    """
    error.__traceback__ = None
    error.__dict__.pop("__failure__", None)


def _write(request: server.Request, response: Response) -> None:
    request.setResponseCode(response.code)
    for name, value in response.headers.items():
        if isinstance(value, str | bytes):
            request.setHeader(name, value)
        else:
            request.responseHeaders.setRawHeaders(name, value)
    request.write(response.body)
    request.finish()


def _table(routed: Routed) -> dict[tuple[bytes, bytes], Route]:
    """Handlers by method and path, for the routes that have no parameters."""
    table = {}
    for rule in routed.app.url_map.iter_rules():
        if rule.arguments:
            continue
        route = Route(rule.endpoint, getattr(routed, rule.endpoint))
        for method in rule.methods or ():
            for path in {rule.rule, rule.rule.rstrip("/") + "/"}:
                table[method.encode("ascii"), path.encode("ascii")] = route
    return table


def _unreadable(path: bytes) -> Exception | None:
    """What Klein would trip over: it decodes paths, takes `%2F` for a separator, `//` for `/`."""
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return BadRequest("the path is not UTF-8")
    return NotFound() if b"%2f" in path.lower() or path.startswith(b"//") else None
