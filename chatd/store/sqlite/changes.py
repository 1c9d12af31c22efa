"""Changes of accounts in SQLite: recorded in the transactions that cause them, and read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

from chatd.model import ChangesPosition, Message
from chatd.model_sync import ChangesSlice, MessageChange, ReadChanges
from chatd.store import sync_statements
from chatd.store.results import RANDOM_MICROSECONDS
from chatd.store.sqlite.messages import last_message, sent_between
from chatd.store.sqlite.transactions import transaction
from chatd.store.sync_statements import (
    PEER,
    SENT,
    changes_parameters,
    changes_sql,
    merge_summary,
)

_CHANGES: Final = changes_sql()
_MERGE: Final = merge_summary("max")
# See `chatd.store.sync_statements`.
_NUMBER: Final = f"""
UPDATE sync_state SET
    last_change = max(?, last_change + 1 + abs(random() % {RANDOM_MICROSECONDS}))
WHERE user_id = ? RETURNING last_change
"""
_LOG: Final = """
INSERT INTO change (user_id, kind, peer, seq, number) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (user_id, kind, peer, seq) DO UPDATE SET number = excluded.number
"""
_PEERS: Final = """
SELECT received_by FROM contact WHERE sent_by = :user_id
UNION
SELECT sent_by FROM contact WHERE received_by = :user_id
"""
_LAST_CHANGE: Final = "SELECT last_change FROM sync_state WHERE user_id = ?"
_OLD_PEERS: Final = """
SELECT peer, logged_after FROM conversation_summary
WHERE user_id = ? AND peer >= ? AND logged_after > 0 ORDER BY peer
"""
_POSITIONS: Final = """
SELECT coalesce((SELECT seq FROM delivered WHERE user_id = :peer), 0),
    coalesce((
        SELECT read_seq FROM conversation_summary WHERE user_id = :peer AND peer = :user_id
    ), 0)
"""


class Synchronised:
    """The accounts that have changes, as the writer's thread knows them.

    Only that thread adds any, so a look into the set is all that others cost. `next_time` returns
    the time of a transaction.
    """

    def __init__(self, db: sqlite3.Connection, next_time: Callable[[], int]) -> None:
        self._next_time = next_time
        self.user_ids: set[int] = {row[0] for row in db.execute("SELECT user_id FROM sync_state")}

    def add(self, db: sqlite3.Connection, user_id: int) -> bool:
        """Record changes of the account from now on; False if there is no such account."""
        if user_id in self.user_ids:
            return True
        with transaction(db):
            if not db.execute("SELECT 1 FROM inbox WHERE user_id = ?", (user_id,)).fetchone():
                return False
            db.execute("INSERT INTO sync_state VALUES (?, ?)", (user_id, self._next_time()))
            for (peer,) in db.execute(_PEERS, {"user_id": user_id}).fetchall():
                self._summarise(db, user_id, peer)
        self.user_ids.add(user_id)
        return True

    def drop(self, user_id: int) -> None:
        """Forget an account that is deleted."""
        self.user_ids.discard(user_id)

    def log(self, db: sqlite3.Connection, user_id: int, kind: str, peer: int, seq: int = 0) -> None:
        """Record a change of an account, if it has changes; call within a transaction."""
        if user_id in self.user_ids:
            self._log(db, user_id, kind, peer, seq)

    def log_sent(self, db: sqlite3.Connection, messages: Iterable[Message]) -> None:
        """Record new messages for their senders and recipients; call within a transaction."""
        for message in messages:
            sender, recipient = message.sent_by, message.received_by
            if sender in self.user_ids:
                self.log(db, sender, SENT, recipient, message.seq)
                sent = {"sent_seq": message.seq, "sent_at": message.sent_at}
                merge(db, {"user_id": sender, "peer": recipient, **sent})
            if recipient in self.user_ids:
                received = {"received_seq": message.seq, "received_at": message.sent_at}
                merge(db, {"user_id": recipient, "peer": sender, **received})

    def _summarise(self, db: sqlite3.Connection, user_id: int, peer: int) -> None:
        received = last_message(db, user_id, peer)
        sent = last_message(db, peer, user_id)
        delivered, read = positions(db, user_id, peer)
        summary = {
            "user_id": user_id,
            "peer": peer,
            "received_seq": received[0],
            "received_at": received[1],
            "sent_seq": sent[0],
            "sent_at": sent[1],
            "logged_after": sent[0],
            "peer_delivered": delivered,
            "peer_read": read,
        }
        merge(db, summary)
        if delivered:
            self._log(db, user_id, PEER, peer)

    def _log(
        self, db: sqlite3.Connection, user_id: int, kind: str, peer: int, seq: int = 0
    ) -> None:
        (number,) = db.execute(_NUMBER, (self._next_time(), user_id)).fetchone()
        db.execute(_LOG, (user_id, kind, peer, seq, number))


def merge(db: sqlite3.Connection, summary: dict[str, int]) -> None:
    """Merge into the row of a conversation: each of its values only grows."""
    db.execute(_MERGE, {**sync_statements.EMPTY_SUMMARY, **summary})


def positions(db: sqlite3.Connection, user_id: int, peer: int) -> tuple[int, int]:
    """The last messages of the user that were delivered to `peer`, and read; 0 for none."""
    if db.execute("SELECT 1 FROM inbox WHERE user_id = ?", (peer,)).fetchone() is None:
        return 0, 0
    delivered, read = db.execute(_POSITIONS, {"user_id": user_id, "peer": peer}).fetchone()
    return (
        last_message(db, peer, user_id, max(delivered, read))[0],
        last_message(db, peer, user_id, read)[0],
    )


def read_changes(db: sqlite3.Connection, query: ReadChanges) -> ChangesSlice | None:
    """See `IStore.changes`; None if the account is not among the `Synchronised`."""
    row = db.execute(_LAST_CHANGE, (query.user_id,)).fetchone()
    if row is None:
        return None
    if query.after is None:
        return ChangesSlice((), (), ChangesPosition(row[0]), False)
    sync_statements.check_position(query.after, row[0])
    found: list[Message] = []
    sent = query.after.sent
    if sent is not None:
        found = _old_messages(db, query.user_id, sent, query.limit)
        sent = (found[-1].received_by, found[-1].seq) if len(found) == query.limit else None
    parameters = changes_parameters(query.user_id, query.after.number, query.limit - len(found))
    rows = db.execute(_CHANGES, parameters).fetchall()
    old = [MessageChange(SENT, message) for message in found]
    return sync_statements.changes_slice(query, old, sent, rows)


def _old_messages(
    db: sqlite3.Connection, user_id: int, after: tuple[int, int], limit: int
) -> list[Message]:
    """Messages that an account sent before it had changes, by recipient and seq."""
    found: list[Message] = []
    peer, seq = after
    for recipient, end in db.execute(_OLD_PEERS, (user_id, peer)):
        begin = seq if recipient == peer else 0
        found += sent_between(db, recipient, user_id, begin, end, limit - len(found))
        if len(found) == limit:
            break
    return found
