"""Value types of conversations and changes: what devices need to show the same."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from chatd.errors import InvalidCursor
from chatd.model import MAX_INTEGER, ChangesPosition, Message

MAX_UNREAD: Final = 100
"""Unread messages are counted up to this many."""

_CONVERSATIONS_CURSOR: Final = re.compile(r"([1-9a-f][0-9a-f]{0,13})\.([1-9a-f][0-9a-f]{0,13})")


class ConversationsCursor(Struct, frozen=True, gc=False):
    """The place of a conversation in the list of conversations: by its last message, then peer.

    Clients see it as an opaque string, the `before` parameter of the list.
    """

    last_at: int
    peer: int

    def __str__(self) -> str:
        return f"{self.last_at:x}.{self.peer:x}"

    @classmethod
    def parse(cls, text: str) -> ConversationsCursor:
        """Parse the string form; raises `InvalidCursor` for anything that `str` never returns."""
        match = _CONVERSATIONS_CURSOR.fullmatch(text)
        numbers = [int(digits, 16) for digits in match.groups()] if match else []
        if not numbers or max(numbers) > MAX_INTEGER:
            raise InvalidCursor("before: not a value that this service has issued")
        return cls(*numbers)


class ListConversations(Struct, frozen=True, gc=False):
    """Query up to `limit` conversations of `user_id`, the one with the newest message first.

    The result ends with the message with which its texts have `max_bytes` of UTF-8.
    """

    user_id: int
    limit: int
    before: ConversationsCursor | None = None
    max_bytes: int = MAX_INTEGER


class ConversationSummary(Struct, frozen=True, gc=False):
    """A conversation in the list; `username` is None if the peer's account was deleted.

    `unread` is counted up to `MAX_UNREAD`. `read` is a seq of the owner's inbox, `peer_read` and
    `peer_delivered` of the peer's; 0 for none.
    """

    peer: int
    username: str | None
    last_message: Message
    unread: int
    read: int
    peer_read: int
    peer_delivered: int
    last_at: int


class PeerPositions(Struct, frozen=True, gc=False):
    """The last messages of an account to a peer that were delivered and read; 0 for none."""

    delivered: int = 0
    read: int = 0


class MessageChange(Struct, frozen=True, gc=False):
    """A message that the account sent, from any device (`kind` "sent"), or that was edited or
    deleted ("changed")."""

    kind: str
    message: Message


class ReadChange(Struct, frozen=True, gc=False):
    """The account has read what `peer` sent up to `seq` of its own inbox."""

    peer: int
    seq: int


class PeerChange(Struct, frozen=True, gc=False):
    """What `peer` has received and read of the account's messages."""

    peer: int
    positions: PeerPositions


Change = MessageChange | ReadChange | PeerChange


class ReadChanges(Struct, frozen=True, gc=False):
    """Query up to `limit` changes after a position; None is now, without any changes.

    The result ends with the message with which its texts have `max_bytes` of UTF-8.
    """

    user_id: int
    after: ChangesPosition | None
    limit: int
    max_bytes: int = MAX_INTEGER


class ChangesSlice(Struct, frozen=True, gc=False):
    """Changes, the position after each, the position after all, and whether there are more."""

    changes: tuple[Change, ...]
    positions: tuple[ChangesPosition, ...]
    position: ChangesPosition
    more: bool

    @property
    def messages(self) -> list[Message]:
        """Those of the changes that have one."""
        return [each.message for each in self.changes if isinstance(each, MessageChange)]


class MarkRead(Struct, frozen=True, gc=False):
    """What `peer` sent `user_id` is read up to `seq` of the inbox of `user_id`."""

    user_id: int
    peer: int
    seq: int


class ConversationList(Struct, frozen=True, gc=False):
    """The result of `ListConversations`; `older` is where the next part begins, None at the end."""

    conversations: tuple[ConversationSummary, ...]
    older: ConversationsCursor | None
