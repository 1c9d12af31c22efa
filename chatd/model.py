"""Value types of the domain, independent of HTTP, SQL and the reactor.

Times are whole microseconds since the Unix epoch (UTC). Ids and sequence numbers are integers
from 1 to 2**53 - 1, so that every JSON parser represents them exactly (contract, General).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, IntFlag
from math import inf
from typing import Final, Literal

from msgspec import Struct

from chatd.errors import InsufficientScope, InvalidCursor

MAX_INTEGER: Final = 2**53 - 1

LOCAL: Final = "local"
"""In place of the address of clients that have none, such as those of a Unix socket."""

_HEX: Final = "[1-9a-f][0-9a-f]{0,13}"
_CONVERSATION_CURSOR: Final = re.compile(rf"({_HEX})\.({_HEX})\.({_HEX})")
_NUMBER: Final = "(0|[1-9][0-9]{0,15})"
_CURSOR: Final = re.compile(
    rf"([a-z2-7]{{8,32}})-{_NUMBER}(?:-(0|{_HEX}))?(?:\.{_NUMBER}(?:\.{_NUMBER}\.{_NUMBER})?)?"
)


_NOT_ISSUED: Final = "this is not a cursor that this service has issued"


class Account(Struct, frozen=True, gc=False):
    """An account without its credentials; `last_seen_at` is None before its first request."""

    id: int
    username: str
    email: str
    date_joined: int
    last_seen_at: int | None


class AccountState(Struct, frozen=True, gc=False):
    """An account as an administrator sees it, how many messages and tokens it has.

    `bytes` are those of the texts of its inbox.
    """

    account: Account
    disabled_at: int | None
    messages: int
    bytes: int
    tokens: int


class Credentials(Struct, frozen=True, gc=False):
    """What a password is checked against: an encoded Argon2id hash, and the owner's id.

    An account that is `disabled` cannot be used, whatever the password.
    """

    user_id: int
    password_hash: str
    disabled: bool = False


ScopeName = Literal["read", "send", "account"]


class Scope(IntFlag):
    """What a session may do. The numbers are stored with tokens."""

    READ = 1
    """Read messages and look up users."""
    SEND = 2
    """Send messages."""
    ACCOUNT = 4
    """Change or delete the account, list and revoke its tokens."""


SCOPES: Final[Mapping[ScopeName, Scope]] = {
    "read": Scope.READ,
    "send": Scope.SEND,
    "account": Scope.ACCOUNT,
}
"""The scopes by the names that clients use."""

ALL_SCOPES: Final = Scope.READ | Scope.SEND | Scope.ACCOUNT


def scope_names(scopes: int) -> list[ScopeName]:
    """The names of all these scopes."""
    return [name for name, scope in SCOPES.items() if scope & scopes]


class Session(Struct, frozen=True, gc=False):
    """An authenticated caller: with the token of this SHA-256 and id, or both None with Basic.

    A session ends at `expires_at` if that is not None, when its token is revoked, or, with Basic,
    when the account's password hash is no longer `password_hash`.
    """

    user_id: int
    token: bytes | None = None
    token_id: int | None = None
    scopes: int = ALL_SCOPES.value
    expires_at: int | None = None
    password_hash: str | None = None

    def seconds_left(self, now: int) -> float:
        """The seconds until the session expires; infinite if it never does."""
        return inf if self.expires_at is None else (self.expires_at - now) / 1_000_000

    def require(self, scope: Scope) -> None:
        """Raise `InsufficientScope` if the session lacks a scope."""
        if not self.scopes & scope.value:
            raise InsufficientScope(scope_names(scope.value)[0])


class TokenOptions(Struct, frozen=True, gc=False):
    """What a client chooses when it gets a token; `lifetime` is in microseconds, None: endless."""

    label: str | None = None
    scopes: Scope = ALL_SCOPES
    lifetime: int | None = None


UNLIMITED: Final = TokenOptions()


class Token(Struct, frozen=True, gc=False):
    """A bearer token as it is stored: `digest` is its SHA-256. Ids are never reused."""

    id: int
    digest: bytes
    label: str | None
    scopes: Scope
    created_at: int
    last_used_at: int | None
    expires_at: int | None


class AddedToken(Struct, frozen=True, gc=False):
    """A token that was stored. With `displaced`, the user has as many as there may be: others may
    have been revoked for it.
    """

    token: Token
    displaced: bool


class IssuedToken(Struct, frozen=True, gc=False):
    """A new bearer token. Only its SHA-256 is stored, so `token` cannot be read again."""

    token: str
    user_id: int
    stored: Token


class AccountChange(Struct, frozen=True, gc=False):
    """A new password hash or email of an account, None where it stays.

    The change is made only if the account still has the hash `verified`, which the caller's
    password was checked against. A new password revokes all tokens but `kept`, a SHA-256.
    """

    user_id: int
    verified: str
    password_hash: str | None = None
    email: str | None = None
    kept: bytes | None = None


class UserName(Struct, frozen=True, gc=False):
    """A user as the directory lists them."""

    id: int
    username: str


class Message(Struct, frozen=True, gc=False):
    """A message in the inbox of `received_by`, where `seq` numbers messages 1, 2, 3 ...

    `edited_at` is the time of the last edit; a deleted message has `deleted_at` and no text. Both
    are None otherwise.
    """

    received_by: int
    seq: int
    sent_by: int
    sent_at: int
    text: str
    edited_at: int | None = None
    deleted_at: int | None = None

    @property
    def is_revised(self) -> bool:
        """Whether it was edited or deleted since it was sent."""
        return self.edited_at is not None or self.deleted_at is not None


class Revision(Struct, frozen=True, gc=False):
    """The wish of `revised_by` to change the text of a message, or with None to delete it.

    It is too late `within` microseconds after the message was sent; None is never.
    """

    revised_by: int
    received_by: int
    seq: int
    text: str | None
    within: int | None = None


class ErasedMessage(Struct, frozen=True, gc=False):
    """Where a message is whose text was deleted because its sender's account was."""

    received_by: int
    seq: int
    sent_by: int


