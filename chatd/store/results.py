"""What a store answers to a draft and to a question, whatever it is kept in."""

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
"""How long an Idempotency-Key is kept; the contract promises at least 24 hours."""


def first_use(draft: Draft, seq: int, sent_at: int) -> Appended:
    """The draft is a message now."""
    return Appended(_message(draft, seq, sent_at), replayed=False)


def replayed(
    draft: Draft, fingerprint: bytes, seq: int, sent_at: int
) -> Appended | IdempotencyKeyReused:
    """The draft's key was used before, for the request of that fingerprint."""
    if draft.idempotency is None or draft.idempotency.fingerprint != fingerprint:
        return IdempotencyKeyReused("this key was used for a message that differs")
    # The same fingerprint, so the request at hand holds the first message's text.
    return Appended(_message(draft, seq, sent_at), replayed=True)


def stored(outcomes: Iterable[Appended | DomainError]) -> list[Message]:
    """The messages that are new."""
    return [
        outcome.message
        for outcome in outcomes
        if isinstance(outcome, Appended) and not outcome.replayed
    ]


def user_not_found(draft: Draft) -> UserNotFound:
    """There is no inbox for the draft."""
    return UserNotFound(f"there is no user {draft.received_by}")


def username_taken(username: str) -> UsernameTaken:
    """The name belongs to an account, be it a deleted one."""
    return UsernameTaken(f"the username {username} is or was somebody's")


def _message(draft: Draft, seq: int, sent_at: int) -> Message:
    return Message(draft.received_by, seq, draft.sent_by, sent_at, draft.text)


def wanted(query: ReadAfter | ReadPage, last: int) -> range:
    """The seqs that are asked for of an inbox whose last message has seq `last`.

    Page N is arithmetic on the dense seq: any depth costs the same.
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
    """The answer of messages in the order of their seq: a page has its newest first."""
    return InboxSlice(last, tuple(messages[::-1] if isinstance(query, ReadPage) else messages))


def merged(query: ReadConversation, found: list[Message], peer_exists: bool) -> ConversationSlice:
    """A conversation of the newest messages of its directions, each with one more than asked."""
    found.sort(key=ConversationCursor.of, reverse=True)
    return ConversationSlice(tuple(found[: query.limit]), len(found) > query.limit, peer_exists)
