"""Messages in SQLite: functions of a connection that the store runs in its threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Generator, Sequence
from contextlib import ExitStack, closing
from functools import cache
from heapq import merge
from itertools import starmap
from typing import Final

from chatd.errors import DomainError, StoreUnavailable
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
    text_size,
)
from chatd.store.known_pairs import KnownPairs
from chatd.store.results import (
    conversation_slice,
    first_use,
    inbox_full,
    inbox_slice,
    inbox_storage_full,
    new_messages,
    position,
    replayed,
    user_not_found,
    wanted_seqs,
)
from chatd.store.sqlite.changes import Synchronised
from chatd.store.sqlite.contacts import ContactRules
from chatd.store.sqlite.inbox_ends import InboxEnds
from chatd.store.sqlite.revisions import find
from chatd.store.sqlite.transactions import snapshot, transaction
from chatd.store.statements import KEY, MESSAGE, NEW_MESSAGE, kept

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
_ADD_CONTACT: Final = (
    "INSERT INTO contact (sent_by, received_by) VALUES (?, ?) ON CONFLICT DO NOTHING"
)
_ADD_KEY: Final = f"INSERT INTO idempotency ({KEY}) VALUES (?, ?, ?, ?, ?)"

_CHANGED: Final = "another program has changed the database"

_ACCOUNTS: Final = "SELECT id FROM account WHERE id IN (?, ?) AND deleted_at IS NULL"
_PART: Final = f"""
WHERE received_by = :received_by AND sent_by = :sent_by AND (sent_at, seq) < (:time, :seq)
    AND {kept("received_by")}
"""
NEW_OF_CONVERSATION: Final = f"""
SELECT {MESSAGE} FROM message {_PART}
    AND seq > (SELECT indexed_seq FROM inbox WHERE user_id = :received_by)
