"""The shapes of the service's answers, as far as the client reads them."""

from __future__ import annotations

from datetime import datetime
from types import NoneType
from typing import TypeVar, cast

import msgspec
from msgspec import Struct

from chatd.client.backoff import retry_after
from chatd.client.errors import APIError, HistoryChanged, Unreachable
from chatd.client.exchange import Answer
from chatd.client.values import Message

T = TypeVar("T")


class IssuedToken(Struct, frozen=True):
    token: str
    user_id: int
    created_at: datetime


class PageMeta(Struct, frozen=True):
    count: int
    next: int | None
    previous: int | None
    cursor: str


class PageAnswer(Struct, frozen=True):
    meta: PageMeta
    messages: tuple[Message, ...]


class PollMeta(Struct, frozen=True):
    count: int
    cursor: str
    more: bool
    timed_out: bool
    waited: float
    superseded: bool = False


class PollAnswer(Struct, frozen=True):
    meta: PollMeta
    messages: tuple[Message, ...]


class ConversationMeta(Struct, frozen=True):
    older: str | None


class ConversationAnswer(Struct, frozen=True):
    meta: ConversationMeta
    messages: tuple[Message, ...]


class Problem(Struct, frozen=True):
    """RFC 9457 with the service's `code`."""

    title: str = ""
    detail: str = ""
    code: str = ""


def read(answer: Answer, shape: type[T]) -> T:
    """The body of a good answer; raises `Unreachable` if it is none of the service's.

    Where no body is expected the shape is `NoneType`.
    """
    if shape is NoneType:
        return cast(T, None)
    try:
        return msgspec.json.decode(answer.body, type=shape)
    except msgspec.DecodeError as problem:
        raise Unreachable(f"this is no answer of chatd: {problem}") from problem


def refusal(answer: Answer, unix_time: float) -> APIError:
    """The error that an answer with an error status stands for, whoever made it."""
    try:
        problem = msgspec.json.decode(answer.body, type=Problem)
    except msgspec.DecodeError:
        problem = Problem()
    kind = HistoryChanged if problem.code == "cursor_epoch" else APIError
    return kind(
        answer.status,
        problem.code,
        problem.detail or problem.title or f"HTTP {answer.status}",
        retry_after=retry_after(answer.header("Retry-After"), lambda: unix_time),
        request_id=answer.header("X-Request-ID"),
    )
