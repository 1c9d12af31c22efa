"""`POST /api/v1/chats`: send a message."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from chatd.api.calls import BUSY, ResponseSpec, call
from chatd.api.context import RequestContext
from chatd.api.fields import Message, UserId
from chatd.api.parameters import IDEMPOTENCY_KEY, Parameters
from chatd.api.rendering import RenderMessage
from chatd.api.responses import JSONResponse, Response
from chatd.domain.chats import Chats
from chatd.errors import IdempotencyKeyReused, MessageTooLarge, RateLimited, UserNotFound
from chatd.model import Appended, Scope, Session

Text = Annotated[
    str,
    Meta(
        description="Not blank, without U+0000, up to 16 KiB of UTF-8 unless configured otherwise.",
        extra_json_schema={
            "minLength": 1,
            "maxLength": 16384,
            "pattern": "^[^\\u0000]*[^\\u0000\\s\\u0085][^\\u0000]*$",
        },
    ),
]


class Send(Struct, forbid_unknown_fields=True, frozen=True):
    """The body of `POST /chats/`."""

    user_id: UserId
    message: Text


class SendHeaders(Struct, frozen=True):
    """The headers that `POST /chats/` understands."""

    key: Annotated[str | None, IDEMPOTENCY_KEY] = None


SEND_PARAMETERS: Final = Parameters(SendHeaders)


class SendCalls:
    """The call that sends messages."""

    def __init__(self, chats: Chats, render: RenderMessage) -> None:
        self._chats = chats
        self._render = render

    @call(
        "POST",
        "/api/v1/chats",
        summary="Send a message",
        description="Answered when the message is durable, not before. With an `Idempotency-Key` "
        "the request can be repeated safely: the message is stored once.",
        tag="Chats",
        parameters=SEND_PARAMETERS,
        body=Send,
        responses={
            201: ResponseSpec("The message.", (Message,)),
            200: ResponseSpec(
                "The message that an earlier request with this key has stored.",
                (Message,),
                {"Idempotency-Replayed": "`true`"},
            ),
        },
        raises=(MessageTooLarge, UserNotFound, IdempotencyKeyReused, RateLimited, *BUSY),
        authenticated=True,
        scope=Scope.SEND,
    )
    async def send(
        self, context: RequestContext, session: Session, headers: SendHeaders, body: Send
    ) -> Response:
        sent = await self._chats.send(session, body.user_id, body.message, headers.key)
        return self.response(sent)

    def response(self, sent: Appended) -> JSONResponse:
        """The response to a message that is durable."""
        document = self._render(sent.message) + b"\n"
        if sent.replayed:
            return JSONResponse(200, document, {b"Idempotency-Replayed": b"true"})
        return JSONResponse(201, document)
