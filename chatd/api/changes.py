"""Changes as JSON, and their description (contract, Changes on the same cursor)."""

from __future__ import annotations

from msgspec import Struct

from chatd.api.fields import Count, Message, UserId
from chatd.api.rendering import RenderMessage
from chatd.model_sync import Change, MessageChange, ReadChange


class SentChange(Struct, forbid_unknown_fields=True, tag_field="type", tag="sent"):
    """The caller sent a message, from any device."""

    message: Message


class ChangedChange(Struct, forbid_unknown_fields=True, tag_field="type", tag="changed"):
    """A message in the caller's inbox, or sent by the caller, was edited or deleted."""

    message: Message


class ReadMoved(Struct, forbid_unknown_fields=True, tag_field="type", tag="read"):
    """The caller has read what a user sent up to `seq` of the caller's inbox, on any device."""

    user_id: UserId
    seq: Count


class PeerMoved(Struct, forbid_unknown_fields=True, tag_field="type", tag="peer"):
    """The last messages of the caller that were delivered to a user, and read by them.

    Both are places in the user's inbox; 0 stands for none.
    """

    user_id: UserId
    delivered: Count
    read: Count


AnyChange = SentChange | ChangedChange | ReadMoved | PeerMoved


def render_change(change: Change, render: RenderMessage) -> bytes:
    """A change as one of the types above, without a line feed."""
    if isinstance(change, MessageChange):
        kind = change.kind.encode("ascii")
        return b'{"type":"%b","message":%b}' % (kind, render(change.message))
    if isinstance(change, ReadChange):
        return b'{"type":"read","user_id":%d,"seq":%d}' % (change.peer, change.seq)
    positions = change.positions
    return b'{"type":"peer","user_id":%d,"delivered":%d,"read":%d}' % (
        change.peer,
        positions.delivered,
        positions.read,
    )
