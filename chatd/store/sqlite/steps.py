"""How many messages of an inbox a transaction that deletes some may take.

Messages are counted, and so are the bytes of their texts: SQLite overwrites what it deletes
(`secure_delete`), and everybody's sends wait meanwhile.
"""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from chatd.model import MAX_INTEGER

STEP_BYTES: Final = 1 << 20
"""Bytes of texts in one transaction, and one message more."""

_OLDEST: Final = """
SELECT seq, sent_at, length(CAST(text AS BLOB)) FROM message
WHERE received_by = ? AND seq > ? ORDER BY seq LIMIT ?
"""


class Oldest(NamedTuple):
    """Some of the oldest messages of an inbox: how many, the last of them, the bytes of all."""

    messages: int = 0
    seq: int = 0
    sent_at: int = 0
    size: int = 0


class Step:
    """What is left of a transaction that may take so many messages."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._bytes = STEP_BYTES

    @property
    def is_over(self) -> bool:
        """Whether the transaction has as much as it may."""
        return self._messages <= 0 or self._bytes <= 0

    def take(
        self,
        db: sqlite3.Connection,
        user_id: int,
        after: int = 0,
        *,
        up_to: int = MAX_INTEGER,
        before: int = MAX_INTEGER,
    ) -> Oldest:
        """The messages of an inbox after a seq that it may take now: those up to the seq `up_to`
        that were sent before the time `before`."""
        taken = Oldest()
        size = 0
        for seq, sent_at, bytes_of_text in db.execute(_OLDEST, (user_id, after, self._messages)):
            if seq > up_to or sent_at >= before or size >= self._bytes:
                break
            size += bytes_of_text
            taken = Oldest(taken.messages + 1, seq, sent_at, size)
        self._messages -= taken.messages
        self._bytes -= size
        return taken
