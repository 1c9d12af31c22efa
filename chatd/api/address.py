"""`GET /api/v1/address`: as whom the service sees the caller."""

from __future__ import annotations

from msgspec import Struct

from chatd.api.calls import ResponseSpec, call
from chatd.api.client_address import TrustedProxies
from chatd.api.context import RequestContext
from chatd.api.rendering import document
from chatd.api.responses import JSONResponse, Response


class ClientAddress(Struct, forbid_unknown_fields=True):
    """The address by which rate limits count the caller; `local` for a Unix socket."""

    address: str


class AddressCalls:
    """The call that shows whether the proxies in between are set up right."""

    def __init__(self, proxies: TrustedProxies) -> None:
        self._proxies = proxies

    @call(
        "GET",
        "/api/v1/address",
        summary="The caller's address as the service sees it",
        description="Behind a proxy it is that of the client only if the operator has named the "
        "proxy as trusted; otherwise all clients share the limits of the proxy.",
        tag="Operations",
        responses={200: ResponseSpec("The address.", (ClientAddress,))},
    )
    async def get_address(self, context: RequestContext) -> Response:
        return JSONResponse(200, document(ClientAddress(self._proxies.address(context.request))))