ORDER BY seq DESC LIMIT :limit
"""
INDEXED_OF_CONVERSATION: Final = f"""
SELECT {MESSAGE} FROM conversation JOIN message USING (received_by, sent_by, sent_at, seq) {_PART}
ORDER BY sent_at DESC, seq DESC LIMIT :limit
"""

_END: Final = "SELECT last_seq, last_sent_at FROM inbox WHERE user_id = ?"
_REMOVED_AT: Final = "SELECT removed_at FROM inbox WHERE user_id = ? AND removed_seq = ?"
_SENT_AT: Final = "SELECT sent_at FROM message WHERE received_by = ? AND seq = ?"


def append(
    db: sqlite3.Connection,
    drafts: Sequence[Draft],
    now: int,
    ends: InboxEnds,
    contacts: ContactRules,
    pairs: KnownPairs,
    synchronised: Synchronised,
) -> list[Appended | DomainError]:
    """See `IStore.append`; `now` must not be less than in any earlier call."""
    try:
        with transaction(db):
            batch = _Batch(db, now, ends, contacts, pairs)
            results = [batch.add(draft) for draft in drafts]
            batch.write()
            if synchronised.user_ids:
                synchronised.log_sent(db, new_messages(results))
    except BaseException:
        ends.clear()
        raise
    ends.update(batch.ends)
    pairs.add(batch.new_pairs)
    return results


class _Batch:
    """A batch of drafts, numbered in memory and written at the end, each inbox once.

    The transaction holds SQLite's only write lock, so no inbox can change meanwhile. Each step of a
    statement gives up the interpreter's lock and waits for it again, so messages are written by
    one statement, and the ends of their inboxes by another.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        now: int,
        ends: InboxEnds,
        contacts: ContactRules,
        pairs: KnownPairs,
    ) -> None:
        self._db = db
        self._contacts = contacts
        self._now = now
        self._known = ends
        self._pairs = pairs
        self.ends: dict[int, tuple[int, int, int]] = {}
        """The new ends of the inboxes."""
        self._last_seqs: dict[int, int] = {}
        self._keys: dict[tuple[int, str], tuple[bytes, int, int]] = {}
        self._messages: list[int | str] = []
        self._new_keys: list[tuple[int, str, bytes, int, int]] = []
        self.new_pairs: set[tuple[int, int]] = set()
        """The (sender, recipient) pairs that may have had no message before."""

    def add(self, draft: Draft) -> Appended | DomainError:
        """Number a draft and return its result."""
        key = draft.idempotency
        if key is not None:
            first = self._get_first_use(draft.sent_by, key.key)
            if first is not None:
                return self._replay(draft, *first)
        user_id = draft.received_by
        end = self.ends.get(user_id) or self._known.get(self._db, user_id)
        if end is None:
            return user_not_found(user_id)
        refusal = self._contacts.refusal(self._db, draft)
        if refusal is not None:
            return refusal
        if self._known.is_full(user_id, end[0]):
            return inbox_full(user_id)
        size = end[2] + text_size(draft.text)
        if size > self._known.limits.bytes:
            return inbox_storage_full(user_id)
        self._last_seqs.setdefault(user_id, end[0])
        seq = end[0] + 1
        self.ends[user_id] = (seq, end[1], size)
        if not self._pairs.has(draft.sent_by, user_id):
            self.new_pairs.add((draft.sent_by, user_id))
        self._messages += (user_id, seq, draft.sent_by, self._now, draft.text)
        if key is not None:
            self._keys[draft.sent_by, key.key] = (key.fingerprint, seq, self._now)
            self._new_keys.append((draft.sent_by, key.key, key.fingerprint, seq, self._now))
        return first_use(draft, seq, self._now)

    def write(self) -> None:
        """Write everything to the database."""
        if not self._messages:
            return
        try:
            self._db.execute(_add_messages(len(self._messages) // 5), self._messages)
        except sqlite3.IntegrityError as problem:  # there is such a message
            raise StoreUnavailable(_CHANGED, 1) from problem
        rows: list[int] = []
        for user_id, (last, indexed, size) in self.ends.items():
            if last - indexed >= INDEX_STEP:
                self._db.execute(_INDEX, (user_id, indexed))
                self.ends[user_id] = (last, last, size)
            rows += (user_id, *self.ends[user_id], self._last_seqs[user_id])
        moved = self._db.execute(_move_inboxes(len(self.ends)), (self._now, *rows)).rowcount
        if moved != len(self.ends):
            raise StoreUnavailable(_CHANGED, 1)
        if self._new_keys:
            self._db.executemany(_ADD_KEY, self._new_keys)
        if self.new_pairs:
            self._db.executemany(_ADD_CONTACT, self.new_pairs)

    def _replay(
        self, draft: Draft, fingerprint: bytes, seq: int, sent_at: int
    ) -> Appended | DomainError:
        message = find(self._db, draft.received_by, seq)
        state = None if message is None else (message.text, message.edited_at, message.deleted_at)
        return replayed(draft, fingerprint, seq, sent_at, state)

    def _get_first_use(self, sender: int, key: str) -> tuple[bytes, int, int] | None:
        if (sender, key) in self._keys:
            return self._keys[sender, key]
        row: tuple[bytes, int, int] | None = self._db.execute(
            "SELECT fingerprint, seq, sent_at FROM idempotency WHERE sent_by = ? AND key = ?",
            (sender, key),
        ).fetchone()
        return row


@cache
def _add_messages(count: int) -> str:
    return f"INSERT INTO message ({NEW_MESSAGE}) VALUES {', '.join(['(?, ?, ?, ?, ?)'] * count)}"


@cache
def _move_inboxes(count: int) -> str:
    return (
        "UPDATE inbox SET last_seq = column2, last_sent_at = ?, indexed_seq = column3,"
        f" text_bytes = column4 FROM (VALUES {', '.join(['(?, ?, ?, ?, ?)'] * count)})"
        # Only this process changes them, so what it knows of them is true.
        " WHERE user_id = column1 AND last_seq = column5"
    )


def conversation(db: sqlite3.Connection, query: ReadConversation) -> ConversationSlice | None:
    """See `IStore.conversation`; in one transaction, and reads no more than it returns."""
    user_id, peer = query.user_id, query.peer
    with snapshot(db), ExitStack() as stack:
        accounts = {row[0] for row in db.execute(_ACCOUNTS, (user_id, peer))}
        if user_id not in accounts:
            return None
        directions = [_direction(db, query, user_id, peer)]
        # Messages to a deleted peer may not have been purged yet.
        if peer in accounts and peer != user_id:
            directions.append(_direction(db, query, peer, user_id))
        for each in directions:
            stack.enter_context(closing(each))
        messages = merge(*directions, key=ConversationCursor.of, reverse=True)
        return conversation_slice(query, messages, peer in accounts)


def _direction(
    db: sqlite3.Connection, query: ReadConversation, received_by: int, sent_by: int
) -> Generator[Message, None, None]:
    """What one user sent another, newest first, read as it is taken."""
    time, seq = query.bound(received_by)
    parameters = {
        "received_by": received_by,
        "sent_by": sent_by,
        "time": time,
        "seq": seq,
        "limit": query.limit + 1,
    }
    # The newest messages are not in the index yet, so that part of the inbox is searched.
    for statement in (NEW_OF_CONVERSATION, INDEXED_OF_CONVERSATION):
        for row in db.execute(statement, parameters):
            yield Message(*row)


def read(
    db: sqlite3.Connection, queries: Sequence[ReadAfter | ReadPage]
) -> list[InboxSlice | None]:
    """See `IStore.read`; in one transaction, so that all slices belong to one snapshot."""
    with snapshot(db):
        return [_read_one(db, query) for query in queries]


def _read_one(db: sqlite3.Connection, query: ReadAfter | ReadPage) -> InboxSlice | None:
    inbox = db.execute(_END, (query.user_id,)).fetchone()
    if inbox is None:
        return None
    last, stamp = inbox
    end = position(query, last)
    if end != last:
        stamp = _stamp(db, query.user_id, end)
    seqs = wanted_seqs(query, last)
    if not seqs:
        return InboxSlice(last, (), stamp)
    rows = db.execute(_RANGE, (query.user_id, seqs.start, seqs.stop))
    if isinstance(query, ReadPage):
        return inbox_slice(query, last, [Message(*row) for row in rows], stamp)
    with closing(rows):
        return inbox_slice(query, last, starmap(Message, rows), stamp)


def _stamp(db: sqlite3.Connection, user_id: int, seq: int) -> int | None:
    """The stamp of a cursor, see `InboxSlice`."""
    if seq == 0:
        return 0
    row = db.execute(_SENT_AT, (user_id, seq)).fetchone()
    if row is None:
        row = db.execute(_REMOVED_AT, (user_id, seq)).fetchone()
    return None if row is None else row[0]


def last_seqs(db: sqlite3.Connection, user_ids: Collection[int]) -> dict[int, int]:
    """See `IStore.last_seqs`."""
    ends = {user_id: db.execute(_END, (user_id,)).fetchone() for user_id in user_ids}
    return {user_id: end[0] for user_id, end in ends.items() if end is not None}


def latest_sent_at(db: sqlite3.Connection) -> int:
    """The latest `sent_at` in the database, 0 if there is none."""
    latest: int = db.execute("SELECT coalesce(max(last_sent_at), 0) FROM inbox").fetchone()[0]
    return latest


def removed(db: sqlite3.Connection) -> dict[int, int]:
    """See `IStore.removed`."""
    return dict(db.execute("SELECT user_id, removed_seq FROM inbox WHERE removed_seq > 0"))
