"""Deleting what deleted accounts have sent, in SQLite: a function that the writer thread runs."""

from __future__ import annotations

import sqlite3
from typing import Final

from chatd.model import MAX_INTEGER, Erased, ErasedMessage
from chatd.store.erasure_statements import ERASE_INBOXES, ERASE_MESSAGES, NEXT_PASS, pick
from chatd.store.sqlite.changes import Synchronised
from chatd.store.sqlite.inbox_ends import InboxEnds
from chatd.store.sqlite.messages import indexed_seq
from chatd.store.sqlite.transactions import transaction
from chatd.store.statements import sqlite
from chatd.store.sync_statements import CHANGED

_PICK: Final = sqlite(pick(":now", named=False))
_PICK_NAMED: Final = sqlite(pick(":now", named=True))
_INBOXES: Final = """
SELECT received_by FROM contact WHERE sent_by = ? AND received_by >= ?
ORDER BY received_by LIMIT ?
"""
# In an inbox the orders of `sent_at` and `seq` agree. The index lacks the newest messages.
_SENT: Final = """
SELECT seq, message.sent_at, deleted_at, length(CAST(text AS BLOB))
FROM conversation JOIN message USING (received_by, sent_by, sent_at, seq)
WHERE received_by = :received_by AND sent_by = :sent_by AND (sent_at, seq) > (:at, :seq)
ORDER BY sent_at, seq LIMIT :limit
"""
_SENT_NEW: Final = """
SELECT seq, sent_at, deleted_at, length(CAST(text AS BLOB)) FROM message
WHERE received_by = :received_by AND sent_by = :sent_by AND seq > :indexed
    AND (sent_at, seq) > (:at, :seq)
ORDER BY seq LIMIT :limit
"""
_DELETE: Final = """
UPDATE message SET text = '', deleted_at = max(?, coalesce(edited_at, 0))
WHERE received_by = ? AND seq = ?
"""
_MOVE: Final = "UPDATE erasure SET received_by = ?, sent_at = ?, seq = ? WHERE user_id = ?"
_END_PASS: Final = f"{NEXT_PASS} WHERE user_id = ?"
_END: Final = "DELETE FROM erasure WHERE user_id = ?"


def erase(
    db: sqlite3.Connection,
    synchronised: Synchronised,
    ends: InboxEnds,
    now: int,
    user_id: int | None,
) -> Erased:
    """See `IStore.erase`; `now` must not be less than the time of any message."""
    with transaction(db):
        picked = _PICK if user_id is None else _PICK_NAMED
        row = db.execute(picked, {"now": now, "user_id": user_id}).fetchone()
        if row is None:
            return Erased()
        sender, late, first, sent_at, seq, begin_at = row
        inboxes = db.execute(_INBOXES, (sender, first, ERASE_INBOXES)).fetchall()
        # Where the next step begins, if no inbox is left in the middle.
        end = (inboxes[-1][0] if inboxes else first, MAX_INTEGER, 0)
        ended = len(inboxes) < ERASE_INBOXES
        erased: list[ErasedMessage] = []
        left = ERASE_MESSAGES
        for (inbox,) in inboxes:
            after = (sent_at, seq) if inbox == first else (begin_at, 0)
            found = _sent(db, inbox, sender, after, left)
            for number, _, deleted_at, size in found:
                if deleted_at is None:
                    db.execute(_DELETE, (now, inbox, number))
                    ends.grow(db, inbox, number, -size)
                    synchronised.log(db, inbox, CHANGED, inbox, number)
                    erased.append(ErasedMessage(inbox, number, sender))
            left -= len(found)
            if not left:
                end, ended = (inbox, found[-1][1], found[-1][0]), False
                break
        if not ended:
            db.execute(_MOVE, (*end, sender))
        else:
            db.execute(_END if late else _END_PASS, (sender,))
    return Erased(tuple(erased), user_id is None or not ended)


def _sent(
    db: sqlite3.Connection, received_by: int, sent_by: int, after: tuple[int, int], limit: int
) -> list[tuple[int, int, int | None, int]]:
    """Seq, time, `deleted_at` and bytes of the first messages of a sender after a time and seq."""
    indexed = indexed_seq(db, received_by)
    if indexed is None:  # The inbox of a deleted account goes as a whole.
        return []
    parameters = {"received_by": received_by, "sent_by": sent_by, "at": after[0], "seq": after[1]}
    found = db.execute(_SENT, {**parameters, "limit": limit}).fetchall()
    if len(found) < limit:
        new = {**parameters, "indexed": indexed, "limit": limit - len(found)}
        found += db.execute(_SENT_NEW, new).fetchall()
    return found
