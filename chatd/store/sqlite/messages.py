"""Finding the messages that one account sent another, in SQLite.

The index of conversations lacks the newest messages of each inbox, so that part of the inbox is
searched; it has a limited length, see `chats.INDEX_STEP`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from typing import Final

from chatd.model import MAX_INTEGER, Message
from chatd.store.statements import MESSAGE

_INDEXED: Final = "SELECT indexed_seq FROM inbox WHERE user_id = ?"
_LAST_NEW: Final = """
SELECT seq, sent_at FROM message
WHERE received_by = ? AND seq > ? AND seq <= ? AND sent_by = ? ORDER BY seq DESC LIMIT 1
"""
# The time of the last message of the inbox at or before a seq.
_TIME: Final = """
(SELECT sent_at FROM message WHERE received_by = :received_by AND seq <= :{0}
 ORDER BY seq DESC LIMIT 1)
"""
_LAST_INDEXED: Final = f"""
SELECT seq, sent_at FROM conversation
WHERE received_by = :received_by AND sent_by = :sent_by
    AND (sent_at, seq) <= ({_TIME.format("upto")}, :upto)
ORDER BY sent_at DESC, seq DESC LIMIT 1
"""
_INDEXED_BETWEEN: Final = f"""
SELECT {MESSAGE} FROM conversation JOIN message USING (received_by, sent_by, sent_at, seq)
WHERE received_by = :received_by AND sent_by = :sent_by
    AND (sent_at, seq) > (coalesce({_TIME.format("after")}, 0), :after)
    AND (sent_at, seq) <= ({_TIME.format("upto")}, :upto)
ORDER BY sent_at, seq
"""
_NEW_BETWEEN: Final = f"""
SELECT {MESSAGE} FROM message
WHERE received_by = ? AND seq > ? AND seq <= ? AND sent_by = ? ORDER BY seq
"""


def last_indexed(received_by: str, sent_by: str) -> str:
    """SQL for the seq of the last message between two users that is in the index."""
    return (
        f"(SELECT seq FROM conversation WHERE received_by = {received_by} AND sent_by = {sent_by}"
        " ORDER BY sent_at DESC, seq DESC LIMIT 1)"
    )


def last_unindexed(received_by: str, sent_by: str, indexed: str) -> str:
    """SQL for the seq of the last message between two users after the seq `indexed`."""
    return (
        f"(SELECT seq FROM message WHERE received_by = {received_by} AND seq > {indexed}"
        f" AND sent_by = {sent_by} ORDER BY seq DESC LIMIT 1)"
    )


def indexed_seq(db: sqlite3.Connection, user_id: int) -> int | None:
    """Up to where an inbox is in the index of conversations; None if there is no inbox."""
    row = db.execute(_INDEXED, (user_id,)).fetchone()
    return None if row is None else row[0]


def last_message(
    db: sqlite3.Connection, received_by: int, sent_by: int, upto: int = MAX_INTEGER
) -> tuple[int, int]:
    """Seq and time of the last message from `sent_by` up to the seq `upto`; zeros if none."""
    indexed = indexed_seq(db, received_by)
    if indexed is None or not upto:
        return 0, 0
    row = db.execute(_LAST_NEW, (received_by, indexed, upto, sent_by)).fetchone()
    if row is None:
        bounds = {"received_by": received_by, "sent_by": sent_by, "upto": upto}
        row = db.execute(_LAST_INDEXED, bounds).fetchone()
    return row or (0, 0)


def sent_between(
    db: sqlite3.Connection, received_by: int, sent_by: int, after: int, upto: int
) -> Generator[Message, None, None]:
    """The messages from `sent_by` after one seq and up to another, in order.

    They are read as they are taken; whoever does not take all closes the generator.
    """
    indexed = indexed_seq(db, received_by)
    if indexed is None:
        return
    if after < indexed:
        bounds = {"received_by": received_by, "sent_by": sent_by, "after": after, "upto": upto}
        for row in db.execute(_INDEXED_BETWEEN, bounds):
            yield Message(*row)
    if upto > indexed:
        for row in db.execute(_NEW_BETWEEN, (received_by, max(after, indexed), upto, sent_by)):
            yield Message(*row)
