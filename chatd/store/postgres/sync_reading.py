"""SQL that reads changes and conversations on PostgreSQL; see also `sync_statements`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from chatd.model import ChangesPosition, Message
from chatd.model_sync import MAX_UNREAD, ChangesSlice, MessageChange, ReadChanges
from chatd.store import sync_statements
from chatd.store.statements import MESSAGE, Rows
from chatd.store.sync_statements import SENT, changes_sql, conversations_sql

Place = tuple[int, int]
"""A recipient and a seq: where the messages from before an account had changes go on."""


def _join(source: str, name: str, condition: str) -> str:
    return (
        f"LEFT JOIN LATERAL (SELECT * FROM ({source}) AS {name} WHERE {condition} LIMIT 1)"
        f" AS {name} ON true"
    )


SYNC_STATE: Final = "SELECT last_change, settled FROM sync_state WHERE user_id = :user_id"

UNREAD: Final = f"""(
    SELECT count(*) FROM (
        SELECT FROM message
        WHERE received_by = listed.user_id AND sent_by = listed.peer
            AND (sent_at, seq) > (listed.read_at, listed.read_seq)
        LIMIT {MAX_UNREAD}
    ) AS unread
)"""
"""How many messages of the `listed` conversation are unread, up to a limit."""

CONVERSATIONS: Final = conversations_sql(UNREAD, _join)
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


async def read_changes(
    query: ReadChanges,
    last: int | None,
    read_old: Callable[[int, Place, int], Awaitable[tuple[list[Message], Place | None]]],
    read: Callable[[dict[str, int]], Awaitable[Rows]],
) -> ChangesSlice | None:
    """See `ISyncStore.changes`; `last` is the number of the last change, None without an account.

    `read_old` reads messages of a user from a place on, up to a number of them, and where to
    continue. `read` returns the rows for `sync_statements.changes_parameters`.
    """
    if last is None:
        return None
    if query.after is None:
        return ChangesSlice((), (), ChangesPosition(last), False)
    sync_statements.check_position(query.after, last)
    old: list[MessageChange] = []
    sent = query.after.sent
    while sent is not None and len(old) < query.limit:
        messages, sent = await read_old(query.user_id, sent, query.limit - len(old))
        old += [MessageChange(SENT, message) for message in messages]
    limit = query.limit - len(old)
    rows = await read(sync_statements.changes_parameters(query.user_id, query.after.number, limit))
    return sync_statements.changes_slice(query, old, sent, rows)
