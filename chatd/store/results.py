"""Results of store calls, built in the same way for every database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from chatd.errors import DomainError, IdempotencyKeyReused, UsernameTaken, UserNotFound
from chatd.model import (
    Appended,
    ConversationCursor,
    ConversationSlice,
    Draft,
    InboxSlice,
    Message,
    ReadAfter,
    ReadConversation,
    ReadPage,
)

KEY_SECONDS: Final = 48 * 3600
"""How long an Idempotency-Key is kept; the API promises at least 24 hours."""


def first_use(draft: Draft, seq: int, sent_at: int) -> Appended:
    """The result of a draft that was stored as a new message."""
    return Appended(_message(draft, seq, sent_at), replayed=False)


def replayed(
    draft: Draft, fingerprint: bytes, seq: int, sent_at: int
) -> Appended | IdempotencyKeyReused:
    """The result of a draft whose key was used before, by a request with that fingerprint."""
    if draft.idempotency is None or draft.idempotency.fingerprint != fingerprint:
        return IdempotencyKeyReused("this key was used for a message that differs")
    # Since the fingerprints are equal, the draft has the text of the first message.
    return Appended(_message(draft, seq, sent_at), replayed=True)


def new_messages(results: Iterable[Appended | DomainError]) -> list[Message]:
    """The messages that an append stored."""
    return [
        result.message for result in results if isinstance(result, Appended) and not result.replayed
    ]


def user_not_found(draft: Draft) -> UserNotFound:
    """The result of a draft whose recipient has no inbox."""
    return UserNotFound(f"there is no user {draft.received_by}")


def username_taken(username: str) -> UsernameTaken:
    """The error for a name that belongs to an account, possibly a deleted one."""
    return UsernameTaken(f"the username {username} is or was somebody's")


def _message(draft: Draft, seq: int, sent_at: int) -> Message:
    return Message(draft.received_by, seq, draft.sent_by, sent_at, draft.text)


def wanted_seqs(query: ReadAfter | ReadPage, last: int) -> range:
    """The seqs that a query asks for, in an inbox whose last message has seq `last`.

    Since seqs are dense, page N is found by arithmetic and costs the same at any depth.
    """
    if isinstance(query, ReadAfter):
        after = last if query.seq is None else query.seq
        newest = after + query.limit
        return range(after + 1, (newest if newest < last else last) + 1)
    end = last if query.at is None else query.at
    if end > last:
        return range(0)
    newest = end - (query.page - 1) * query.limit
    return range(max(newest - query.limit, 0) + 1, newest + 1)


def inbox_slice(query: ReadAfter | ReadPage, last: int, messages: Sequence[Message]) -> InboxSlice:
    """The result of a query, from messages in the order of seq; pages are newest first."""
    return InboxSlice(last, tuple(messages[::-1] if isinstance(query, ReadPage) else messages))


def merge_directions(
    query: ReadConversation, messages: list[Message], peer_exists: bool
) -> ConversationSlice:
    """A conversation, from the newest messages of either direction, up to `limit` + 1 of each."""
    messages.sort(key=ConversationCursor.of, reverse=True)
    return ConversationSlice(
        tuple(messages[: query.limit]), len(messages) > query.limit, peer_exists
    )
