"""Conversations on PostgreSQL: both directions of what two accounts sent each other, merged."""

from __future__ import annotations

from typing import Final

from chatd.model import ConversationSlice, Message, ReadConversation
from chatd.store.outcomes import merged
from chatd.store.postgres_pool import Pool

_DIRECTION: Final = """
    SELECT received_by, seq, sent_by, sent_at, text FROM message
    WHERE received_by = %s AND sent_by = %s AND (sent_at, seq) < (%s, %s)
    ORDER BY sent_at DESC, seq DESC LIMIT %s
"""

# One statement, so one snapshot. A deleted peer's messages may still be there, waiting to be
# purged; with oneself there is only one direction.
_CONVERSATION: Final = f"""
WITH ends AS (
    SELECT EXISTS (SELECT 1 FROM inbox WHERE user_id = %s AND NOT closed) AS mine,
           EXISTS (SELECT 1 FROM inbox WHERE user_id = %s AND NOT closed) AS theirs
)
SELECT mine, theirs, found.* FROM ends LEFT JOIN LATERAL (
    ({_DIRECTION})
    UNION ALL
    (SELECT * FROM ({_DIRECTION}) AS sent WHERE theirs AND sent_by <> received_by)
) AS found ON mine
"""


async def conversation(pool: Pool, query: ReadConversation) -> ConversationSlice | None:
    """See `IStore.conversation`."""
    user_id, peer = query.user_id, query.peer
    limit = query.limit + 1
    rows = await pool.run(
        _CONVERSATION,
        (
            *(user_id, peer),
            *(user_id, peer, *query.bound(user_id), limit),
            *(peer, user_id, *query.bound(peer), limit),
        ),
    )
    mine, theirs = rows[0][:2]
    if not mine:
        return None
    return merged(query, [Message(*row[2:]) for row in rows if row[2] is not None], theirs)
