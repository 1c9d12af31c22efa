"""SQL that reads changes and conversations on PostgreSQL; see also `sync_statements`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from chatd.model import ChangesPosition, Message
from chatd.model_sync import MAX_UNREAD, ChangesSlice, ReadChanges
from chatd.store import sync_statements
from chatd.store.results import text_of, within
from chatd.store.statements import MESSAGE, Rows, within_bytes
from chatd.store.sync_statements import changes_sql, conversations_sql

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

_NEWEST: Final = "listed.last_at DESC, listed.peer DESC"
CONVERSATIONS: Final = f"""
{conversations_sql(UNREAD, _join, within_bytes(_NEWEST))} ORDER BY {_NEWEST}
"""
CHANGES: Final = f"""
{changes_sql(_join, within_bytes("listed.number"))} ORDER BY listed.number
"""

OLD_PEERS: Final = 20
"""Peers in one query of `OLD_MESSAGES`."""
# Messages from before the account had changes.
OLD_MESSAGES: Final = f"""
SELECT old.peer, {within_bytes("old.peer, found.seq")}
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
ORDER BY old.peer, found.seq LIMIT :limit + {OLD_PEERS}
"""
"""Also has a row of each peer without a message."""


def old_slice(
    query: ReadChanges, messages: Iterable[Message], next_peer: int | None
) -> tuple[list[Message], Place | None]:
    """Those of the messages that are returned, and where to continue; None at the end.

    `next_peer` is from where on more peers may have messages.
    """
    old, more = within(messages, query.limit, query.max_bytes, text_of)
    if more:
        return old, (old[-1].received_by, old[-1].seq)
    return old, None if next_peer is None else (next_peer, 0)


async def read_changes(
    query: ReadChanges,
    last: int | None,
    read_old: Callable[[ReadChanges, Place], Awaitable[tuple[list[Message], Place | None]]],
    read: Callable[[dict[str, int]], Awaitable[Rows]],
) -> ChangesSlice | None:
    """See `ISyncStore.changes`; `last` is the number of the last change, None without an account.

    `read_old` reads old messages from a place on, as many as are left of a query, and returns them
    with where to continue. `read` returns the rows for `sync_statements.changes_parameters`.
    """
    if last is None:
        return None
    if query.after is None:
        return ChangesSlice((), (), ChangesPosition(last), False)
    sync_statements.check_position(query.after, last)
    old: list[Message] = []
    sent = query.after.sent
    left = query
    while sent is not None and left.limit > 0 and left.max_bytes > 0:
        messages, sent = await read_old(left, sent)
        old += messages
        left = sync_statements.after_messages(query, old)
    if sent is not None:
        return sync_statements.changes_slice(left, old, (old[-1].received_by, old[-1].seq), ())
    rows = await read(sync_statements.changes_parameters(left))
    return sync_statements.changes_slice(left, old, sent, rows)
