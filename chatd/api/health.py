"""`/healthz` and `/readyz`, on the public and the operators' listener."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal

from msgspec import Struct

from chatd.api.calls import ResponseSpec, call
from chatd.api.context import RequestContext
from chatd.api.error_codes import NotReady
from chatd.api.rendering import document
from chatd.api.responses import JSONResponse, Response


class Health(Struct, forbid_unknown_fields=True, frozen=True):
    """The process responds."""

    status: Literal["ok"]


class Readiness(Struct, forbid_unknown_fields=True, frozen=True):
    """The process should be sent requests."""

    status: Literal["ready"]


_HEALTHY: Final = JSONResponse(200, document(Health("ok")))
_READY: Final = JSONResponse(200, document(Readiness("ready")))


class HealthCalls:
    """Liveness and readiness; `ready` returns the reasons why the process is not ready."""

    def __init__(self, ready: Callable[[], Awaitable[list[str]]]) -> None:
        self._ready = ready

    @call(
        "GET",
        "/healthz",
        summary="Liveness check",
        tag="Operations",
        responses={200: ResponseSpec("The process responds.", (Health,))},
    )
    async def healthz(self, context: RequestContext) -> Response:
        return _HEALTHY

    @call(
        "GET",
        "/readyz",
        summary="Readiness check",
        tag="Operations",
        responses={200: ResponseSpec("The process should be sent requests.", (Readiness,))},
        raises=(NotReady,),
    )
    async def readyz(self, context: RequestContext) -> Response:
        if reasons := await self._ready():
            raise NotReady(reasons)
        return _READY
