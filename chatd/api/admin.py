"""The calls of the operators' listener, which must not be public: metrics and health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import klein

from chatd.api.calls import ResponseSpec, bind, call, calls_of, routes
from chatd.api.context import RequestContext
from chatd.api.health import HealthCalls
from chatd.api.responses import Response
from chatd.metrics import CONTENT_TYPE, Metrics


class MetricsCalls:
    """`GET /metrics`, for Prometheus."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @call(
        "GET",
        "/metrics",
        summary="The metrics of this process",
        responses={200: ResponseSpec("Text exposition format.", media_type="text/plain")},
    )
    async def metrics(self, context: RequestContext) -> Response:
        return klein.Response(200, {"Content-Type": CONTENT_TYPE}, self._metrics.render())


class Admin:
    """The `chatd.api.calls.Application` of the operators' listener."""

    calls: Final = calls_of(MetricsCalls, HealthCalls)
    app: Final = routes(calls)

    def __init__(self, metrics: Metrics, ready: Callable[[], Awaitable[list[str]]]) -> None:
        self.handlers = bind(None, MetricsCalls(metrics), HealthCalls(ready))
