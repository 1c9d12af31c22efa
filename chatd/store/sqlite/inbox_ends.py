"""Where inboxes end, and how large they are, as SQLite's writer thread knows them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from chatd.model import InboxLimits

# Messages that are removed from the beginning do not count.
_GROW: Final = "UPDATE inbox SET text_bytes = text_bytes + ? WHERE user_id = ? AND removed_seq < ?"

MAX_KNOWN_INBOXES: Final = 100_000


class InboxEnds:
    """The ends of inboxes that the writer has appended to, by user.

    An end is `(last_seq, indexed_seq, text_bytes)`. Only the writer's thread changes inboxes, so it
    need not read an end again that it has written. Drop an inbox that is changed by anything else
    than an append. An inbox may have as much as the `limits` say, without the messages that were
    `removed`, see `IStore`.
    """

    def __init__(
        self, limits: InboxLimits | None = None, removed: Mapping[int, int] | None = None
    ) -> None:
        self.limits = limits or InboxLimits()
        self._removed = {} if removed is None else removed
        self._ends: dict[int, tuple[int, int, int]] = {}

    def get(self, db: sqlite3.Connection, user_id: int) -> tuple[int, int, int] | None:
        """The end of an inbox; None if there is none."""
        end = self._ends.get(user_id)
        if end is None:
            query = "SELECT last_seq, indexed_seq, text_bytes FROM inbox WHERE user_id = ?"
            end = db.execute(query, (user_id,)).fetchone()
        return end

    def update(self, ends: dict[int, tuple[int, int, int]]) -> None:
        """Apply a transaction that was committed."""
        if len(self._ends) > MAX_KNOWN_INBOXES:
            self._ends.clear()
        self._ends.update(ends)

    def is_full(self, user_id: int, last_seq: int) -> bool:
        """Whether an inbox that ends there has as many messages as it may."""
        # The reactor's thread adds what was removed after it was committed, never too early.
        most = self.limits.messages
        return last_seq >= most and last_seq - self._removed.get(user_id, 0) >= most

    def grow(self, db: sqlite3.Connection, user_id: int, seq: int, size: int) -> None:
        """Change the bytes of an inbox by those of the message with that seq."""
        db.execute(_GROW, (size, user_id, seq))
        self.drop(user_id)

    def drop(self, user_id: int) -> None:
        """Forget an inbox."""
        self._ends.pop(user_id, None)

    def clear(self) -> None:
        """Forget all, after a transaction whose outcome is not certain."""
        self._ends.clear()
