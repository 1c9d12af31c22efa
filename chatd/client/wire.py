"""JSON bodies of responses and lines of streams, as far as the client reads them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import NoneType
from typing import Final, TypeVar, cast

import msgspec
from msgspec import Struct

from chatd.client.backoff import parse_retry_after
from chatd.client.errors import APIError, HistoryChanged, Unreachable
from chatd.client.exchange import Response
from chatd.client.values import BlockedUser, Change, ConversationSummary, Message, Token

T = TypeVar("T")


class IssuedToken(Struct, frozen=True):
    token: str
    user_id: int
    created_at: datetime


class TokensBody(Struct, frozen=True):
    tokens: tuple[Token, ...]


class PageMeta(Struct, frozen=True):
    count: int
    next: int | None
    previous: int | None
    cursor: str
    limit: int | None = None


class PageBody(Struct, frozen=True):
    meta: PageMeta
    messages: tuple[Message, ...]


class PollMeta(Struct, frozen=True):
    count: int
    cursor: str
    more: bool
    timed_out: bool
    waited: float
    superseded: bool = False


class PollBody(Struct, frozen=True):
    meta: PollMeta
    messages: tuple[Message, ...]
    changes: tuple[msgspec.Raw, ...] | None = None


class SentBody(Message, frozen=True):
    delivered: bool | None = None
    read: bool | None = None


class ConversationMeta(Struct, frozen=True):
    older: str | None
    peer_read: int = 0
    peer_delivered: int = 0


class ConversationBody(Struct, frozen=True):
    meta: ConversationMeta
    messages: tuple[Message, ...]


class ConversationsBody(Struct, frozen=True):
    meta: ConversationMeta
    conversations: tuple[ConversationSummary, ...]


class BlocksBody(Struct, frozen=True):
    blocks: tuple[BlockedUser, ...]


class Problem(Struct, frozen=True):
    """An RFC 9457 problem document with chatd's `code`."""

    title: str = ""
    detail: str = ""
    code: str = ""


class StreamProblem(Problem, frozen=True, kw_only=True):
    """The problem document that ends a stream, where no status line tells the status."""

    status: int


class StreamLine(Struct, frozen=True):
    """A line of a stream: a message or change and the cursor after it, or one of the others."""

    cursor: str = ""
    message: Message | None = None
    change: msgspec.Raw = msgspec.Raw()
    drain: bool = False
    retry_after: float = 0.0
    superseded: bool = False
    error: StreamProblem | None = None


_LINES: Final = msgspec.json.Decoder(StreamLine)
_CHANGES: Final[msgspec.json.Decoder[Change]] = msgspec.json.Decoder(Change)


def decode(response: Response, body_type: type[T]) -> T:
    """The body of a successful response; `NoneType` where none is expected.

    Raises `Unreachable` if the body is not of that type: it did not come from chatd.
    """
    if body_type is NoneType:
        return cast(T, None)
    try:
        return msgspec.json.decode(response.body, type=body_type)
    except msgspec.DecodeError as error:
        raise Unreachable(f"not a response of chatd: {error}") from error


def decode_line(line: bytes) -> StreamLine:
    """A line of a stream; raises `Unreachable` if it did not come from chatd."""
    try:
        decoded = _LINES.decode(line)
    except msgspec.DecodeError as error:
        raise Unreachable(f"not a line of chatd: {error}") from error
    if (decoded.message or decoded.change) and not decoded.cursor:
        raise Unreachable("not a line of chatd: a message or change without a cursor")
    return decoded


def decode_changes(changes: Iterable[msgspec.Raw]) -> tuple[Change, ...]:
    """Changes, without those of types that this client does not know."""
    found = []
    for raw in changes:
        try:
            found.append(_CHANGES.decode(raw))
        except msgspec.ValidationError:
            continue
    return tuple(found)


def decode_error(response: Response, unix_time: float) -> APIError:
    """The exception for a response with an error status, whether from chatd or from a proxy."""
    try:
        problem = msgspec.json.decode(response.body, type=Problem)
    except msgspec.DecodeError:
        problem = Problem()
    return api_error(
        response.status,
        problem,
        retry_after=parse_retry_after(response.header("Retry-After"), lambda: unix_time),
        request_id=response.header("X-Request-ID"),
    )


def api_error(
    status: int,
    problem: Problem,
    *,
    retry_after: float | None = None,
    request_id: str | None = None,
) -> APIError:
    """The exception for an error that the service reports."""
    lost = problem.code in ("cursor_epoch", "cursor_expired")
    error_type = HistoryChanged if lost else APIError
    return error_type(
        status,
        problem.code,
        problem.detail or problem.title or f"HTTP {status}",
        retry_after=retry_after,
        request_id=request_id,
    )
