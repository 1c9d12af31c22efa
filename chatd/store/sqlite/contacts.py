"""Who may write to whom in SQLite: blocks, and whether two accounts know each other."""

from __future__ import annotations

import sqlite3
from typing import Final

from chatd.errors import DomainError
from chatd.model import Draft, EncodedRows
from chatd.store.results import (
    MAX_BLOCKS,
    blocked,
    first_contact_closed,
    too_many_blocks,
    user_not_found,
)
from chatd.store.sqlite.transactions import transaction
from chatd.store.statements import BLOCKS, Statement, encoded

_IS_BLOCKED: Final = "SELECT 1 FROM block WHERE user_id = ? AND blocked_id = ?"
_ARE_ACCOUNTS: Final = "SELECT count(*) FROM inbox WHERE user_id IN (?, ?)"
_COUNT: Final = "SELECT count(*) FROM block WHERE user_id = ?"
_BLOCK: Final = "INSERT INTO block (user_id, blocked_id) VALUES (?, ?)"
_UNBLOCK: Final = "DELETE FROM block WHERE user_id = ? AND blocked_id = ?"

_HAVE_CONTACT: Final = """
SELECT 1 FROM contact WHERE (sent_by, received_by) IN (VALUES (:one, :other), (:other, :one))
"""
# One row, since a thread takes Python's lock again after each: an account may have ten thousand
# blocks.
_BLOCKS: Final = f"""
SELECT count(*), json_group_array(json_object('user_id', blocked_id, 'username', username))
FROM ({BLOCKS})
"""


class ContactRules:
    """Decides whose messages are refused; used by the writer's thread only, which changes blocks.

    Who has blocked anybody is kept in memory, so that sends to all others cost no query. With
    `known_only` nobody may write first.
    """

    def __init__(self, known_only: bool) -> None:
        self._known_only = known_only
        # May contain accounts that have no blocks any more.
        self._blockers: set[int] = set()

    def load(self, db: sqlite3.Connection) -> None:
        """Read who has blocked anybody."""
        self._blockers = {user_id for (user_id,) in db.execute("SELECT user_id FROM block")}

    def refusal(self, db: sqlite3.Connection, draft: Draft) -> DomainError | None:
        """Why a draft is refused, or None.

        Messages that the present transaction has not written yet do not count.
        """
        # Checked here first, because this is called for every message.
        if draft.received_by in self._blockers and self.is_blocked(
            db, draft.received_by, draft.sent_by
        ):
            return blocked(draft.received_by)
        if self._known_only and not _know_each_other(db, draft.received_by, draft.sent_by):
            return first_contact_closed(draft.received_by)
        return None

    def is_blocked(self, db: sqlite3.Connection, user_id: int, blocked_id: int) -> bool:
        """Whether `user_id` has blocked `blocked_id`."""
        return (
            user_id in self._blockers
            and db.execute(_IS_BLOCKED, (user_id, blocked_id)).fetchone() is not None
        )

    def block(self, db: sqlite3.Connection, user_id: int, blocked_id: int) -> None:
        """See `IStore.block`."""
        with transaction(db):
            if db.execute(_ARE_ACCOUNTS, (user_id, blocked_id)).fetchone() != (2,):
                raise user_not_found(blocked_id)
            # Before the commit: if its outcome is not certain, the database is asked.
            self._blockers.add(user_id)
            if self.is_blocked(db, user_id, blocked_id):
                return
            if db.execute(_COUNT, (user_id,)).fetchone() >= (MAX_BLOCKS,):
                raise too_many_blocks()
            db.execute(_BLOCK, (user_id, blocked_id))

    def unblock(self, db: sqlite3.Connection, user_id: int, blocked_id: int) -> None:
        """See `IStore.unblock`."""
        db.execute(_UNBLOCK, (user_id, blocked_id))


def blocks(user_id: int) -> Statement[EncodedRows]:
    """See `IStore.blocks`."""
    return Statement(_BLOCKS, {"user_id": user_id}, encoded)


def _know_each_other(db: sqlite3.Connection, user_id: int, other: int) -> bool:
    pair = {"one": user_id, "other": other}
    return user_id == other or db.execute(_HAVE_CONTACT, pair).fetchone() is not None
