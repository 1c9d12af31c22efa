"""`/api/v1/conversations`: the list of conversations, and how far they are read."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from twisted.internet.interfaces import IReactorTime

from chatd.api.calls import BUSY, ResponseSpec, call
from chatd.api.context import RequestContext
from chatd.api.fields import Count, Message, Seq, UserId
from chatd.api.parameters import Parameters, cursor, integer
from chatd.api.rendering import RenderMessage
from chatd.api.responses import JSONResponse, Response, no_content
from chatd.domain.conversations import Conversations
from chatd.errors import UserNotFound
from chatd.model import Scope, Session
from chatd.model_sync import MAX_UNREAD, ConversationsCursor, ConversationSummary

_encode = msgspec.json.encode


class ConversationsQuery(Struct, frozen=True):
    """Which conversations are listed."""

    limit: Annotated[int, integer("limit", "Conversations at most.", 100)] = 50
    before: Annotated[
        ConversationsCursor | None,
        cursor(
            "before",
            "The `older` of an earlier response: the conversations after those.",
            ConversationsCursor.parse,
            "^[1-9a-f][0-9a-f]{0,12}[.][1-9a-f][0-9a-f]{0,12}$",
        ),
    ] = None


class ConversationItem(Struct, forbid_unknown_fields=True):
    """A conversation: its other side, its last message, and how far it is read."""

    user_id: UserId
    username: Annotated[str | None, Meta(description="null: the account was deleted")]
    last_message: Message
    unread: Annotated[
        int, Meta(ge=0, le=MAX_UNREAD, description=f"{MAX_UNREAD}: that many or more")
    ]
    read: Annotated[int, Meta(ge=0, description="In the caller's inbox: read up to this `seq`.")]
    peer_read: Annotated[
        int,
        Meta(
            ge=0,
            description="In the other's inbox: the last message of the caller that they have read; "
            "0 for none.",
        ),
    ]
    peer_delivered: Annotated[
        int, Meta(ge=0, description="The same for the last one that was delivered.")
    ]


class ConversationsMeta(Struct, forbid_unknown_fields=True):
    """`older` goes into the `before` of the next request; null at the end."""

    older: str | None
    took: Count


class ConversationsList(Struct, forbid_unknown_fields=True):
    """The caller's conversations, the one with the newest message first."""

    meta: ConversationsMeta
    conversations: list[ConversationItem]


class MarkRead(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `PUT /conversations/read/`."""

    user_id: UserId
    seq: Seq


class ConversationCalls:
    """The calls of `/api/v1/conversations`."""

    def __init__(
        self, conversations: Conversations, render: RenderMessage, *, clock: IReactorTime
    ) -> None:
        self._conversations = conversations
        self._render = render
        self._seconds = clock.seconds

    @call(
        "GET",
        "/api/v1/conversations",
        summary="List conversations",
        description="With whom the caller has exchanged messages, the newest first, with the last "
        "message, the number of unread ones, and how far either side has read.",
        tag="Conversations",
        parameters=Parameters(ConversationsQuery),
        responses={200: ResponseSpec("The conversations.", (ConversationsList,))},
        raises=BUSY,
        authenticated=True,
        scope=Scope.READ,
    )
    async def list_conversations(
        self, context: RequestContext, session: Session, query: ConversationsQuery
    ) -> Response:
        began = self._seconds()
        found = await self._conversations.list(session, query.limit, query.before)
        older = None if found.older is None else str(found.older)
        meta = ConversationsMeta(older, int((self._seconds() - began) * 1000))
        items = b",".join([self._item(each) for each in found.conversations])
        return JSONResponse(200, b'{"meta":%b,"conversations":[%b]}\n' % (_encode(meta), items))

    def _item(self, summary: ConversationSummary) -> bytes:
        return (
            b'{"user_id":%d,"username":%b,"last_message":%b,"unread":%d,"read":%d,"peer_read":%d,'
            b'"peer_delivered":%d}'
        ) % (
            summary.peer,
            _encode(summary.username),
            self._render(summary.last_message),
            summary.unread,
            summary.read,
            summary.peer_read,
            summary.peer_delivered,
        )

    @call(
        "PUT",
        "/api/v1/conversations/read",
        summary="Mark messages as read",
        description="What `user_id` sent the caller is read up to the message `seq` of the "
        "caller's inbox, whoever sent that. A position that is not ahead of the present one has no "
        "effect.",
        tag="Conversations",
        body=MarkRead,
        responses={204: ResponseSpec("It is read.")},
        raises=(UserNotFound, *BUSY),
        authenticated=True,
        scope=Scope.READ,
    )
    async def mark_read(
        self, context: RequestContext, session: Session, body: MarkRead
    ) -> Response:
        await self._conversations.mark_read(session, body.user_id, body.seq)
        return no_content()