class Erased(Struct, frozen=True, gc=False):
    """What a step of an erasure has deleted; with `more`, another step is due at once."""

    messages: tuple[ErasedMessage, ...] = ()
    more: bool = False


class BlockedUser(Struct, frozen=True, gc=False):
    """An account that somebody has blocked."""

    user_id: int
    username: str


class EncodedRows(Struct, frozen=True, gc=False):
    """`count` rows as the database has encoded them: `text` is a JSON array of objects as the API
    shows them, without white space.

    A list of thousands delays everybody while Python makes objects of it. A database encodes it in
    another process, or without Python's lock.
    """

    count: int
    text: str


class EncodedTokens(EncodedRows, frozen=True, gc=False):
    """The tokens of a user with their digests, and when each was last used, in the same order."""

    digests: list[bytes]
    last_used_at: list[int | None]


class IdempotencyKey(Struct, frozen=True, gc=False):
    """A client's Idempotency-Key and the SHA-256 of the request it was used for."""

    key: str
    fingerprint: bytes


def text_size(text: str) -> int:
    """How many bytes of an inbox a text takes: those of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))


class Draft(Struct, frozen=True, gc=False):
    """A message to be appended to the inbox of `received_by`."""

    sent_by: int
    received_by: int
    text: str
    idempotency: IdempotencyKey | None = None


class InboxLimits(Struct):
    """How many messages an inbox may have, and how many bytes of UTF-8 their texts."""

    messages: int = MAX_INTEGER
    bytes: int = MAX_INTEGER


class Appended(Struct, frozen=True, gc=False):
    """A durable message; `replayed` if an earlier send with the same key has stored it."""

    message: Message
    replayed: bool


class ReadAfter(Struct, frozen=True, gc=False):
    """Query up to `limit` messages after `seq`, oldest first; with None, only the last seq.

    The result ends with the message with which its texts have `max_bytes` of UTF-8.
    """

    user_id: int
    seq: int | None
    limit: int
    max_bytes: int = MAX_INTEGER


class ReadPage(Struct, frozen=True, gc=False):
    """Query page `page` (from 1) of `limit` messages of an inbox, newest first.

    `at` pins the page to the inbox as it was when its last message had this seq.
    """

    user_id: int
    page: int
    limit: int
    at: int | None = None


class InboxSlice(Struct, frozen=True, gc=False):
    """The result of a query: the inbox's last seq and messages, from one snapshot.

    `stamp` is what a cursor carries at the position that the query names: the `sent_at` of the
    message with that seq, or of the last one if the query names none. It is 0 at the beginning, and
    None past the end.
    """

    last_seq: int
    messages: tuple[Message, ...]
    stamp: int | None = 0


class ConversationCursor(Struct, frozen=True, gc=False, order=True):
    """The position of a message in a conversation: by time of commit, then by inbox and seq.

    Clients see it as an opaque string, the `before` parameter of a conversation.
    """

    sent_at: int
    received_by: int
    seq: int

    def __str__(self) -> str:
        return f"{self.sent_at:x}.{self.received_by:x}.{self.seq:x}"

    @classmethod
    def of(cls, message: Message) -> ConversationCursor:
        """The position of a message."""
        return cls(message.sent_at, message.received_by, message.seq)

    @classmethod
    def parse(cls, text: str) -> ConversationCursor:
        """Parse the string form; raises `InvalidCursor` for anything that `str` never returns."""
        match = _CONVERSATION_CURSOR.fullmatch(text)
        numbers = [int(digits, 16) for digits in match.groups()] if match else []
        if not numbers or max(numbers) > MAX_INTEGER:
            raise InvalidCursor("before: not a value that this service has issued")
        return cls(*numbers)


class ReadConversation(Struct, frozen=True, gc=False):
    """Query up to `limit` messages between `user_id` and `peer`, newest first.

    With `before`, only those older than this position. The result ends with the message with which
    its texts have `max_bytes` of UTF-8.
    """

    user_id: int
    peer: int
    limit: int
    before: ConversationCursor | None = None
    max_bytes: int = MAX_INTEGER

    def bound(self, received_by: int) -> tuple[int, int]:
        """The (sent_at, seq) that messages of this inbox older than `before` are below."""
        if self.before is None:
            return MAX_INTEGER, MAX_INTEGER
        if received_by == self.before.received_by:
            return self.before.sent_at, self.before.seq
        # Of two messages of the same time, the one in the inbox with the smaller id is older.
        older = received_by < self.before.received_by
        return self.before.sent_at, MAX_INTEGER if older else 0


class ConversationSlice(Struct, frozen=True, gc=False):
    """Messages of a conversation, newest first; `older` is whether there are older ones.

    `peer_exists` is whether the peer has an account.
    """

    messages: tuple[Message, ...]
    older: bool
    peer_exists: bool


class ChangesPosition(Struct, frozen=True, gc=False):
    """A position in the changes of an account: the client has seen all up to `number`.

    What was sent before the account had changes is read first, by recipient and seq: `sent` is the
    last one that was seen, None when all were.
    """

    number: int
    sent: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{self.number}" if self.sent is None else f"{self.number}.%d.%d" % self.sent


ALL_CHANGES: Final = ChangesPosition(0, (0, 0))
"""Before everything."""


class Cursor(Struct, frozen=True, gc=False):
    """A position in an inbox: the client has seen all messages up to `seq`.

    It is valid in the database history `epoch` only; an empty epoch means the beginning of any
    inbox, `since=0`. A database that is set back to an earlier state keeps its epoch, therefore
    `stamp` says which message was seen at `seq`: its `sent_at`, 0 at the beginning. No message that
    takes its place later has that time. Cursors that older versions have issued have no stamp.

    `changes` is the position in the changes of the account; None if the client has seen none.
    Clients see a cursor as an opaque string (contract, long poll).
    """

    epoch: str
    seq: int
    stamp: int | None = None
    changes: ChangesPosition | None = None

    def __str__(self) -> str:
        if self.stamp is None:
            text = f"{self.epoch}-{self.seq}"
        else:
            text = f"{self.epoch}-{self.seq}-{self.stamp:x}"
        return text if self.changes is None else f"{text}.{self.changes}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Parse the string form; raises `InvalidCursor` for anything that `str` never returns."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise InvalidCursor(_NOT_ISSUED)
        stamp = None if match[3] is None else int(match[3], 16)
        seq, *changes = [int(match[each]) for each in (2, 4, 5, 6) if match[each]]
        if max(seq, stamp or 0, *changes) > MAX_INTEGER:
            raise InvalidCursor(_NOT_ISSUED)
        if not changes:
            return cls(match[1], seq, stamp)
        sent = (changes[1], changes[2]) if len(changes) == 3 else None
        return cls(match[1], seq, stamp, ChangesPosition(changes[0], sent))


BEGINNING: Final = Cursor("", 0)


class WakeReason(Enum):
    """Why a poll stopped waiting."""

    MESSAGE = "message"
    TIMEOUT = "timeout"
    SUPERSEDED = "superseded"
    OVERLOAD = "overload"
    DRAIN = "drain"
