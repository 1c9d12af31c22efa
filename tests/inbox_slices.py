"""What `IStore.read` returns of an inbox with given messages."""

from __future__ import annotations

from collections.abc import Sequence

from chatd.model import InboxSlice, Message, ReadAfter, ReadPage


def stamp_at(inbox: Sequence[Message], seq: int) -> int | None:
    """What a cursor at `seq` carries; None past the end."""
    if seq > len(inbox):
        return None
    return inbox[seq - 1].sent_at if seq else 0


def expected_slice(inbox: Sequence[Message], query: ReadAfter | ReadPage) -> InboxSlice:
    """The result of a query, where `inbox` has all messages in the order of seq."""
    last = len(inbox)
    if isinstance(query, ReadAfter):
        end = last if query.seq is None else query.seq
        return InboxSlice(last, tuple(inbox[end:][: query.limit]), stamp_at(inbox, end))
    end = last if query.at is None else query.at
    newest_first = () if end > last else inbox[:end][::-1]
    first = (query.page - 1) * query.limit
    return InboxSlice(last, tuple(newest_first[first : first + query.limit]), stamp_at(inbox, end))
