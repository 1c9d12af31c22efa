"""`POST /api/v1/chats`: send a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, get_args

from msgspec import UNSET, Meta, Struct, UnsetType
from twisted.internet.interfaces import IAddress

from chatd.api.calls import BUSY, ResponseSpec, call
from chatd.api.chats_query import MAX_WAIT
from chatd.api.chats_read import ReadCalls
from chatd.api.client_address import TrustedProxies
from chatd.api.context import RequestContext
from chatd.api.fields import Message, UserId
from chatd.api.parameters import IDEMPOTENCY_KEY, Parameters, choice, seconds
from chatd.api.rendering import RenderMessage
from chatd.api.responses import JSONResponse, Response
from chatd.domain.chats import Chats
from chatd.domain.receipts import Receipt, Receipts
from chatd.errors import (
    Blocked,
    FirstContactClosed,
    IdempotencyKeyReused,
    InboxFull,
    InboxStorageFull,
    InsufficientStorage,
    MessageTooLarge,
    RateLimited,
    UserNotFound,
)
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


class SentMessage(Message):
    """A message; with `wait_for`, also whether it was delivered or read."""

    delivered: bool | UnsetType = UNSET
    read: bool | UnsetType = UNSET


class SendParameters(Struct, frozen=True):
    """The parameters and headers that `POST /chats/` understands."""

    wait_for: Annotated[
        Receipt | None,
        choice(
            "wait_for",
            "Answer when the message is delivered, or read, or when the wait is over.",
            get_args(Receipt),
        ),
    ] = None
    wait: Annotated[
        float | None, seconds("wait", "Seconds to wait, up to 55; more is lowered to that.")
    ] = None
    key: Annotated[str | None, IDEMPOTENCY_KEY] = None


SEND_PARAMETERS: Final = Parameters(SendParameters)


class SendCalls:
    """The call that sends messages."""

    def __init__(
        self,
        chats: Chats,
        receipts: Receipts,
        render: RenderMessage,
        reads: ReadCalls,
        proxies: TrustedProxies,
    ) -> None:
        self._reads = reads
        self._proxies = proxies
        self._chats = chats
        self._receipts = receipts
        self._render = render

    @call(
        "POST",
        "/api/v1/chats",
        summary="Send a message",
        description="Answered when the message is durable, not before. With an `Idempotency-Key` "
        "the request can be repeated safely: the message is stored once. With `wait_for` it is "
        "answered when the recipient's client has received the message, or its user has read it; "
        "the message is sent whatever the answer. Messages of an account are limited in number, "
        "texts that are sent or edited from one address in bytes; a request that is refused for "
        "that (429) stores nothing and does not use its key up.",
        tag="Chats",
        parameters=SEND_PARAMETERS,
        body=Send,
        responses={
            201: ResponseSpec("The message.", (SentMessage,)),
            200: ResponseSpec(
                "The message that an earlier request with this key has stored, as it is now.",
                (SentMessage,),
                {"Idempotency-Replayed": "`true`"},
            ),
        },
        raises=(
            MessageTooLarge,
            UserNotFound,
            Blocked,
            FirstContactClosed,
            IdempotencyKeyReused,
            InboxFull,
            InboxStorageFull,
            InsufficientStorage,
            RateLimited,
            *BUSY,
        ),
        authenticated=True,
        scope=Scope.SEND,
    )
    async def send(
        self, context: RequestContext, session: Session, parameters: SendParameters, body: Send
    ) -> Response:
        receipt = parameters.wait_for
        address = self._proxies.address(context.request)
        message = (body.user_id, body.message, parameters.key, address)
        if receipt is None:
            return self.response(await self._chats.send(session, *message))
        # It is held as a poll is.
        place = self._reads.enter(context)
        try:
            await self._receipts.prepare(session)
            sent = await self._chats.send(session, *message)
            wait = min(parameters.wait or 0.0, MAX_WAIT)
            came = await self._receipts.wait(session, sent.message, receipt, wait, context)
        finally:
            self._reads.address_polls.leave(place)
        return self.response(sent, b',"%b":%b' % (receipt.encode(), b"true" if came else b"false"))

    def address(self, peer: IAddress | None, forwarded: Sequence[bytes]) -> str:
        """Whose texts those of a request from `peer` count as, with these values of
        X-Forwarded-For."""
        return self._proxies.client(peer, forwarded)

    def response(self, sent: Appended, receipt: bytes = b"") -> JSONResponse:
        """The response to a message that is durable; `receipt` is a member to be added."""
        document = self._render(sent.message)
        document = b"%b%b}\n" % (document[:-1], receipt) if receipt else document + b"\n"
        if sent.replayed:
            return JSONResponse(200, document, {b"Idempotency-Replayed": b"true"})
        return JSONResponse(201, document)
