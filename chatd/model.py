"""Values of the domain; nothing here knows HTTP, SQL or the reactor.

Times are whole microseconds since the Unix epoch (UTC). Ids and sequence numbers are integers
from 1 up to 2**53 - 1, so that every JSON reader holds them exactly (contract, General).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from msgspec import Struct

from chatd.errors import InvalidCursor

MAX_INTEGER: Final = 2**53 - 1

_HEX: Final = "([1-9a-f][0-9a-f]{0,13})"
_PLACE: Final = re.compile(rf"{_HEX}\.{_HEX}\.{_HEX}")
_CURSOR: Final = re.compile(r"([a-z2-7]{8,32})-(0|[1-9][0-9]{0,15})")


class Account(Struct, frozen=True, gc=False):
    """An account as others may see it; `last_seen_at` is None before the first request."""

    id: int
    username: str
    email: str
    date_joined: int
    last_seen_at: int | None


class Credentials(Struct, frozen=True, gc=False):
    """What is needed to check a password: the owner's id and the encoded Argon2id hash."""

    user_id: int
    password_hash: str


class Session(Struct, frozen=True, gc=False):
    """Who is calling; `token` is the SHA-256 of their bearer token, None where they used Basic."""

    user_id: int
    token: bytes | None = None


class IssuedToken(Struct, frozen=True, gc=False):
    """A fresh bearer token; `token` is readable here and nowhere else ever again."""

    token: str
    user_id: int
    created_at: int


class Message(Struct, frozen=True, gc=False):
    """One message in the inbox of `received_by`; `seq` is its place there, dense from 1."""

    received_by: int
    seq: int
    sent_by: int
    sent_at: int
    text: str


class IdempotencyKey(Struct, frozen=True, gc=False):
    """A client's Idempotency-Key and the SHA-256 of the request it stands for."""

    key: str
    fingerprint: bytes


class Draft(Struct, frozen=True, gc=False):
    """A message that is to be appended to the inbox of `received_by`."""

    sent_by: int
    received_by: int
    text: str
    idempotency: IdempotencyKey | None = None


class Appended(Struct, frozen=True, gc=False):
    """A durable message; `replayed` when an earlier send with the same key had stored it."""

    message: Message
    replayed: bool


class ReadAfter(Struct, frozen=True, gc=False):
    """Ask an inbox for up to `limit` messages after `seq`, oldest first; `seq` None: its end."""

    user_id: int
    seq: int | None
    limit: int


class ReadPage(Struct, frozen=True, gc=False):
    """Ask an inbox for page `page` (from 1) of `limit` messages, newest first.

    `at` pins the page to the inbox as it was when its last message had that seq.
    """

    user_id: int
    page: int
    limit: int
    at: int | None = None


class InboxSlice(Struct, frozen=True, gc=False):
    """What an inbox held at one moment: the seq of its last message and the messages asked for."""

    last_seq: int
    messages: tuple[Message, ...]


class ConversationCursor(Struct, frozen=True, gc=False, order=True):
    """A message's place among those of two inboxes: by time of commit, ties by inbox and seq.

    To clients it is one opaque string, the `before` of a conversation.
    """

    sent_at: int
    received_by: int
    seq: int

    def __str__(self) -> str:
        return f"{self.sent_at:x}.{self.received_by:x}.{self.seq:x}"

    @classmethod
    def of(cls, message: Message) -> ConversationCursor:
        """The place of a message."""
        return cls(message.sent_at, message.received_by, message.seq)

    @classmethod
    def parse(cls, text: str) -> ConversationCursor:
        """Read the string form; raises `InvalidCursor` for anything that `str` never makes."""
        match = _PLACE.fullmatch(text)
        numbers = [int(digits, 16) for digits in match.groups()] if match else []
        if not numbers or max(numbers) > MAX_INTEGER:
            raise InvalidCursor("before: not a value that this service has given out")
        return cls(*numbers)


class ReadConversation(Struct, frozen=True, gc=False):
    """Ask for up to `limit` messages that `user_id` and `peer` sent each other, newest first.

    `before` asks for those older than a place; None for the newest.
    """

    user_id: int
    peer: int
    limit: int
    before: ConversationCursor | None = None

    def bound(self, received_by: int) -> tuple[int, int]:
        """What (sent_at, seq) of a message in that inbox must be below to be before `before`."""
        if self.before is None:
            return MAX_INTEGER, MAX_INTEGER
        if received_by == self.before.received_by:
            return self.before.sent_at, self.before.seq
        # Of two messages of one moment the one in the inbox of the smaller id is the older.
        older = received_by < self.before.received_by
        return self.before.sent_at, MAX_INTEGER if older else 0


class ConversationSlice(Struct, frozen=True, gc=False):
    """Messages of a conversation, newest first, and whether there are older ones.

    `peer_exists` tells whether the other one has an account.
    """

    messages: tuple[Message, ...]
    older: bool
    peer_exists: bool


class Cursor(Struct, frozen=True, gc=False):
    """A place in an inbox: everything up to `seq` of the database history `epoch` has been seen.

    To clients it is one opaque string (contract, long poll). Without an epoch it is the
    beginning of any inbox, `since=0`.
    """

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read the string form; raises `InvalidCursor` for anything that `str` never makes."""
        match = _CURSOR.fullmatch(text)
        if match is None or int(match[2]) > MAX_INTEGER:
            raise InvalidCursor("this is not a cursor that this service has given out")
        return cls(match[1], int(match[2]))


BEGINNING: Final = Cursor("", 0)


class WakeReason(Enum):
    """Why a held poll stops waiting."""

    MESSAGE = "message"
    TIMEOUT = "timeout"
    SUPERSEDED = "superseded"
    OVERLOAD = "overload"
    DRAIN = "drain"
