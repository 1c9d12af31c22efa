"""`/api/v1/users`: register, look up and delete accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct

from chatd.api.calls import BUSY, ResponseSpec, call
from chatd.api.client_address import TrustedProxies
from chatd.api.context import RequestContext
from chatd.api.fields import Time, UserId
from chatd.api.parameters import HeaderValues, Parameters, integer, text
from chatd.api.rendering import document, timestamp
from chatd.api.responses import JSONResponse, Response, no_content
from chatd.domain.accounts import Accounts
from chatd.errors import (
    InvalidQuery,
    RateLimited,
    RegistrationClosed,
    UsernameTaken,
    UserNotFound,
)
from chatd.model import MAX_INTEGER, Account, Session

# The domain checks these; decoding does not, so that its messages are the same for all clients.
Username = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9._-]{1,32}$"})]
Email = Annotated[
    str, Meta(extra_json_schema={"pattern": "^[^@\\u0000]+@[^@\\u0000]+$", "maxLength": 254})
]
NewPassword = Annotated[str, Meta(extra_json_schema={"minLength": 5, "maxLength": 1024})]


class Registration(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /users/`."""

    username: Username
    email: Email
    password: NewPassword


class User(Struct, forbid_unknown_fields=True, frozen=True):
    """An account."""

    id: UserId
    username: str
    email: str
    date_joined: Time
    last_seen_at: Time | None

    @classmethod
    def of(cls, account: Account) -> User:
        """The account as clients see it."""
        seen = account.last_seen_at
        return cls(
            account.id,
            account.username,
            account.email,
            timestamp(account.date_joined),
            None if seen is None else timestamp(seen),
        )


class UserQuery(Struct, frozen=True):
    """Which account `GET /users/` looks up; the caller's own by default."""

    user_id: Annotated[int | None, integer("user_id", "The account of this id.", MAX_INTEGER)] = (
        None
    )
    username: Annotated[
        str | None, text("username", "The account of this name, whatever its case.")
    ] = None


def _choose(texts: Mapping[str, str], headers: HeaderValues) -> type[UserQuery]:
    if len(texts) > 1:
        raise InvalidQuery("user_id and username cannot be combined")
    return UserQuery


class UserCalls:
    """The calls of `/api/v1/users`."""

    def __init__(self, accounts: Accounts, proxies: TrustedProxies) -> None:
        self._accounts = accounts
        self._proxies = proxies

    @call(
        "POST",
        "/api/v1/users",
        summary="Make an account",
        tag="Users",
        body=Registration,
        responses={
            201: ResponseSpec("The account.", (User,), {"Location": "Where the account is."})
        },
        raises=(RegistrationClosed, UsernameTaken, RateLimited, *BUSY),
    )
    async def register(self, context: RequestContext, body: Registration) -> Response:
        address = self._proxies.address(context.request)
        account = await self._accounts.register(body.username, body.email, body.password, address)
        location = b"/api/v1/users/?user_id=%d" % account.id
        return JSONResponse(201, document(User.of(account)), {b"Location": location})

    @call(
        "GET",
        "/api/v1/users",
        summary="Look up an account",
        description="The caller's own, unless `user_id` or `username` names another.",
        tag="Users",
        parameters=Parameters(UserQuery, choose=_choose),
        responses={200: ResponseSpec("The account.", (User,))},
        raises=(UserNotFound, *BUSY),
        authenticated=True,
    )
    async def get_user(
        self, context: RequestContext, session: Session, query: UserQuery
    ) -> Response:
        if query.user_id is not None:
            account = await self._accounts.by_id(query.user_id)
        elif query.username is not None:
            account = await self._accounts.by_name(query.username)
        else:
            account = await self._accounts.caller(session)
        return JSONResponse(200, document(User.of(account)))

    @call(
        "DELETE",
        "/api/v1/users",
        summary="Delete the caller's account",
        description="With its tokens and its inbox. What it sent stays where it was received.",
        tag="Users",
        responses={204: ResponseSpec("It is gone.")},
        raises=BUSY,
        authenticated=True,
    )
    async def delete_user(self, context: RequestContext, session: Session) -> Response:
        await self._accounts.delete(session)
        return no_content()
