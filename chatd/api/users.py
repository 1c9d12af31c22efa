"""`/api/v1/users`: register, look up, change and delete accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from msgspec import Meta, Struct

from chatd.api.calls import BUSY, ResponseSpec, call
from chatd.api.client_address import TrustedProxies
from chatd.api.context import RequestContext
from chatd.api.fields import Time, UserId
from chatd.api.parameters import HeaderValues, Parameters, flag, integer, prefix, reject, text
from chatd.api.rendering import document, timestamp
from chatd.api.responses import JSONResponse, Response, accepted, no_content
from chatd.domain.account_changes import AccountChanges
from chatd.domain.accounts import Accounts
from chatd.errors import (
    DirectoryClosed,
    InsufficientStorage,
    InvalidQuery,
    RateLimited,
    RegistrationClosed,
    UsernameTaken,
    UserNotFound,
    WrongPassword,
)
from chatd.model import MAX_INTEGER, Account, Scope, Session

# The domain checks these; decoding does not, so that its messages are the same for all clients.
Username = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Za-z0-9._-]{1,32}$"})]
_EMAIL_PART: Final = "[^@\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]+"
Email = Annotated[
    str, Meta(extra_json_schema={"pattern": f"^{_EMAIL_PART}@{_EMAIL_PART}$", "maxLength": 254})
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


class UserChange(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `PATCH /users/`: the present password, and what is to be changed."""

    current_password: str
    password: NewPassword | None = None
    email: Email | None = None


class ListedUser(Struct, forbid_unknown_fields=True, frozen=True):
    """A user in the directory."""

    id: UserId
    username: str


class UserList(Struct, forbid_unknown_fields=True, frozen=True):
    """Users in the order of their names."""

    users: list[ListedUser]


_LIMIT: Final = integer("limit", "Users at most, with `prefix`.", 100)


class UserQuery(Struct, frozen=True):
    """Which account `GET /users/` looks up; the caller's own by default.

    The limit is checked and has no effect: clients that are made from the description may send it
    always, since it has a default.
    """

    user_id: Annotated[int | None, integer("user_id", "The account of this id.", MAX_INTEGER)] = (
        None
    )
    username: Annotated[
        str | None, text("username", "The account of this name, whatever its case.")
    ] = None
    limit: Annotated[int, _LIMIT] = 20


class DirectoryQuery(Struct, frozen=True):
    """A search for users by the beginning of their names."""

    prefix: Annotated[
        str, prefix("prefix", "The users whose names begin with this, whatever its case.")
    ]
    limit: Annotated[int, _LIMIT] = 20


class Deletion(Struct, frozen=True):
    """What `DELETE /users/` deletes besides the account."""

    erase: Annotated[
        bool | None, flag("erase", "`true`: what the account has sent is deleted as well.")
    ] = None


def _choose(
    texts: Mapping[str, str], headers: HeaderValues
) -> type[UserQuery] | type[DirectoryQuery]:
    if "prefix" in texts:
        reject(texts, ("user_id", "username"), "prefix")
        return DirectoryQuery
    if "user_id" in texts and "username" in texts:
        raise InvalidQuery("user_id and username cannot be combined")
    return UserQuery


class UserCalls:
    """The calls of `/api/v1/users`."""

    def __init__(
        self, accounts: Accounts, changes: AccountChanges, proxies: TrustedProxies
    ) -> None:
        self._accounts = accounts
        self._changes = changes
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
        raises=(RegistrationClosed, InsufficientStorage, UsernameTaken, RateLimited, *BUSY),
    )
    async def register(self, context: RequestContext, body: Registration) -> Response:
        address = self._proxies.address(context.request)
        account = await self._accounts.register(body.username, body.email, body.password, address)
        location = b"/api/v1/users/?user_id=%d" % account.id
        return JSONResponse(201, document(User.of(account)), {b"Location": location})

    @call(
        "GET",
        "/api/v1/users",
        summary="Look up an account, or search for users",
        description="The caller's own, unless `user_id` or `username` names another. With "
        "`prefix`, where the directory is open, the users whose names begin with it.",
        tag="Users",
        parameters=Parameters(UserQuery, DirectoryQuery, choose=_choose),
        responses={200: ResponseSpec("The account, or the users found.", (User, UserList))},
        raises=(UserNotFound, DirectoryClosed, *BUSY),
        authenticated=True,
        scope=Scope.READ,
    )
    async def get_user(
        self, context: RequestContext, session: Session, query: UserQuery | DirectoryQuery
    ) -> Response:
        if isinstance(query, DirectoryQuery):
            users = await self._accounts.search(session, query.prefix, query.limit)
            found = UserList([ListedUser(user.id, user.username) for user in users])
            return JSONResponse(200, document(found))
        if query.user_id is not None:
            account = await self._accounts.by_id(session, query.user_id)
        elif query.username is not None:
            account = await self._accounts.by_name(session, query.username)
        else:
            account = await self._accounts.caller(session)
        seen = self._accounts.as_seen_by(session, account)
        return JSONResponse(200, document(User.of(seen)))

    @call(
        "PATCH",
        "/api/v1/users",
        summary="Change the caller's password or email",
        description="Needs the present password. A new one ends every other session: all tokens "
        "but the one of the request, and everything that was authenticated with the old "
        "password, with their polls and streams.",
        tag="Users",
        body=UserChange,
        responses={200: ResponseSpec("The account.", (User,))},
        raises=(WrongPassword, RateLimited, *BUSY),
        authenticated=True,
        scope=Scope.ACCOUNT,
    )
    async def change_user(
        self, context: RequestContext, session: Session, body: UserChange
    ) -> Response:
        address = self._proxies.address(context.request)
        account = await self._changes.change(
            session, body.current_password, body.password, body.email, address
        )
        return JSONResponse(200, document(User.of(account)))

    @call(
        "DELETE",
        "/api/v1/users",
        summary="Delete the caller's account",
        description="With its tokens and its inbox. What it sent stays where it was received, "
        "unless `erase=true`: then it is deleted there, too, as `DELETE /chats/` does it. Of an "
        "account that has sent much, that goes on after the response: 202.",
        tag="Users",
        parameters=Parameters(Deletion),
        responses={
            202: ResponseSpec("It is gone, and what it sent will be."),
            204: ResponseSpec("It is gone."),
        },
        raises=BUSY,
        authenticated=True,
        scope=Scope.ACCOUNT,
    )
    async def delete_user(
        self, context: RequestContext, session: Session, query: Deletion
    ) -> Response:
        done = await self._accounts.delete(session, erase=query.erase is True)
        return no_content() if done else accepted()
