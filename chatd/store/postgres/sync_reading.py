"""SQL that reads changes and conversations on PostgreSQL; see also `sync_statements`."""

from __future__ import annotations

from typing import Final

from chatd.model_sync import MAX_UNREAD
from chatd.store.statements import MESSAGE
from chatd.store.sync_statements import changes_sql, conversations_sql


def _join(source: str, name: str, condition: str) -> str:
    return (
        f"LEFT JOIN LATERAL (SELECT * FROM ({source}) AS {name} WHERE {condition} LIMIT 1)"
        f" AS {name} ON true"
    )


SYNC_STATE: Final = "SELECT last_change, settled FROM sync_state WHERE user_id = :user_id"

CONVERSATIONS: Final = conversations_sql(
    f"""(
        SELECT count(*) FROM (
            SELECT FROM message
            WHERE received_by = listed.user_id AND sent_by = listed.peer
                AND (sent_at, seq) > (listed.read_at, listed.read_seq)
            LIMIT {MAX_UNREAD}
        ) AS unread
    )""",
    _join,
)
CHANGES: Final = changes_sql(_join)

OLD_PEERS: Final = 20
"""Peers in one query of `OLD_MESSAGES`."""
# Messages from before the account had changes.
OLD_MESSAGES: Final = f"""
SELECT old.peer, found.*
FROM (
    SELECT peer, logged_after FROM conversation_summary
    WHERE user_id = :user_id AND peer >= :peer AND logged_after > 0 ORDER BY peer LIMIT {OLD_PEERS}
) AS old
LEFT JOIN LATERAL (
    SELECT {MESSAGE} FROM message
    WHERE received_by = old.peer AND sent_by = :user_id
        AND EXISTS (SELECT FROM inbox WHERE user_id = old.peer AND NOT closed)
        AND (sent_at, seq) <= ((
            SELECT sent_at FROM message
            WHERE received_by = old.peer AND seq <= logged_after ORDER BY seq DESC LIMIT 1
        ), logged_after)
        AND (sent_at, seq) > (coalesce((
            SELECT sent_at FROM message
            WHERE old.peer = :peer AND received_by = old.peer AND seq <= :seq
            ORDER BY seq DESC LIMIT 1
        ), 0), CASE WHEN old.peer = :peer THEN :seq::bigint ELSE 0 END)
    ORDER BY sent_at, seq LIMIT :limit
) AS found ON true
ORDER BY old.peer, found.seq
"""
