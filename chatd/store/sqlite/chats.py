"""Messages in SQLite: functions of a connection that the store runs in its threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Final

from chatd.errors import DomainError
from chatd.model import Appended, Draft, InboxSlice, Message, ReadAfter, ReadPage
from chatd.store.results import first_use, inbox_slice, replayed, user_not_found, wanted_seqs
from chatd.store.sqlite.transactions import transaction
from chatd.store.statements import KEY, MESSAGE

_RANGE: Final = (
    f"SELECT {MESSAGE} FROM message WHERE received_by = ? AND seq >= ? AND seq < ? ORDER BY seq"
)
INDEX_STEP: Final = 128
"""How many messages of an inbox are added to the index of conversations at a time."""

_INDEX: Final = """
INSERT INTO conversation (received_by, sent_by, sent_at, seq)
SELECT received_by, sent_by, sent_at, seq FROM message
WHERE received_by = ? AND seq > ? ORDER BY sent_by, sent_at, seq
"""
_ADD_MESSAGE: Final = f"INSERT INTO message ({MESSAGE}) VALUES (?, ?, ?, ?, ?)"
_ADD_KEY: Final = f"INSERT INTO idempotency ({KEY}) VALUES (?, ?, ?, ?, ?)"


def append(
    db: sqlite3.Connection, drafts: Sequence[Draft], now: int
) -> list[Appended | DomainError]:
    """See `IStore.append`; `now` must not be less than in any earlier call."""
    with transaction(db):
        batch = _Batch(db, now)
        results = [batch.add(draft) for draft in drafts]
        batch.write()
    return results


class _Batch:
    """A batch of drafts, numbered in memory and written at the end, each inbox once.

    The transaction holds SQLite's only write lock, so no inbox can change meanwhile.
    """

    def __init__(self, db: sqlite3.Connection, now: int) -> None:
        self._db = db
        self._now = now
        self._last_seq: dict[int, int | None] = {}
        self._indexed_seq: dict[int, int] = {}
        self._keys: dict[tuple[int, str], tuple[bytes, int, int]] = {}
        self._messages: list[tuple[int, int, int, int, str]] = []
        self._new_keys: list[tuple[int, str, bytes, int, int]] = []

    def add(self, draft: Draft) -> Appended | DomainError:
        """Number a draft and return its result."""
        key = draft.idempotency
        if key is not None:
            first = self._get_first_use(draft.sent_by, key.key)
            if first is not None:
                return replayed(draft, *first)
        last = self._get_last_seq(draft.received_by)
        if last is None:
            return user_not_found(draft)
        seq = self._last_seq[draft.received_by] = last + 1
        self._messages.append((draft.received_by, seq, draft.sent_by, self._now, draft.text))
        if key is not None:
            self._keys[draft.sent_by, key.key] = (key.fingerprint, seq, self._now)
            self._new_keys.append((draft.sent_by, key.key, key.fingerprint, seq, self._now))
        return first_use(draft, seq, self._now)

    def write(self) -> None:
        """Write everything to the database."""
        self._db.executemany(_ADD_MESSAGE, self._messages)
        self._db.executemany(
            "UPDATE inbox SET last_seq = ?, last_sent_at = ?, indexed_seq = ? WHERE user_id = ?",
            [self._inbox_row(user_id) for user_id in {row[0] for row in self._messages}],
        )
        if self._new_keys:
            self._db.executemany(_ADD_KEY, self._new_keys)

    def _inbox_row(self, user_id: int) -> tuple[int, int, int, int]:
        last, indexed = self._last_seq[user_id], self._indexed_seq[user_id]
        assert last is not None
        if last - indexed >= INDEX_STEP:
            self._db.execute(_INDEX, (user_id, indexed))
            indexed = last
        return last, self._now, indexed, user_id

    def _get_last_seq(self, user_id: int) -> int | None:
        if user_id not in self._last_seq:
            row = self._db.execute(
                "SELECT last_seq, indexed_seq FROM inbox WHERE user_id = ?", (user_id,)
            ).fetchone()
            self._last_seq[user_id], self._indexed_seq[user_id] = row or (None, 0)
        return self._last_seq[user_id]

    def _get_first_use(self, sender: int, key: str) -> tuple[bytes, int, int] | None:
        if (sender, key) in self._keys:
            return self._keys[sender, key]
        row: tuple[bytes, int, int] | None = self._db.execute(
            "SELECT fingerprint, seq, sent_at FROM idempotency WHERE sent_by = ? AND key = ?",
            (sender, key),
        ).fetchone()
        return row


def direction(received_by: str, sent_by: str) -> str:
    """SQL for the messages that one user sent to another, see `statements.direction`.

    The newest messages are not in the index yet, so that part of the inbox is searched.
    """
    before = f"< (:{received_by}_time, :{received_by}_seq)"
    return f"""
        SELECT * FROM (
            SELECT {MESSAGE} FROM message
            WHERE received_by = :{received_by} AND sent_by = :{sent_by}
                AND seq > (SELECT indexed_seq FROM inbox WHERE user_id = :{received_by})
                AND (sent_at, seq) {before}
            ORDER BY seq DESC LIMIT :limit
        )
        UNION ALL
        SELECT * FROM (
            SELECT {MESSAGE}
            FROM conversation JOIN message USING (received_by, sent_by, sent_at, seq)
            WHERE received_by = :{received_by} AND sent_by = :{sent_by} AND (sent_at, seq) {before}
            ORDER BY sent_at DESC, seq DESC LIMIT :limit
        )
    """


def last_seq(db: sqlite3.Connection, user_id: int) -> int | None:
    """The seq of the last message of an inbox; None if there is no inbox."""
    row = db.execute("SELECT last_seq FROM inbox WHERE user_id = ?", (user_id,)).fetchone()
    return None if row is None else row[0]


def read(
    db: sqlite3.Connection, queries: Sequence[ReadAfter | ReadPage]
) -> list[InboxSlice | None]:
    """See `IStore.read`; in one transaction, so that all slices belong to one snapshot."""
    db.execute("BEGIN")
    try:
        return [_read_one(db, query) for query in queries]
    finally:
        db.execute("COMMIT")


def _read_one(db: sqlite3.Connection, query: ReadAfter | ReadPage) -> InboxSlice | None:
    last = last_seq(db, query.user_id)
    if last is None:
        return None
    seqs = wanted_seqs(query, last)
    if not seqs:
        return InboxSlice(last, ())
    rows = db.execute(_RANGE, (query.user_id, seqs.start, seqs.stop))
    return inbox_slice(query, last, [Message(*row) for row in rows])


def last_seqs(db: sqlite3.Connection, user_ids: Collection[int]) -> dict[int, int]:
    """See `IStore.last_seqs`."""
    seqs = {user_id: last_seq(db, user_id) for user_id in user_ids}
    return {user_id: seq for user_id, seq in seqs.items() if seq is not None}


def latest_sent_at(db: sqlite3.Connection) -> int:
    """The latest `sent_at` in the database, 0 if there is none."""
    latest: int = db.execute("SELECT coalesce(max(last_sent_at), 0) FROM inbox").fetchone()[0]
    return latest
