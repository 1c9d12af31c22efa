"""Removal of the oldest messages from SQLite, in small transactions with other writes in between.

First it is stored where inboxes begin now (`removed_seq`), and then, when this process no longer
reads what is before that, the rows are deleted. The order of times is that of seqs, so what is old
is always the beginning of an inbox. The owner of an inbox may have it begin later, too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from chatd.store.removed_rows import Deleted, RemovedRows
from chatd.store.results import past_the_end
from chatd.store.sqlite.steps import Oldest, Step
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
_BEGIN: Final = "SELECT removed_seq, last_seq FROM inbox WHERE user_id = ?"
_ADVANCE: Final = """
UPDATE inbox SET removed_seq = ?, removed_at = ?, text_bytes = text_bytes - ? WHERE user_id = ?
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
    """Removes messages from the beginning of inboxes.

    `write` runs a function of a connection in the writer's thread, and `write_paced` does so when
    others have had most of the time. `removed` is what is known of the inboxes, by user;
    `on_removed` is called with each user whose inbox begins later now, and `forget` in the writer's
    thread.
    """

    def __init__(
        self,
        write: Callable[..., Deferred[Any]],
        write_paced: Callable[..., Coroutine[Deferred[Any], Any, Any]],
        removed: dict[int, int],
        on_removed: Callable[[int], None],
        forget: Callable[[int], None],
    ) -> None:
        self._write = write
        self._write_paced = write_paced
        self._removed = removed
        self._on_removed = on_removed
        self._forget = forget
        self._stopped = False
        self._rows = RemovedRows(
            lambda inboxes: self._write_paced(_delete, inboxes), finish=self._shrink
        )

    def load(self, removed: dict[int, int]) -> None:
        """Inboxes begin there: an earlier process has not necessarily deleted all rows."""
        for user_id, seq in removed.items():
            self._removed[user_id] = seq
            self._rows.add(user_id, seq)

    def stop(self) -> None:
        """Begin no more transactions."""
        self._stopped = True
        self._rows.stop()

    async def wait_idle(self) -> None:
        """Return when none is under way in the background."""
        await self._rows.wait_idle()

    async def run(self, before: int | None) -> int:
        """Remove the messages that were sent before that time; returns how many were deleted.

        Those are also what was removed before and not deleted yet; with None, only those.
        """
        after = None if before is None else 0
        while after is not None and not self._stopped:
            after, moved = await self._write_paced(_advance, after, before, self._forget)
            for user_id, seq in moved.items():
                self._note(user_id, seq)
        deleted = await self._rows.delete()
        if before is not None:
            await self._shrink()
        return deleted

    async def remove_oldest(self, user_id: int, up_to: int) -> bool | None:
        """See `IStore.remove_oldest`."""
        seq = await self._write(_remove_oldest, user_id, up_to, self._forget)
        if seq is None:
            return None
        if seq > self._removed.get(user_id, 0):
            self._note(user_id, seq)
            self._rows.start()
        return bool(seq < up_to)

    def _note(self, user_id: int, seq: int) -> None:
        self._removed[user_id] = seq
        self._on_removed(user_id)
        self._rows.add(user_id, seq)

    async def _shrink(self) -> None:
        more = True
        while more and not self._stopped:
            more = await self._write_paced(_vacuum)


def _advance(
    db: sqlite3.Connection, after: int, before: int, forget: Callable[[int], None]
) -> tuple[int | None, dict[int, int]]:
    """Have the next inboxes begin later; returns where to continue, and where they begin.

    None is the end.
    """
    moved: dict[int, int] = {}
    step = Step(MESSAGES)
    with transaction(db):
        inboxes = db.execute(_INBOXES, (after, INBOXES)).fetchall()
        for user_id, removed in inboxes:
            old = step.take(db, user_id, removed, before=before)
            if old.messages:
                _move(db, user_id, old, forget)
                moved[user_id] = old.seq
            if step.is_over:
                return user_id - 1, moved
    return (inboxes[-1][0] if inboxes else None), moved


def _remove_oldest(
    db: sqlite3.Connection, user_id: int, up_to: int, forget: Callable[[int], None]
) -> int | None:
    """Have an inbox begin later, after `up_to` at most; returns what is its last removed seq then.

    None if there is no inbox.
    """
    with transaction(db):
        inbox = db.execute(_BEGIN, (user_id,)).fetchone()
        if inbox is None:
            return None
        removed, last = inbox
        if up_to > last:
            raise past_the_end()
        chosen = Step(MESSAGES).take(db, user_id, removed, up_to=up_to)
        if chosen.messages:
            _move(db, user_id, chosen, forget)
    return chosen.seq if chosen.messages else removed


def _move(
    db: sqlite3.Connection, user_id: int, oldest: Oldest, forget: Callable[[int], None]
) -> None:
    """Have an inbox begin after its oldest messages."""
    db.execute(_ADVANCE, (oldest.seq, oldest.sent_at, oldest.size, user_id))
    forget(user_id)


def _delete(db: sqlite3.Connection, inboxes: Sequence[tuple[int, int]]) -> Deleted:
    """Delete rows of inboxes up to these seqs."""
    step = Step(MESSAGES)
    rows = 0
    with transaction(db):
        for user_id, removed in inboxes:
            left = step.take(db, user_id, up_to=removed)
            if left.messages:
                for statement in _DELETE:
                    db.execute(statement, {"user_id": user_id, "upto": left.seq})
                rows += left.messages
            if step.is_over:
                break
    return Deleted(rows, more=step.is_over)


def _vacuum(db: sqlite3.Connection) -> bool:
    """Return some free pages to the disk; False if that is done, or the file is not made for it."""
    [(mode,)] = db.execute("PRAGMA auto_vacuum")
    [(free,)] = db.execute("PRAGMA freelist_count")
    if mode != 2 or free <= SPARE_PAGES:
        return False
    db.execute(f"PRAGMA incremental_vacuum({min(VACUUM_PAGES, free - SPARE_PAGES)})").fetchall()
    return True
