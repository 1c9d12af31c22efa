"""Conversations in SQLite: both directions of what two accounts sent each other, merged."""

from __future__ import annotations

import sqlite3
from typing import Final

from chatd.model import ConversationSlice, Message, ReadConversation
from chatd.store.outcomes import merged
from chatd.store.sqlite_chats import last_seq

# Within an inbox the order of seq is the order of commit, so the index gives both.
_DIRECTION: Final = (
    "SELECT received_by, seq, sent_by, sent_at, text FROM message"
    " WHERE received_by = ? AND sent_by = ? AND (sent_at, seq) < (?, ?)"
    " ORDER BY sent_at DESC, seq DESC LIMIT ?"
)


def conversation(db: sqlite3.Connection, query: ReadConversation) -> ConversationSlice | None:
    """See `IStore.conversation`: one read transaction, one index range a direction."""
    db.execute("BEGIN")
    try:
        if last_seq(db, query.user_id) is None:
            return None
        peer_exists = last_seq(db, query.peer) is not None
        found = _direction(db, query, received_by=query.user_id, sent_by=query.peer)
        # Messages of a deleted inbox may still be there, waiting to be purged.
        if peer_exists and query.peer != query.user_id:
            found += _direction(db, query, received_by=query.peer, sent_by=query.user_id)
    finally:
        db.execute("COMMIT")
    return merged(query, found, peer_exists)


def _direction(
    db: sqlite3.Connection, query: ReadConversation, *, received_by: int, sent_by: int
) -> list[Message]:
    """Up to one more than the limit: the one too many tells that there is more."""
    sent_at, seq = query.bound(received_by)
    rows = db.execute(_DIRECTION, (received_by, sent_by, sent_at, seq, query.limit + 1))
    return [Message(*row) for row in rows]
