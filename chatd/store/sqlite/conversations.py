"""Lists of conversations and positions in SQLite: functions of a connection."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

from chatd.errors import InvalidBody, UserNotFound
from chatd.model_sync import (
    MAX_UNREAD,
    ConversationList,
    ListConversations,
    MarkRead,
    PeerPositions,
)
from chatd.store.sqlite.changes import Synchronised, merge, positions
from chatd.store.sqlite.messages import indexed_seq, last_message
from chatd.store.sqlite.transactions import snapshot, transaction
from chatd.store.sync_statements import (
    PEER,
    READ,
    conversation_list,
    conversations_parameters,
    conversations_sql,
    listed_conversations,
)

_IS_SYNCHRONISED: Final = "SELECT 1 FROM sync_state WHERE user_id = ?"
_LIST: Final = conversations_sql()
_NEW: Final = "SELECT sent_by, seq FROM message WHERE received_by = ? AND seq > ?"
_UNREAD: Final = f"""
SELECT count(*) FROM (
    SELECT 1 FROM conversation
    WHERE received_by = ? AND sent_by = ? AND (sent_at, seq) > (?, ?) LIMIT {MAX_UNREAD}
)
"""
_READ_POSITION: Final = "SELECT read_seq FROM conversation_summary WHERE user_id = ? AND peer = ?"
_TIME: Final = """
SELECT sent_at FROM message WHERE received_by = ? AND seq <= ? ORDER BY seq DESC LIMIT 1
"""
_HAS_EXISTED: Final = "SELECT 1 FROM account WHERE id = ?"
_LAST: Final = "SELECT last_seq FROM inbox WHERE user_id = ?"
_PEER_POSITIONS: Final = """
SELECT peer_delivered, peer_read FROM conversation_summary WHERE user_id = ? AND peer = ?
"""

FAN_OUT_STEP: Final = 1000
"""A position that moves by more messages is told by contacts instead of by messages."""
MAX_SENDERS: Final = 200
"""Senders who are told of delivered positions in a transaction, or those of one position: some
milliseconds, in which everybody's sends wait."""
_RECENT_SENDERS: Final = """
SELECT sent_by, max(seq) FROM message WHERE received_by = ? AND seq > ? AND seq <= ?
GROUP BY sent_by
"""
_CONTACTS: Final = """
SELECT sent_by FROM contact JOIN sync_state ON user_id = sent_by WHERE received_by = ?
"""
_DELIVERED: Final = """
SELECT inbox.last_seq, coalesce(delivered.seq, 0)
FROM inbox LEFT JOIN delivered USING (user_id) WHERE user_id = ?
"""
_DELIVER: Final = """
INSERT INTO delivered (user_id, seq)
SELECT user_id, ?1 FROM inbox WHERE user_id = ?2 AND last_seq >= ?1
ON CONFLICT (user_id) DO UPDATE SET seq = max(delivered.seq, excluded.seq)
"""


def conversations(db: sqlite3.Connection, query: ListConversations) -> ConversationList | None:
    """See `IStore.conversations`; None if the account is not among the `Synchronised`."""
    with snapshot(db):
        if db.execute(_IS_SYNCHRONISED, (query.user_id,)).fetchone() is None:
            return None
        with closing(db.execute(_LIST, conversations_parameters(query))) as found:
            rows, more = listed_conversations(query, found)
        indexed = indexed_seq(db, query.user_id) or 0
        read = {row[0]: row[3] for row in rows}
        new = Counter(
            [
                sent_by
                for sent_by, seq in db.execute(_NEW, (query.user_id, indexed))
                if seq > read.get(sent_by, seq)
            ]
        )

        def unread(row: tuple[Any, ...]) -> int:
            (old,) = db.execute(_UNREAD, (query.user_id, row[0], row[4], row[3])).fetchone()
            return min(int(old) + new[row[0]], MAX_UNREAD)

        return conversation_list(rows, more, unread)


def mark_read(
    db: sqlite3.Connection, synchronised: Synchronised, query: MarkRead
) -> frozenset[int] | None:
    """See `IStore.mark_read`; the account is among the `Synchronised`."""
    user_id, peer, seq = query.user_id, query.peer, query.seq
    with transaction(db):
        last = db.execute(_LAST, (user_id,)).fetchone()
        if last is None:
            return None
        if seq > last[0]:
            raise InvalidBody("seq: past the end of the inbox")
        if db.execute(_HAS_EXISTED, (peer,)).fetchone() is None:
            raise UserNotFound(f"there is no user {peer}")
        row = db.execute(_READ_POSITION, (user_id, peer)).fetchone()
        if row is not None and row[0] >= seq:
            return frozenset()
        (at,) = db.execute(_TIME, (user_id, seq)).fetchone() or (0,)
        merge(db, {"user_id": user_id, "peer": peer, "read_seq": seq, "read_at": at})
        synchronised.log(db, user_id, READ, peer)
        told = {user_id}
        seen = last_message(db, user_id, peer, seq)[0]
        if _tell(db, synchronised, peer, user_id, seen, seen):
            told.add(peer)
    return frozenset(told)


def _tell(
    db: sqlite3.Connection,
    synchronised: Synchronised,
    user_id: int,
    peer: int,
    delivered: int,
    read: int,
) -> bool:
    """Tell an account how far its messages to `peer` came; False if it knows, or does not ask."""
    if user_id not in synchronised.user_ids:
        return False
    known = db.execute(_PEER_POSITIONS, (user_id, peer)).fetchone() or (0, 0)
    if known[0] >= delivered and known[1] >= read:
        return False
    moved = {"peer_delivered": delivered, "peer_read": read}
    merge(db, {"user_id": user_id, "peer": peer, **moved})
    synchronised.log(db, user_id, PEER, peer)
    return True


def record_delivered(
    db: sqlite3.Connection, synchronised: Synchronised, delivered: Sequence[tuple[int, int]]
) -> tuple[frozenset[int], int]:
    """See `IStore.record_delivered`, for as many positions as should be in a transaction; returns
    who has changes by that, and how many positions those were."""
    told: set[int] = set()
    done = len(delivered)
    with transaction(db):
        if synchronised.user_ids:
            senders = 0
            for place, (user_id, seq) in enumerate(delivered):
                if senders >= MAX_SENDERS:
                    done = place
                    break
                row: Any = db.execute(_DELIVERED, (user_id,)).fetchone()
                if row is None or not row[1] < seq <= row[0]:
                    continue
                for sender, end in _senders(db, user_id, row[1], seq):
                    senders += 1
                    if _tell(db, synchronised, sender, user_id, end, 0):
                        told.add(sender)
        db.executemany(_DELIVER, [(seq, user_id) for user_id, seq in delivered[:done]])
    return frozenset(told), done


def _senders(db: sqlite3.Connection, user_id: int, after: int, upto: int) -> list[tuple[int, int]]:
    """Who sent the messages of a range, at least those who have changes, with the last of each."""
    if upto - after <= FAN_OUT_STEP:
        return db.execute(_RECENT_SENDERS, (user_id, after, upto)).fetchall()
    senders = [row[0] for row in db.execute(_CONTACTS, (user_id,))]
    return [(sender, last_message(db, user_id, sender, upto)[0]) for sender in senders]


def peer_positions(db: sqlite3.Connection, user_id: int, peer: int) -> PeerPositions:
    """See `IStore.peer_positions`."""
    with snapshot(db):
        return PeerPositions(*positions(db, user_id, peer))
