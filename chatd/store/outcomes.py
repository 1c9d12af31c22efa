"""What becomes of a draft, in the words that every store uses."""

from __future__ import annotations

from typing import Final

from chatd.model import (
    Appended,
    ConversationSlice,
    Draft,
    IdempotencyKeyReused,
    Message,
    Place,
    ReadConversation,
    UsernameTaken,
    UserNotFound,
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


def user_not_found(draft: Draft) -> UserNotFound:
    """There is no inbox for the draft."""
    return UserNotFound(f"there is no user {draft.received_by}")


def username_taken(username: str) -> UsernameTaken:
    """The name belongs to an account, be it a deleted one."""
    return UsernameTaken(f"the username {username} is or was somebody's")


def _message(draft: Draft, seq: int, sent_at: int) -> Message:
    return Message(draft.received_by, seq, draft.sent_by, sent_at, draft.text)


def merged(query: ReadConversation, found: list[Message], peer_exists: bool) -> ConversationSlice:
    """A conversation of the newest messages of its directions, each with one more than asked."""
    found.sort(key=Place.of, reverse=True)
    return ConversationSlice(tuple(found[: query.limit]), len(found) > query.limit, peer_exists)
