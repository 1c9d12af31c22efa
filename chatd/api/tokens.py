"""`/api/v1/tokens`: log in and out."""

from __future__ import annotations

from msgspec import Struct

from chatd.api.calls import BUSY, ResponseSpec, call
from chatd.api.client_address import TrustedProxies
from chatd.api.context import RequestContext
from chatd.api.fields import Time, UserId
from chatd.api.rendering import document, timestamp
from chatd.api.responses import JSONResponse, Response, no_content
from chatd.domain.accounts import Accounts
from chatd.errors import NotAToken, RateLimited, Unauthorized
from chatd.model import Session


class LogIn(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /tokens/`."""

    username: str
    password: str


class Token(Struct, forbid_unknown_fields=True, frozen=True):
    """A new token; this is the only time it is shown."""

    token: str
    user_id: UserId
    created_at: Time


class TokenCalls:
    """The calls of `/api/v1/tokens`."""

    def __init__(self, accounts: Accounts, proxies: TrustedProxies) -> None:
        self._accounts = accounts
        self._proxies = proxies

    @call(
        "POST",
        "/api/v1/tokens",
        summary="Log in",
        description="Issues a token for `Authorization: Bearer`.",
        tag="Tokens",
        body=LogIn,
        responses={201: ResponseSpec("The token.", (Token,))},
        raises=(Unauthorized, RateLimited, *BUSY),
    )
    async def log_in(self, context: RequestContext, body: LogIn) -> Response:
        address = self._proxies.address(context.request)
        issued = await self._accounts.log_in(body.username, body.password, address)
        token = Token(issued.token, issued.user_id, timestamp(issued.created_at))
        return JSONResponse(201, document(token))

    @call(
        "DELETE",
        "/api/v1/tokens",
        summary="Log out",
        description="Revokes the token of the request and ends the polls made with it.",
        tag="Tokens",
        responses={204: ResponseSpec("The token is revoked.")},
        raises=(NotAToken, *BUSY),
        authenticated=True,
    )
    async def log_out(self, context: RequestContext, session: Session) -> Response:
        await self._accounts.log_out(session)
        return no_content()
