"""`/api/v1/tokens`: log in and out, list and revoke tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Final

from msgspec import Meta, Struct

from chatd.api.calls import BUSY, ResponseSpec, call
from chatd.api.client_address import TrustedProxies
from chatd.api.context import RequestContext
from chatd.api.fields import Time, UserId
from chatd.api.parameters import HeaderValues, Parameters, flag, integer
from chatd.api.rendering import array_document, document, timestamp
from chatd.api.responses import JSONResponse, Response, no_content
from chatd.domain.accounts import Accounts
from chatd.domain.tokens import Tokens
from chatd.errors import (
    AccountDisabled,
    InsufficientScope,
    InvalidQuery,
    NotAToken,
    RateLimited,
    TokenNotFound,
    Unauthorized,
)
from chatd.model import (
    ALL_SCOPES,
    MAX_INTEGER,
    SCOPES,
    Scope,
    ScopeName,
    Session,
    TokenOptions,
    scope_names,
)

TokenId = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
Label = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="What the token is for, such as the device.",
        extra_json_schema={"pattern": "^[^\\u0000]*$"},
    ),
]
Lifetime = Annotated[
    int, Meta(ge=60, le=31_536_000, description="Seconds until the token expires.")
]
ChosenScopes = Annotated[
    list[ScopeName],
    Meta(
        min_length=1,
        max_length=len(SCOPES),
        description="What the token is good for: `read` messages and users, `send` messages, "
        "change the `account` and its tokens.",
    ),
]


class LogIn(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /tokens/`; a token is of all scopes and never expires unless chosen."""

    username: str
    password: str
    label: Label | None = None
    expires_in: Lifetime | None = None
    scopes: ChosenScopes | None = None

    @property
    def options(self) -> TokenOptions:
        """What was chosen for the token."""
        scopes = ALL_SCOPES
        if self.scopes is not None:
            # Each once: a body may repeat one thousands of times.
            scopes = reduce(or_, (SCOPES[name] for name in set(self.scopes)))
        lifetime = None if self.expires_in is None else self.expires_in * 1_000_000
        return TokenOptions(self.label, scopes, lifetime)


class Token(Struct, forbid_unknown_fields=True, frozen=True):
    """A new token; this is the only time it is shown. `expires_at` is null if it never expires."""

    token: str
    user_id: UserId
    created_at: Time
    id: TokenId
    label: str | None
    scopes: list[ScopeName]
    expires_at: Time | None


class TokenInfo(Struct, forbid_unknown_fields=True, frozen=True):
    """A token without itself; `current` is true of the one that the request was made with.

    `last_used_at` may be a minute old, and is null before the first use.
    """

    id: TokenId
    label: str | None
    scopes: list[ScopeName]
    created_at: Time
    last_used_at: Time | None
    expires_at: Time | None
    current: bool


class TokenList(Struct, forbid_unknown_fields=True, frozen=True):
    """The caller's tokens, newest first, up to 1,000."""

    tokens: list[TokenInfo]


_NEXT_TOKEN: Final = '},{"id":'
_LAST_USED: Final = ',"last_used_at":'
_EXPIRES: Final = ',"expires_at":'


class RevokeQuery(Struct, frozen=True):
    """Which tokens `DELETE /tokens/` revokes; the one of the request by default."""

    id: Annotated[int | None, integer("id", "The caller's token of this id.", MAX_INTEGER)] = None
    others: Annotated[
        bool | None, flag("others", "`true`: all of the caller's tokens but that of the request.")
    ] = None


def _choose(texts: Mapping[str, str], headers: HeaderValues) -> type[RevokeQuery]:
    if len(texts) > 1:
        raise InvalidQuery("id and others cannot be combined")
    return RevokeQuery


def _timestamp(microseconds: int | None) -> str | None:
    return None if microseconds is None else timestamp(microseconds)


def _with_last_uses(text: str, later: Mapping[int, int]) -> str:
    """The JSON of `EncodedTokens` with these `last_used_at`, by place.

    In it a text can be told from members: the quotation marks in a text are escaped.
    """
    if not later:
        return text
    tokens = text.split(_NEXT_TOKEN)
    for place, used in later.items():
        before, _, after = tokens[place].partition(_LAST_USED)
        _, _, after = after.partition(_EXPIRES)
        tokens[place] = f'{before}{_LAST_USED}"{timestamp(used)}"{_EXPIRES}{after}'
    return _NEXT_TOKEN.join(tokens)


class TokenCalls:
    """The calls of `/api/v1/tokens`."""

    def __init__(self, accounts: Accounts, tokens: Tokens, proxies: TrustedProxies) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._proxies = proxies

    @call(
        "POST",
        "/api/v1/tokens",
        summary="Log in",
        description="Issues a token for `Authorization: Bearer`. An account has up to 1,000 valid "
        "tokens: beyond that the one that was used longest ago is revoked.",
        tag="Tokens",
        body=LogIn,
        responses={201: ResponseSpec("The token.", (Token,))},
        raises=(Unauthorized, AccountDisabled, RateLimited, *BUSY),
    )
    async def log_in(self, context: RequestContext, body: LogIn) -> Response:
        address = self._proxies.address(context.request)
        issued = await self._accounts.log_in(body.username, body.password, address, body.options)
        stored = issued.stored
        token = Token(
            issued.token,
            issued.user_id,
            timestamp(stored.created_at),
            stored.id,
            stored.label,
            scope_names(stored.scopes),
            _timestamp(stored.expires_at),
        )
        return JSONResponse(201, document(token))

    @call(
        "GET",
        "/api/v1/tokens",
        summary="List the caller's tokens",
        description="Those that are valid: who and what is logged in to the account.",
        tag="Tokens",
        responses={200: ResponseSpec("The tokens, newest first.", (TokenList,))},
        raises=BUSY,
        authenticated=True,
        scope=Scope.ACCOUNT,
    )
    async def get_tokens(self, context: RequestContext, session: Session) -> Response:
        tokens, later = await self._tokens.list(session)
        return JSONResponse(200, array_document(b"tokens", _with_last_uses(tokens.text, later)))

    @call(
        "DELETE",
        "/api/v1/tokens",
        summary="Log out, or revoke tokens",
        description="Revokes the token of the request, the one of `id`, or with `others=true` all "
        "others, and ends the polls and streams that were opened with them. A token may always "
        "revoke itself; others need the scope `account`.",
        tag="Tokens",
        parameters=Parameters(RevokeQuery, choose=_choose),
        responses={204: ResponseSpec("They are revoked.")},
        raises=(NotAToken, InsufficientScope, TokenNotFound, *BUSY),
        authenticated=True,
    )
    async def log_out(
        self, context: RequestContext, session: Session, query: RevokeQuery
    ) -> Response:
        if query.others:
            await self._tokens.revoke_others(session)
        elif query.id is not None:
            await self._tokens.revoke(session, query.id)
        else:
            await self._tokens.log_out(session)
        return no_content()
