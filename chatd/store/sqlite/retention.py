"""Removal of old messages from SQLite, in small transactions with other writes in between.

First it is stored where inboxes begin now (`removed_seq`), and then, when this process no longer
reads what is before that, the rows are deleted. The order of times is that of seqs, so what is old
is always the beginning of an inbox.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred

from chatd.store.sqlite.transactions import transaction

INBOXES: Final = 200
"""Inboxes that one transaction looks at."""
MESSAGES: Final = 1000
"""Messages that one transaction removes."""
VACUUM_PAGES: Final = 256
SPARE_PAGES: Final = 1024
"""Free pages that are kept for what comes next."""

_INBOXES: Final = (
    "SELECT user_id, removed_seq FROM inbox WHERE user_id > ? ORDER BY user_id LIMIT ?"
)
_OLD: Final = """
SELECT count(*), max(seq), max(sent_at), sum(size) FROM (
    SELECT seq, sent_at, length(CAST(text AS BLOB)) AS size FROM message
    WHERE received_by = ? AND seq > ? ORDER BY seq LIMIT ?
) WHERE sent_at < ?
"""
_ADVANCE: Final = """
UPDATE inbox SET removed_seq = ?, removed_at = ?, text_bytes = text_bytes - ? WHERE user_id = ?
"""

_REMOVED: Final = """
SELECT count(*), max(seq) FROM (
    SELECT seq FROM message WHERE received_by = ? AND seq <= ? ORDER BY seq LIMIT ?
)
"""
_ROWS: Final = "FROM message WHERE received_by = :user_id AND seq <= :upto"
_DELETE: Final = (
    f"""
    DELETE FROM change WHERE (user_id, kind, peer, seq) IN (
        SELECT sent_by, 'sent', received_by, seq {_ROWS}
        UNION ALL SELECT sent_by, 'changed', received_by, seq {_ROWS}
        UNION ALL SELECT received_by, 'changed', received_by, seq {_ROWS}
    )
    """,
    f"""
    DELETE FROM conversation WHERE received_by = :user_id
        AND (sent_by, sent_at, seq) IN (SELECT sent_by, sent_at, seq {_ROWS})
    """,
    f"DELETE {_ROWS}",
)


class Retention:
    """Removes old messages.

    `write` runs a function of a connection in the writer's thread. `removed` is what is known of
    the inboxes, by user; `on_removed` is called with each user whose inbox begins later now, and
    `forget` in the writer's thread.
    """

    def __init__(
        self,
        write: Callable[..., Deferred[Any]],
        removed: dict[int, int],
        on_removed: Callable[[int], None],
        forget: Callable[[int], None],
    ) -> None:
        self._write = write
        self._removed = removed
        self._on_removed = on_removed
        self._forget = forget
        self._stopped = False

    def stop(self) -> None:
        """Begin no more transactions."""
        self._stopped = True

    async def run(self, before: int) -> int:
        """Remove the messages that were sent before that time; returns how many were deleted."""
        deleted = 0
        after: int | None = 0
        while after is not None and not self._stopped:
            after, moved = await self._write(_advance, after, before, self._forget)
            for user_id, seq in moved.items():
                self._removed[user_id] = seq
                self._on_removed(user_id)
        after = 0
        while after is not None and not self._stopped:
            after, count = await self._write(_delete, after)
            deleted += count
        more = True
        while more and not self._stopped:
            more = await self._write(_vacuum)
        return deleted


def _advance(
    db: sqlite3.Connection, after: int, before: int, forget: Callable[[int], None]
) -> tuple[int | None, dict[int, int]]:
    """Have the next inboxes begin later; returns where to continue, and where they begin.

    None is the end.
    """
    moved: dict[int, int] = {}
    left = MESSAGES
    with transaction(db):
        inboxes = db.execute(_INBOXES, (after, INBOXES)).fetchall()
        for user_id, removed in inboxes:
            count, seq, at, size = db.execute(_OLD, (user_id, removed, left, before)).fetchone()
            if count:
                db.execute(_ADVANCE, (seq, at, size, user_id))
                forget(user_id)
                moved[user_id] = seq
                left -= count
            if not left:
                return user_id - 1, moved
    return (inboxes[-1][0] if inboxes else None), moved


def _delete(db: sqlite3.Connection, after: int) -> tuple[int | None, int]:
    """Delete rows of the next inboxes; returns where to continue, and how many messages."""
    left = MESSAGES
    with transaction(db):
        inboxes = db.execute(_INBOXES, (after, INBOXES)).fetchall()
        for user_id, removed in inboxes:
            if not removed:
                continue
            count, upto = db.execute(_REMOVED, (user_id, removed, left)).fetchone()
            if count:
                for statement in _DELETE:
                    db.execute(statement, {"user_id": user_id, "upto": upto})
                left -= count
            if not left:
                return user_id - 1, MESSAGES
    return (inboxes[-1][0] if inboxes else None), MESSAGES - left


def _vacuum(db: sqlite3.Connection) -> bool:
    """Return some free pages to the disk; False if that is done, or the file is not made for it."""
    [(mode,)] = db.execute("PRAGMA auto_vacuum")
    [(free,)] = db.execute("PRAGMA freelist_count")
    if mode != 2 or free <= SPARE_PAGES:
        return False
    db.execute(f"PRAGMA incremental_vacuum({min(VACUUM_PAGES, free - SPARE_PAGES)})").fetchall()
    return True
