"""A request for a page through chatd's HTTP server and dispatch, and through stock twisted.web."""

from __future__ import annotations

from typing import Any

from klein import Klein
from twisted.internet.task import Clock
from twisted.web.server import Request, Site

from bench.memory_connection import MemoryConnection, Turn
from chatd.api.calls import bind, call, calls_of, routes
from chatd.api.context import RequestContext
from chatd.api.dispatch import Dispatch
from chatd.api.problems import problem
from chatd.api.responses import JSONResponse, Response
from chatd.http.limits import HTTPLimits
from chatd.http.server import Server
from chatd.metrics import Metrics

PAGE = b'{"messages":[%b]}' % b",".join([b'{"seq":1,"message":"as long as they are"}'] * 10)
REQUEST = (
    b"GET /api/v1/chats/?since=0&limit=10 HTTP/1.1\r\nHost: bench\r\nUser-Agent: guard\r\n"
    b"Accept: */*\r\nAuthorization: Bearer abcdefghijklmnopqrstuvwxyz\r\n\r\n"
)


class PageCalls:
    """A call as `chatd.api` declares them."""

    @call("GET", "/api/v1/chats", summary="A page", responses={})
    async def page(self, context: RequestContext) -> Response:
        """Answer with the page."""
        _check(context.request)
        return JSONResponse(200, PAGE)


class Ours:
    """The application of that call."""

    calls = calls_of(PageCalls)
    app = routes(calls)

    def __init__(self) -> None:
        self.handlers = bind(None, PageCalls())


class Stock:
    """The same route in the style of Klein's documentation."""

    app = Klein()

    @app.route("/api/v1/chats/", methods=["GET"])
    async def page(self, request: Request) -> bytes:
        """Respond with the page."""
        _check(request)
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        return PAGE


def _check(request: Any) -> None:
    """Read what a handler reads."""
    assert request.args[b"since"] == [b"0"]
    assert request.getHeader(b"authorization").startswith(b"Bearer ")


def ours() -> Turn:
    """A request and its response by chatd's HTTP server and dispatch."""
    clock: Any = Clock()
    dispatch = Dispatch(Ours(), clock=clock, metrics=Metrics())
    return _turn(Server(resource=dispatch, clock=clock, limits=HTTPLimits(), problem=problem))


def stock() -> Turn:
    """The same by twisted.web and Klein, unmodified."""
    return _turn(Site(Stock().app.resource(), reactor=Clock()))


def _turn(factory: Any) -> Turn:
    connection = MemoryConnection(factory)

    def turn() -> None:
        response = connection.exchange(REQUEST)
        assert response.startswith(b"HTTP/1.1 200 OK\r\n"), response
        assert PAGE in response, response

    return turn
