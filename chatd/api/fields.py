"""The shapes of answers, as types: what `chatd.api.rendering` renders by hand, said once more.

The API description is made of them, and the tests decode real answers with them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from chatd.api.rendering import UserId
from chatd.model import MAX_INTEGER

Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Time = Annotated[
    str,
    Meta(
        pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$",
        description="UTC, in whole seconds.",
        examples=["2026-11-22T12:00:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]
Cursor = Annotated[
    str,
    Meta(
        description="An opaque place in the caller's inbox. Pass it on as it is.",
        examples=["tbig6ymlfvvr5mzb-13"],
    ),
]


class User(Struct, forbid_unknown_fields=True):
    """An account."""

    id: UserId
    username: str
    email: str
    date_joined: Time
    last_seen_at: Time | None


class Token(Struct, forbid_unknown_fields=True):
    """A fresh token; it is shown this once."""

    token: str
    user_id: UserId
    created_at: Time


class Message(Struct, forbid_unknown_fields=True):
    """A message; `seq` is its place in the recipient's inbox: 1, 2, 3 ... without gaps."""

    seq: UserId
    sent_by: UserId
    message: str
    sent_at: Time
    received_by: UserId


class PageMeta(Struct, forbid_unknown_fields=True):
    """Where in the inbox the page is; `took` is milliseconds of work."""

    count: Count
    next: int | None
    current_page: str
    took: Count
    previous: int | None
    cursor: Cursor


class Page(Struct, forbid_unknown_fields=True):
    """A page of the inbox, newest first."""

    meta: PageMeta
    messages: list[Message]


class PollMeta(Struct, forbid_unknown_fields=True):
    """How the wait ended; `waited` and `took` are milliseconds.

    `more` says that there are messages after the last one: ask again now.
    """

    count: Count
    cursor: Cursor
    more: bool
    timed_out: bool
    waited: Count
    took: Count
    wait_applied: int | UnsetType = UNSET
    superseded: bool | UnsetType = UNSET


class Poll(Struct, forbid_unknown_fields=True):
    """Messages after `since`, oldest first; empty when the wait is over."""

    meta: PollMeta
    messages: list[Message]


class ConversationMeta(Struct, forbid_unknown_fields=True):
    """`older` goes into the `before` of the next request; null at the beginning."""

    older: str | None
    took: Count


class Conversation(Struct, forbid_unknown_fields=True):
    """What the caller and another user sent each other, newest first."""

    meta: ConversationMeta
    messages: list[Message]


class Health(Struct, forbid_unknown_fields=True):
    """The process turns."""

    status: Literal["ok"]


class Readiness(Struct, forbid_unknown_fields=True):
    """The process should be sent requests."""

    status: Literal["ready"]


class Problem(Struct):
    """An error (RFC 9457). Programs match on `code`, which is stable; `detail` is for people."""

    type: str
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    code: str
