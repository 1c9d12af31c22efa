"""Results of store calls, built in the same way for every database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final, TypeVar

from chatd.errors import (
    Blocked,
    DomainError,
    FirstContactClosed,
    IdempotencyKeyReused,
    InboxFull,
    InboxStorageFull,
    InvalidQuery,
    MessageDeleted,
    MessageNotFound,
    NotTheSender,
    TooLate,
    TooManyBlocks,
    UsernameTaken,
    UserNotFound,
)
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
    Revision,
    text_size,
)

T = TypeVar("T")

MessageState = tuple[str, int | None, int | None]
"""The text, `edited_at` and `deleted_at` of a message."""

KEY_SECONDS: Final = 48 * 3600
"""How long an Idempotency-Key is kept; the API promises at least 24 hours."""

RANDOM_MICROSECONDS: Final = 256
"""Times of messages grow by a random number up to this where the clock does not let them grow."""

MAX_BLOCKS: Final = 10_000
"""Accounts that one account can block: the response that lists them has no pages."""


def first_use(draft: Draft, seq: int, sent_at: int) -> Appended:
    """The result of a draft that was stored as a new message."""
    return Appended(_message(draft, seq, sent_at), replayed=False)


def replayed(
    draft: Draft, fingerprint: bytes, seq: int, sent_at: int, state: MessageState | None = None
) -> Appended | IdempotencyKeyReused:
    """The result of a draft whose key was used before, by a request with that fingerprint.

    `state` is the message as it is now, None if it is as it was sent or its inbox is gone.
    """
    if draft.idempotency is None or draft.idempotency.fingerprint != fingerprint:
        return IdempotencyKeyReused("this key was used for a message that differs")
    # Since the fingerprints are equal, the draft has the recipient and text of the first message.
    first = _message(draft, seq, sent_at)
    if state is not None:
        text, edited_at, deleted_at = state
        first = Message(draft.received_by, seq, draft.sent_by, sent_at, text, edited_at, deleted_at)
    return Appended(first, replayed=True)


def new_messages(results: Iterable[Appended | DomainError]) -> list[Message]:
    """The messages that an append stored."""
    return [
        result.message for result in results if isinstance(result, Appended) and not result.replayed
    ]


def user_not_found(user_id: int) -> UserNotFound:
    """The error for a recipient without an inbox, or another account that does not exist."""
    return UserNotFound(f"there is no user {user_id}")


def blocked(received_by: int) -> Blocked:
    """The error for a sender whom the recipient has blocked."""
    return Blocked(f"user {received_by} does not receive messages from this account")


def first_contact_closed(received_by: int) -> FirstContactClosed:
    """The error for a sender whom the recipient does not know."""
    return FirstContactClosed(f"user {received_by} has to write to this account first")


def inbox_full(received_by: int) -> InboxFull:
    """The error for an inbox with as many messages as it may have."""
    return InboxFull(f"the inbox of user {received_by} is full")


def inbox_storage_full(received_by: int) -> InboxStorageFull:
    """The error for an inbox whose texts would be larger than they may be."""
    return InboxStorageFull(f"the inbox of user {received_by} has no room for this message")


def past_the_end() -> InvalidQuery:
    """The error for the removal of more messages than an inbox has."""
    return InvalidQuery("up_to: past the end of the inbox")


def growth(revision: Revision, message: Message) -> int:
    """By how many bytes a revision enlarges the message's inbox, if it is applied."""
    return text_size(revision.text or "") - text_size(message.text)


def too_many_blocks() -> TooManyBlocks:
    """The error for an account with `MAX_BLOCKS` blocks."""
    return TooManyBlocks(f"an account can block {MAX_BLOCKS} others")


def check_revision(
    revision: Revision, message: Message | None, now: int, is_blocked: bool, room: int
) -> DomainError | None:
    """Why a message cannot be revised; None if it can, or if there is nothing to change.

    `message` is the one that the revision names, None if there is none or its inbox is gone;
    `is_blocked` is whether its recipient has blocked its sender, `room` how many bytes are free in
    its inbox. See `IStore.revise`.
    """
    if message is None or revision.revised_by not in (message.sent_by, message.received_by):
        return MessageNotFound("the caller has neither sent nor received such a message")
    if revision.revised_by != message.sent_by:
        return NotTheSender("somebody else has sent this message")
    if message.deleted_at is not None:
        return None if revision.text is None else MessageDeleted("there is no text to change")
    if revision.within is not None and now - message.sent_at > revision.within:
        return TooLate(f"messages can be changed for {revision.within // 1_000_000} seconds")
    if is_blocked and revision.text is not None:
        return blocked(message.received_by)
    # What does not enlarge the inbox is possible also if it has more than it may have by now.
    if growth(revision, message) > max(room, 0):
        return inbox_storage_full(message.received_by)
    return None


def changes(revision: Revision, message: Message) -> bool:
    """Whether a revision without an error changes the message."""
    return message.deleted_at is None and revision.text != message.text


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


def position(query: ReadAfter | ReadPage, last: int) -> int:
    """The seq of the cursor that a query continues from, or the last seq if it names none."""
    seq = query.seq if isinstance(query, ReadAfter) else query.at
    return last if seq is None else seq


def inbox_slice(
    query: ReadAfter | ReadPage, last: int, messages: Iterable[Message], stamp: int | None
) -> InboxSlice:
    """The result of a query, from messages in the order of seq; pages are newest first."""
    if isinstance(query, ReadPage):
        return InboxSlice(last, tuple(messages)[::-1], stamp)
    found, _ = within(messages, query.limit, query.max_bytes, text_of)
    return InboxSlice(last, tuple(found), stamp)


def within(
    found: Iterable[T], limit: int, max_bytes: int, text: Callable[[T], str | None]
) -> tuple[list[T], bool]:
    """The first `limit` of what a query finds, and whether there is more.

    They end with the one with which their texts have `max_bytes`. Not more than one after those is
    taken from the iterator.
    """
    taken: list[T] = []
    for each in found:
        if len(taken) == limit or max_bytes <= 0:
            return taken, True
        taken.append(each)
        content = text(each)
        if content is not None:
            # `text_size` without a call.
            max_bytes -= len(content) if content.isascii() else text_size(content)
    return taken, False


text_of: Final[Callable[[Message], str | None]] = attrgetter("text")
"""The text of a message, for `within`."""


def conversation_slice(
    query: ReadConversation, messages: Iterable[Message], peer_exists: bool
) -> ConversationSlice:
    """A conversation, from the messages in its order."""
    found, older = within(messages, query.limit, query.max_bytes, text_of)
    return ConversationSlice(tuple(found), older, peer_exists)


def merge_directions(
    query: ReadConversation, messages: list[Message], peer_exists: bool
) -> ConversationSlice:
    """A conversation, from the newest messages of either direction, up to `limit` + 1 of each."""
    messages.sort(key=ConversationCursor.of, reverse=True)
    return conversation_slice(query, messages, peer_exists)
