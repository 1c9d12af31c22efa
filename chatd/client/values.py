"""What the service answers, as values; members are named as in the contract."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field


class User(Struct, frozen=True):
    """An account; times are UTC, `last_seen_at` is None before its first request."""

    id: int
    username: str
    email: str
    date_joined: datetime
    last_seen_at: datetime | None


class Message(Struct, frozen=True):
    """One message; `seq` is its place in the inbox of `received_by`: 1, 2, 3 ... without gaps."""

    seq: int
    sent_by: int
    text: str = field(name="message")
    sent_at: datetime
    received_by: int


class Sent(Struct, frozen=True):
    """A durable message; `replayed` if an earlier send with the same key had stored it."""

    message: Message
    replayed: bool


class Page(Struct, frozen=True):
    """A page of the inbox, newest first; `next` and `previous` are page numbers or None.

    `count` messages were in the inbox at `cursor`: `follow(since=cursor)` continues from here.
    """

    messages: tuple[Message, ...]
    count: int
    next: int | None
    previous: int | None
    cursor: str


class Conversation(Struct, frozen=True):
    """What the caller and another user sent each other, newest first.

    `older` goes into the `before` of the next call; None when this is the beginning.
    """

    messages: tuple[Message, ...]
    older: str | None


class Poll(Struct, frozen=True):
    """The answer of one poll, oldest first. `waited` is seconds, `count` messages in the inbox.

    `retry_after` (seconds) is set when the service, overloaded or stopping, asks for patience.
    """

    messages: tuple[Message, ...]
    cursor: str
    count: int
    more: bool
    timed_out: bool
    superseded: bool
    waited: float
    retry_after: float | None


class Position(Struct, frozen=True):
    """How far a follower has come: write it down, and follow on from it after a restart.

    `cursor` is the service's, of the last answer that was used up; `seq` is that of the last
    message taken, None before the first. As a string it fits into one line of a file.
    """

    cursor: str
    seq: int | None = None

    def __str__(self) -> str:
        return self.cursor if self.seq is None else f"{self.cursor}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read the string form, or a bare cursor."""
        cursor, colon, seq = text.partition(":")
        if not colon:
            return cls(cursor)
        if not (seq.isascii() and seq.isdigit()):
            raise ValueError(f"{text!r} is no position")
        return cls(cursor, int(seq))
