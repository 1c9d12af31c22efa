"""`PATCH` and `DELETE /api/v1/chats`: edit and delete a message, remove received ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Struct

from chatd.api.calls import BUSY, ResponseSpec, call
from chatd.api.chats_send import Text
from chatd.api.client_address import TrustedProxies
from chatd.api.context import RequestContext
from chatd.api.fields import Message, Seq, UserId
from chatd.api.parameters import HeaderValues, Parameters, integer, is_present, reject
from chatd.api.rendering import RenderMessage
from chatd.api.responses import JSONResponse, Response, no_content
from chatd.domain.removals import Removals
from chatd.domain.revisions import Revisions
from chatd.errors import (
    Blocked,
    InboxStorageFull,
    InsufficientStorage,
    MessageDeleted,
    MessageNotFound,
    MessageTooLarge,
    NotTheSender,
    RateLimited,
    TooLate,
)
from chatd.model import MAX_INTEGER, Scope, Session


class Edit(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `PATCH /chats/`: the recipient, the `seq` that the send returned, the text."""

    user_id: UserId
    seq: Seq
    message: Text


class Deletion(Struct, frozen=True):
    """The message that `DELETE /chats/` deletes."""

    user_id: Annotated[int, integer("user_id", "The recipient of the message.", MAX_INTEGER)]
    seq: Annotated[int, integer("seq", "The `seq` that the send returned.", MAX_INTEGER)]


class Removal(Struct, frozen=True):
    """The messages that `DELETE /chats/` removes instead."""

    up_to: Annotated[
        int,
        integer(
            "up_to",
            "Instead of `user_id` and `seq`: the `seq` of the last message to be removed from the "
            "beginning of the caller's inbox.",
            MAX_INTEGER,
        ),
    ]


def _choose(texts: Mapping[str, str], headers: HeaderValues) -> type[Struct]:
    if "up_to" in texts:
        reject(texts, ("user_id", "seq"), "up_to")
        return Removal
    return Deletion


def _scope(query: bytes) -> Scope:
    return Scope.ACCOUNT if is_present(query, "up_to") else Scope.SEND


class RevisionCalls:
    """The calls that change and remove messages."""

    def __init__(
        self,
        revisions: Revisions,
        removals: Removals,
        render: RenderMessage,
        proxies: TrustedProxies,
    ) -> None:
        self._revisions = revisions
        self._removals = removals
        self._render = render
        self._proxies = proxies

    @call(
        "PATCH",
        "/api/v1/chats",
        summary="Edit a message",
        description="By its sender. The message keeps its place; everybody who reads it from now "
        "on gets the new text, and `edited_at`. The old text is not kept. The same text again "
        "changes nothing. It counts as a message sent where those are limited (429).",
        tag="Chats",
        body=Edit,
        responses={200: ResponseSpec("The message.", (Message,))},
        raises=(
            MessageTooLarge,
            MessageNotFound,
            NotTheSender,
            MessageDeleted,
            TooLate,
            Blocked,
            InboxStorageFull,
            InsufficientStorage,
            RateLimited,
            *BUSY,
        ),
        authenticated=True,
        scope=Scope.SEND,
    )
    async def edit_message(self, context: RequestContext, session: Session, body: Edit) -> Response:
        address = self._proxies.address(context.request)
        message = await self._revisions.edit(session, body.user_id, body.seq, body.message, address)
        return JSONResponse(200, self._render(message) + b"\n")

    @call(
        "DELETE",
        "/api/v1/chats",
        summary="Delete a message, or remove received ones",
        description="With `user_id` and `seq`, by its sender: the message keeps its place, with an "
        "empty text and `deleted_at`. The text is not kept. This needs the scope `send`. With "
        "`up_to`, by its recipient: the oldest messages of the inbox, whoever has sent them, are "
        "removed as if the operator kept them no longer, also for their senders, and make room "
        "for new ones. `seq`s stay as they are, and a cursor from before expires. This needs the "
        "scope `account`. If there is no response, some of them may be removed. Either can be "
        "repeated, and then changes nothing.",
        tag="Chats",
        parameters=Parameters(Deletion, Removal, choose=_choose),
        responses={204: ResponseSpec("It is deleted, or they are removed.")},
        raises=(
            MessageNotFound,
            NotTheSender,
            TooLate,
            RateLimited,
            *BUSY,
        ),
        authenticated=True,
        scope=_scope,
    )
    async def delete_message(
        self, context: RequestContext, session: Session, query: Deletion | Removal
    ) -> Response:
        if isinstance(query, Removal):
            await self._removals.remove_oldest(session, query.up_to)
        else:
            await self._revisions.delete(session, query.user_id, query.seq)
        return no_content()
