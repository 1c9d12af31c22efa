"""`/api/v1/blocks`: whose messages the caller does not want."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from chatd.api.calls import BUSY, ResponseSpec, call
from chatd.api.context import RequestContext
from chatd.api.fields import UserId
from chatd.api.parameters import Parameters, integer
from chatd.api.rendering import array_document
from chatd.api.responses import JSONResponse, Response, no_content
from chatd.domain.blocks import Blocks
from chatd.errors import RateLimited, TooManyBlocks, UserNotFound
from chatd.model import MAX_INTEGER, Scope, Session


class Block(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `PUT /blocks/`."""

    user_id: UserId


class Unblock(Struct, frozen=True):
    """The parameters of `DELETE /blocks/`."""

    user_id: Annotated[int, integer("user_id", "The account.", MAX_INTEGER)]


class BlockedUser(Struct, forbid_unknown_fields=True, frozen=True):
    """An account that the caller has blocked."""

    user_id: UserId
    username: str


class BlockList(Struct, forbid_unknown_fields=True, frozen=True):
    """The accounts that the caller has blocked, without deleted ones, in the order of names."""

    blocks: list[BlockedUser]


class BlockCalls:
    """The calls of `/api/v1/blocks`."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    @call(
        "PUT",
        "/api/v1/blocks",
        summary="Block an account",
        description="What it sends the caller from now on is refused: 403 `blocked`. What it has "
        "sent stays, and it cannot edit that any more. To block it again changes nothing.",
        tag="Blocks",
        body=Block,
        responses={204: ResponseSpec("It is blocked.")},
        raises=(UserNotFound, TooManyBlocks, RateLimited, *BUSY),
        authenticated=True,
        scope=Scope.ACCOUNT,
    )
    async def block(self, context: RequestContext, session: Session, body: Block) -> Response:
        await self._blocks.block(session, body.user_id)
        return no_content()

    @call(
        "DELETE",
        "/api/v1/blocks",
        summary="Unblock an account",
        description="Whether it is blocked or not.",
        tag="Blocks",
        parameters=Parameters(Unblock),
        responses={204: ResponseSpec("It is not blocked.")},
        raises=(RateLimited, *BUSY),
        authenticated=True,
        scope=Scope.ACCOUNT,
    )
    async def unblock(self, context: RequestContext, session: Session, query: Unblock) -> Response:
        await self._blocks.unblock(session, query.user_id)
        return no_content()

    @call(
        "GET",
        "/api/v1/blocks",
        summary="List the blocked accounts",
        tag="Blocks",
        responses={200: ResponseSpec("The accounts that the caller has blocked.", (BlockList,))},
        raises=BUSY,
        authenticated=True,
        scope=Scope.READ,
    )
    async def get_blocks(self, context: RequestContext, session: Session) -> Response:
        found = await self._blocks.blocked(session)
        return JSONResponse(200, array_document(b"blocks", found.text))
