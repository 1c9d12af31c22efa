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


class Message(Struct, frozen=True, omit_defaults=True):
    """A message. `seq` numbers the inbox of `received_by`: 1, 2, 3 ... without gaps.

    `edited_at` is None unless the sender has edited it; a deleted message has `deleted_at` and no
    text.
    """

    seq: int
    sent_by: int
    text: str = field(name="message")
    sent_at: datetime
    received_by: int
    edited_at: datetime | None = None
    deleted_at: datetime | None = None


class BlockedUser(Struct, frozen=True):
    """An account that the caller has blocked."""

    user_id: int
    username: str


class Sent(Struct, frozen=True):
    """A stored message; `replayed` if an earlier send with the same key had stored it.

    `received` is whether it was delivered or read in time; None if that was not asked for.
    """

    message: Message
    replayed: bool
    received: bool | None = None


class Page(Struct, frozen=True):
    """A page of the inbox, newest first; `next` and `previous` are page numbers or None.

    They count pages of `limit` messages, which are fewer than were asked for if those were too
    large for one response.

    `count` messages were in the inbox at `cursor`: `follow(since=cursor)` continues from there.
    """

    messages: tuple[Message, ...]
    count: int
    next: int | None
    previous: int | None
    cursor: str
    limit: int


class Conversation(Struct, frozen=True):
    """The messages between the caller and another user, newest first.

    Pass `older` as `before` to the next call; it is None at the beginning of the conversation.
    `peer_read` and `peer_delivered` are places in the other user's inbox: the caller's last
    messages that they have read, and that were delivered to them; 0 for none.
    """

    messages: tuple[Message, ...]
    older: str | None
    peer_read: int = 0
    peer_delivered: int = 0


class ConversationSummary(Struct, frozen=True):
    """A conversation in the list; `username` is None if the other account was deleted.

    `unread` is at most 100, which means that many or more. `read` is a place in the caller's inbox.
    """

    user_id: int
    username: str | None
    last_message: Message
    unread: int
    read: int
    peer_read: int
    peer_delivered: int


class Conversations(Struct, frozen=True):
    """Conversations, the one with the newest message first; pass `older` to the next call."""

    conversations: tuple[ConversationSummary, ...]
    older: str | None


class MessageSent(Struct, frozen=True, tag_field="type", tag="sent"):
    """A change: the account sent a message, from this or another device."""

    message: Message


class MessageChanged(Struct, frozen=True, tag_field="type", tag="changed"):
    """A change: a message that the account sent or received was edited or deleted."""

    message: Message


class ReadMoved(Struct, frozen=True, tag_field="type", tag="read"):
    """A change: what `user_id` sent is read up to `seq` of the account's inbox."""

    user_id: int
    seq: int


class PeerMoved(Struct, frozen=True, tag_field="type", tag="peer"):
    """A change: the last messages of the account that `user_id` has received, and read."""

    user_id: int
    delivered: int
    read: int


Change = MessageSent | MessageChanged | ReadMoved | PeerMoved
"""What has changed, as it is now: a change that is overtaken is told once."""


class Poll(Struct, frozen=True):
    """The result of one poll, oldest message first.

    `count` is the number of messages in the inbox, `waited` the seconds that the poll was held.
    `retry_after`, in seconds, is set when an overloaded or stopping service asks for a pause.
    `changes` are there if they were asked for.
    """

    messages: tuple[Message, ...]
    cursor: str
    count: int
    more: bool
    timed_out: bool
    superseded: bool
    waited: float
    retry_after: float | None
    changes: tuple[Change, ...] = ()


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
