"""Accounts, drafts and expected results for tests of stores."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

import msgspec

from chatd.interfaces import IStore
from chatd.model import (
    UNLIMITED,
    Appended,
    BlockedUser,
    ConversationCursor,
    Draft,
    IdempotencyKey,
    InboxLimits,
    Message,
    ReadAfter,
    ReadConversation,
    Token,
    TokenOptions,
)


class OpenStore(Protocol):
    """Opens a store; with `known_only`, nobody may write first."""

    def __call__(
        self, *, known_only: bool = False, limits: InboxLimits | None = None
    ) -> Awaitable[IStore]: ...


class CopyDatabase(Protocol):
    """Copies a database that is not open; returns what puts the copy back in its place."""

    def __call__(self) -> Awaitable[Callable[[], Awaitable[None]]]: ...


def digest(text: str) -> bytes:
    """A SHA-256, as of a token or a request."""
    return hashlib.sha256(text.encode("utf-8")).digest()


async def add_accounts(store: IStore, *names: str) -> list[int]:
    """Add accounts and return their ids."""
    return [
        (await store.add_account(name, f"{name}@example.org", f"hash of {name}")).id
        for name in names
    ]


async def blocked(store: IStore, user_id: int) -> list[BlockedUser]:
    """Whom a user has blocked."""
    found = await store.blocks(user_id)
    users = msgspec.json.decode(found.text, type=list[BlockedUser])
    assert len(users) == found.count
    return users


async def owners(store: IStore, *digests: bytes) -> list[int | None]:
    """The owner of each token; None for those that are not valid."""
    found = await store.sessions(digests)
    return [None if session is None else session.user_id for session in found]


def draft(sent_by: int, received_by: int, text: str, key: str | None = None) -> Draft:
    """A draft; a key gets a fingerprint of recipient and text, as in `chatd.domain`."""
    if key is None:
        return Draft(sent_by, received_by, text)
    return Draft(sent_by, received_by, text, IdempotencyKey(key, digest(f"{received_by}:{text}")))


def appended(result: object) -> Message:
    """The message of a result, which must not be a replay or an error."""
    assert isinstance(result, Appended)
    assert result.replayed is False
    return result.message


async def send(
    store: IStore, sent_by: int, received_by: int, text: str, key: str | None = None
) -> Message:
    """Append one message."""
    [result] = await store.append([draft(sent_by, received_by, text, key)])
    return appended(result)


async def send_many(store: IStore, sent_by: int, received_by: int, count: int) -> list[Message]:
    """Append numbered messages in one transaction."""
    drafts = [Draft(sent_by, received_by, f"message {number}") for number in range(1, count + 1)]
    return [appended(result) for result in await store.append(drafts)]


async def read_inbox(store: IStore, user_id: int) -> list[Message]:
    """Read a whole inbox, oldest first, and check that it is dense."""
    messages: list[Message] = []
    begins = store.removed.get(user_id, 0)
    while True:
        read = begins + len(messages)
        [found] = await store.read([ReadAfter(user_id, read, 100)])
        assert found is not None
        assert [message.seq for message in found.messages] == list(
            range(read + 1, min(read + 100, found.last_seq) + 1)
        )
        messages += found.messages
        if begins + len(messages) == found.last_seq:
            assert all(message.received_by == user_id for message in messages)
            return messages


async def read_conversation(
    store: IStore, user_id: int, peer: int, limit: int = 100
) -> list[Message]:
    """Read a whole conversation, newest first, `limit` messages at a time."""
    messages: list[Message] = []
    before = None
    while True:
        found = await store.conversation(ReadConversation(user_id, peer, limit, before))
        assert found is not None
        assert len(found.messages) == limit or not found.older
        messages += found.messages
        if not found.older:
            return messages
        before = ConversationCursor.of(messages[-1])


def conversation_of(messages: Collection[Message]) -> list[Message]:
    """The messages in the order of a conversation, newest first."""
    return sorted(messages, key=lambda each: (each.sent_at, each.received_by, each.seq))[::-1]


def page_of(messages: list[Message], page: int, limit: int) -> tuple[Message, ...]:
    """The messages on a page of an inbox, newest first."""
    return tuple(messages[::-1][(page - 1) * limit : page * limit])


TEXTS = {
    "one character": "x",
    "16 KiB of ASCII": "a" * 16384,
    "16 KiB of astral characters": "\U0001f600" * 4096,
    "the last characters of the planes": "\uffff \ufffe \U0010ffff \U0001fffe",
    "right to left with marks": "\u202e\u05e9\u05dc\u05d5\u05dd\u202c \u200f \u0645\u0631\u062d",
    "composed and decomposed, not normalised": "\u00e9 e\u0301 \ufb01 \u212b \uac00 \u1100\u1161",
    "a byte order mark and joiners": "\ufeffa\u200d\u200b\u2060b\ufeff",
    "every C0 and C1 control but NUL": "".join(map(chr, [*range(1, 32), *range(127, 160)])),
    "spaces around": "  \t x \r\n ",
    "line endings of all kinds": "a\nb\r\nc\rd\u2028e\u2029f\x0bg",
    "what SQL and formats would take": "'; DROP TABLE message; -- %s %(a)s {} \\ \\x41"
    " \\' \" $1 :x ?1 {a,b} NULL (1,2) \\N $$",
    "surrogates' neighbours": "\ud7ff\ue000",
    "a number": "007",
}


async def add_token(
    store: IStore, user_id: int, name: str, options: TokenOptions = UNLIMITED
) -> Token:
    """Add the token whose digest is that of `name`."""
    added = await store.add_token(user_id, digest(name), options)
    assert added is not None
    return added.token
