"""Types that several request and response bodies have in common."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from chatd.model import MAX_INTEGER

UserId = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
Seq = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
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
CursorText = Annotated[
    str,
    Meta(
        description="An opaque place in the caller's inbox. Pass it on as it is.",
        examples=["tbig6ymlfvvr5mzb-13-644de85af3a20"],
    ),
]


class Message(Struct, forbid_unknown_fields=True):
    """A message; `seq` is its place in the recipient's inbox: 1, 2, 3 ... without gaps.

    `edited_at` is present if the sender has edited it; `deleted_at` if they have deleted it, and
    then `message` is empty.
    """

    seq: Seq
    sent_by: UserId
    message: str
    sent_at: Time
    received_by: UserId
    edited_at: Time | UnsetType = UNSET
    deleted_at: Time | UnsetType = UNSET
