"""Changes of accounts in SQLite: recorded in the transactions that cause them, and read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import Final

from chatd.model import ChangesPosition, Message
from chatd.model_sync import ChangesSlice, ReadChanges
from chatd.store import sync_statements
from chatd.store.results import RANDOM_MICROSECONDS, text_of, within
from chatd.store.sqlite.messages import (
    last_indexed,
    last_message,
    last_unindexed,
    sent_between,
)
from chatd.store.sqlite.transactions import snapshot, transaction
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
_SUMMARIES: Final = f"INSERT INTO conversation_summary ({sync_statements.SUMMARY})"
_CHANGE: Final = "INSERT INTO change (user_id, kind, peer, seq, number)"
_ROWS: Final = 200
_LOG: Final = f"""
{_CHANGE} VALUES (?, ?, ?, ?, ?)
ON CONFLICT (user_id, kind, peer, seq) DO UPDATE SET number = excluded.number
"""
# Of each peer: the last message in either direction, and how far the peer has received and read.
# One statement, because all others wait for it and an account may have ten thousand peers; the
# newest messages of its inbox, which are not indexed yet, are read once.
_STATE: Final = f"""
WITH peers (peer) AS MATERIALIZED (
    SELECT received_by FROM contact WHERE sent_by = :user_id
    UNION
    SELECT sent_by FROM contact WHERE received_by = :user_id
), new (sent_by, seq) AS MATERIALIZED (
    SELECT sent_by, max(seq) FROM message
    WHERE received_by = :user_id AND seq > (SELECT indexed_seq FROM inbox WHERE user_id = :user_id)
    GROUP BY sent_by
), state AS MATERIALIZED (
    SELECT peers.peer,
        coalesce(new.seq, {last_indexed(":user_id", "peers.peer")}, 0) AS received,
        CASE WHEN inbox.user_id IS NULL THEN 0 ELSE coalesce(
            {last_unindexed("peers.peer", ":user_id", "inbox.indexed_seq")},
            {last_indexed("peers.peer", ":user_id")}, 0
        ) END AS sent,
        coalesce(delivered.seq, 0) AS delivered_upto,
        coalesce(theirs.read_seq, 0) AS read_upto
    FROM peers
    LEFT JOIN new ON new.sent_by = peers.peer
    LEFT JOIN inbox ON inbox.user_id = peers.peer
    LEFT JOIN delivered ON delivered.user_id = peers.peer
    LEFT JOIN conversation_summary AS theirs
        ON theirs.user_id = peers.peer AND theirs.peer = :user_id
)
SELECT peer, received,
    (SELECT sent_at FROM message WHERE received_by = :user_id AND seq = received),
    sent, (SELECT sent_at FROM message WHERE received_by = peer AND seq = sent),
    max(delivered_upto, read_upto), read_upto
FROM state
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
            states = db.execute(_STATE, {"user_id": user_id}).fetchall()
            summaries = [_summary(db, user_id, *state) for state in states]
            number = self._next_time()
            delivered = [each["peer"] for each in summaries if each["peer_delivered"]]
            changes = [
                (user_id, PEER, peer, 0, number + place)
                for place, peer in enumerate(delivered, start=1)
            ]
            db.execute("INSERT INTO sync_state VALUES (?, ?)", (user_id, number + len(changes)))
            _add(db, _SUMMARIES, [tuple(each.values()) for each in summaries])
            _add(db, _CHANGE, changes)
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

    def _log(
        self, db: sqlite3.Connection, user_id: int, kind: str, peer: int, seq: int = 0
    ) -> None:
        (number,) = db.execute(_NUMBER, (self._next_time(), user_id)).fetchone()
        db.execute(_LOG, (user_id, kind, peer, seq, number))


def _summary(
    db: sqlite3.Connection,
    user_id: int,
    peer: int,
    received_seq: int,
    received_at: int | None,
    sent_seq: int,
    sent_at: int | None,
    delivered_upto: int,
    read_upto: int,
) -> dict[str, int]:
    """The row of a conversation with a peer who has received and read up to a place."""
    return {
        "user_id": user_id,
        "peer": peer,
        "last_at": max(received_at or 0, sent_at or 0),
        **sync_statements.EMPTY_SUMMARY,
        "received_seq": received_seq,
        "received_at": received_at or 0,
        "sent_seq": sent_seq,
        "sent_at": sent_at or 0,
        "logged_after": sent_seq,
        "peer_delivered": _last_upto(db, peer, user_id, sent_seq, delivered_upto),
        "peer_read": _last_upto(db, peer, user_id, sent_seq, read_upto),
    }


def _add(db: sqlite3.Connection, insert: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows, many by one statement: each step of one has to wait for Python's lock."""
    for part in (rows[begin : begin + _ROWS] for begin in range(0, len(rows), _ROWS)):
        row = f"({', '.join('?' * len(part[0]))})"
        values = [value for each in part for value in each]
        db.execute(f"{insert} VALUES {', '.join([row] * len(part))}", values)


def _last_upto(db: sqlite3.Connection, received_by: int, sent_by: int, last: int, upto: int) -> int:
    """The last message from `sent_by` up to a seq, where `last` is the last of all; 0 for none."""
    if not last or not upto:
        return 0
    return last if upto >= last else last_message(db, received_by, sent_by, upto)[0]


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
    # Otherwise messages may be moved into the index meanwhile, and be found twice.
    with snapshot(db):
        return _read_changes(db, query)


def _read_changes(db: sqlite3.Connection, query: ReadChanges) -> ChangesSlice | None:
    row = db.execute(_LAST_CHANGE, (query.user_id,)).fetchone()
    if row is None:
        return None
    if query.after is None:
        return ChangesSlice((), (), ChangesPosition(row[0]), False)
    sync_statements.check_position(query.after, row[0])
    old: list[Message] = []
    sent = query.after.sent
    if sent is not None:
        with closing(_old_messages(db, query.user_id, sent)) as found:
            old, more = within(found, query.limit, query.max_bytes, text_of)
        sent = (old[-1].received_by, old[-1].seq) if more else None
    left = sync_statements.after_messages(query, old)
    if sent is not None:
        return sync_statements.changes_slice(left, old, sent, ())
    with closing(db.execute(_CHANGES, changes_parameters(left))) as rows:
        return sync_statements.changes_slice(left, old, sent, rows)


def _old_messages(
    db: sqlite3.Connection, user_id: int, after: tuple[int, int]
) -> Generator[Message, None, None]:
    """Messages that an account sent before it had changes, by recipient and seq."""
    peer, seq = after
    for recipient, end in db.execute(_OLD_PEERS, (user_id, peer)):
        yield from sent_between(db, recipient, user_id, seq if recipient == peer else 0, end)
