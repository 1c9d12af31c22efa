"""The operators' listener: metrics and health. Never to be reachable by the public."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from klein import Response
from twisted.python.failure import Failure
from twisted.web.server import Request

from chatd.api.api import failed, readiness
from chatd.api.responses import JSONResponse
from chatd.api.routes import on_error, route, routes
from chatd.metrics import CONTENT_TYPE, Metrics


class Admin:
    """`GET /metrics` in the text format of Prometheus, `GET /healthz`, `GET /readyz`."""

    app: Final = routes()

    def __init__(self, metrics: Metrics, ready: Callable[[], Awaitable[list[str]]]) -> None:
        self._metrics = metrics
        self._ready = ready

    @route(app, "GET", "/metrics")
    async def metrics(self, request: Request) -> Response:
        """Everything that is counted."""
        return Response(200, {"Content-Type": CONTENT_TYPE}, self._metrics.render())

    @route(app, "GET", "/healthz")
    async def healthz(self, request: Request) -> Response:
        """The process turns."""
        return JSONResponse(200, b'{"status":"ok"}')

    @route(app, "GET", "/readyz")
    async def readyz(self, request: Request) -> Response:
        """The process should be sent requests."""
        return await readiness(self._ready)

    @on_error(app)
    def error(self, request: Request, failure: Failure) -> Response:
        """Every failure that Klein meets."""
        return failed(request, failure)
