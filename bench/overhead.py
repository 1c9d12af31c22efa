"""CPU time of a request through chatd's HTTP server and dispatch, compared with twisted.web's.

Both serve the same route in this process on transports in memory, without sockets or disk. Rounds
alternate and the fastest of each counts, so that other programs hardly affect the ratio.

    python -m bench.overhead
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from klein import Klein
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.server import Request, Site

from chatd.api.calls import bind, call, calls_of, routes
from chatd.api.context import RequestContext
from chatd.api.dispatch import Dispatch
from chatd.api.problems import problem
from chatd.api.responses import JSONResponse, Response
from chatd.http.limits import HTTPLimits
from chatd.http.server import Server
from chatd.metrics import Metrics

ROUNDS = 7
REQUESTS = 400

PAGE = b'{"messages":[%b]}' % b",".join([b'{"seq":1,"message":"as long as they are"}'] * 10)
REQUEST = (
    b"GET /api/v1/chats/?since=0&limit=10 HTTP/1.1\r\nHost: bench\r\nUser-Agent: guard\r\n"
    b"Accept: */*\r\nAuthorization: Bearer abcdefghijklmnopqrstuvwxyz\r\n\r\n"
)

Serve = Callable[[bytes], bytes]
"""Takes a request and returns the response."""


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


def ours() -> Serve:
    """chatd's HTTP server and dispatch."""
    clock: Any = Clock()
    dispatch = Dispatch(Ours(), clock=clock, metrics=Metrics())
    return _over(Server(resource=dispatch, clock=clock, limits=HTTPLimits(), problem=problem))


def stock() -> Serve:
    """twisted.web and Klein, unmodified."""
    return _over(Site(Stock().app.resource(), reactor=Clock()))


def _over(factory: Any) -> Serve:
    protocol = factory.buildProtocol(None)
    transport: Any = StringTransport()
    protocol.makeConnection(transport)

    def serve(request: bytes) -> bytes:
        transport.clear()
        protocol.dataReceived(request)
        response: bytes = transport.value()
        return response

    return serve


def seconds(serve: Serve) -> float:
    """CPU time of `REQUESTS` requests."""
    began = time.process_time()
    for _ in range(REQUESTS):
        serve(REQUEST)
    return time.process_time() - began


def ratio() -> float:
    """CPU time of the stock server divided by that of chatd's."""
    contestants = [ours(), stock()]
    best = [float("inf")] * 2
    for _ in range(ROUNDS):
        for number, serve in enumerate(contestants):
            gc.collect()
            best[number] = min(best[number], seconds(serve))
    return best[1] / best[0]


def main() -> None:
    """Print the ratio."""
    for serve in (ours(), stock()):
        response = serve(REQUEST)
        assert response.startswith(b"HTTP/1.1 200 OK\r\n"), response
        assert PAGE in response, response
    print(f"{ratio():.2f}")


if __name__ == "__main__":
    main()
