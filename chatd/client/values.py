"""Values that the client returns; their fields are named as in the API."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field


class User(Struct, frozen=True):
    """An account. Times are in UTC; `last_seen_at` is None before the first request."""

    id: int
    username: str
    email: str
    date_joined: datetime
    last_seen_at: datetime | None


class Token(Struct, frozen=True):
    """A token of the account, without itself; `current` is that of the client.

    `last_used_at` may be a minute old, and is None before the first use; `expires_at` is None if
    the token never expires.
    """

    id: int
    label: str | None
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    current: bool


class Message(Struct, frozen=True):
    """A message. `seq` numbers the inbox of `received_by`: 1, 2, 3 ... without gaps."""

    seq: int
    sent_by: int
    text: str = field(name="message")
    sent_at: datetime
    received_by: int


class Sent(Struct, frozen=True):
    """A stored message; `replayed` if an earlier send with the same key had stored it."""

    message: Message
    replayed: bool


class Page(Struct, frozen=True):
    """A page of the inbox, newest first; `next` and `previous` are page numbers or None.

    `count` messages were in the inbox at `cursor`: `follow(since=cursor)` continues from there.
    """

    messages: tuple[Message, ...]
    count: int
    next: int | None
    previous: int | None
    cursor: str


class Conversation(Struct, frozen=True):
    """The messages between the caller and another user, newest first.

    Pass `older` as `before` to the next call; it is None at the beginning of the conversation.
    """

    messages: tuple[Message, ...]
    older: str | None


class Poll(Struct, frozen=True):
    """The result of one poll, oldest message first.

    `count` is the number of messages in the inbox, `waited` the seconds that the poll was held.
    `retry_after`, in seconds, is set when an overloaded or stopping service asks for a pause.
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
    """How far an inbox has been read: save it, and follow on from it after a restart.

    `cursor` belongs to the last response that was read completely, `seq` to the last message that
    was taken, None before the first. The string form fits on one line of a file.
    """

    cursor: str
    seq: int | None = None

    def __str__(self) -> str:
        return self.cursor if self.seq is None else f"{self.cursor}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Parse the string form, or a bare cursor."""
        cursor, colon, seq = text.partition(":")
        if not colon:
            return cls(cursor)
        if not (seq.isascii() and seq.isdigit()):
            raise ValueError(f"{text!r} is not a position")
        return cls(cursor, int(seq))
