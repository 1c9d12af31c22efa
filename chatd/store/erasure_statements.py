"""SQL of erasures that SQLite and PostgreSQL share; see `statements`.

An erasure deletes what a deleted account has sent. It goes from inbox to inbox, in the order of the
contacts of the account, and through each in the order of time; so a step costs the same wherever it
begins, and a row of `erasure` is all that the next step, of any process, has to know.
"""

from __future__ import annotations

from typing import Final

from chatd.store.statements import DELETED

ERASE_MESSAGES: Final = 100
"""Messages at most in one step, which is one transaction."""
ERASE_INBOXES: Final = 50
"""Inboxes at most in one step."""
LATE_SECONDS: Final = 60
"""After this time nothing is under way any more that was sent before the account was deleted."""
MARGIN_SECONDS: Final = 600
"""How much earlier than the deletion a message may have got its time that is stored after it."""


def schedule(now: str) -> str:
    """SQL to schedule the erasure of an account that `DELETE_ACCOUNT` deleted, for `now`."""
    return (
        f"INSERT INTO erasure (user_id, began_at, due_at) SELECT id, {now}, {now}"
        f" FROM account WHERE id IN ({DELETED}) ON CONFLICT DO NOTHING"
    )


def pick(now: str, *, named: bool) -> str:
    """SQL for an erasure to go on with: the one of `:user_id` if `named`, else one that is due.

    `begin_at` is the time from which on messages have to be dealt with.
    """
    condition = "user_id = :user_id AND NOT late" if named else f"due_at <= {now}"
    return f"""
SELECT user_id, late, received_by, sent_at, seq,
    CASE WHEN late THEN began_at - {MARGIN_SECONDS * 1_000_000} ELSE 0 END AS begin_at
FROM erasure WHERE {condition} ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""


NEXT_PASS: Final = f"""
UPDATE erasure SET late = true, due_at = began_at + {LATE_SECONDS * 1_000_000},
    received_by = 0, sent_at = 0, seq = 0
"""
