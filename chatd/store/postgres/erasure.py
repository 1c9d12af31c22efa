"""Deleting what deleted accounts have sent, on PostgreSQL.

Several processes may do that at once, each for another account. The statement is safe to repeat: it
goes on where the one before has stopped.
"""

from __future__ import annotations

from functools import cache

from chatd.model import MAX_INTEGER, Erased, ErasedMessage
from chatd.postgres.notify_payloads import CHANNEL, changed_prefix
from chatd.store.erasure_statements import ERASE_INBOXES, ERASE_MESSAGES, NEXT_PASS, pick
from chatd.store.postgres.sync_sql import BEFORE_REVISING, MICROSECONDS, logging
from chatd.store.statements import Rows, Statement


@cache
def step(*, named: bool) -> str:
    """SQL of a step. The first row says whether there is more, the others what was deleted.

    There is more also if another process is at it, so that nothing was picked.
    """
    more = (
        "coalesce(NOT ended, EXISTS (SELECT FROM erasure WHERE user_id = :user_id AND NOT late))"
        if named
        else "ended IS NOT NULL"
    )
    # The inboxes are locked first, in order, as by all statements. Who edits a message meanwhile
    # holds the lock of its inbox, and the texts are measured after that, as they are then.
    return f"""
WITH picked AS MATERIALIZED ({pick(MICROSECONDS, named=named)}), inboxes AS MATERIALIZED (
    SELECT contact.received_by, sent_by,
        CASE WHEN contact.received_by = picked.received_by THEN sent_at ELSE begin_at END AS at,
        CASE WHEN contact.received_by = picked.received_by THEN seq ELSE 0 END AS after
    FROM picked JOIN contact
        ON contact.sent_by = picked.user_id AND contact.received_by >= picked.received_by
    ORDER BY contact.received_by LIMIT {ERASE_INBOXES}
), found AS MATERIALIZED (
    SELECT inboxes.received_by, each.seq, each.sent_at
    FROM inboxes CROSS JOIN LATERAL (
        SELECT message.seq, message.sent_at FROM message
        WHERE message.received_by = inboxes.received_by AND message.sent_by = inboxes.sent_by
            AND (message.sent_at, message.seq) > (at, after)
            AND EXISTS (SELECT FROM inbox WHERE user_id = inboxes.received_by AND NOT closed)
        ORDER BY message.sent_at, message.seq LIMIT {ERASE_MESSAGES}
    ) AS each
    ORDER BY inboxes.received_by, each.sent_at, each.seq LIMIT {ERASE_MESSAGES}
), locked AS MATERIALIZED (
    SELECT user_id, removed_seq FROM inbox WHERE user_id IN (SELECT received_by FROM found)
    ORDER BY user_id FOR NO KEY UPDATE
), sizes AS MATERIALIZED (
    SELECT message.received_by, message.seq, octet_length(text) AS size
    FROM message JOIN found USING (received_by, seq)
    WHERE deleted_at IS NULL AND (SELECT count(*) FROM locked) > 0
    FOR NO KEY UPDATE OF message
), erased AS (
    UPDATE message SET text = '', deleted_at = greatest({MICROSECONDS}, message.sent_at, edited_at)
    FROM sizes
    WHERE message.received_by = sizes.received_by AND message.seq = sizes.seq
        AND deleted_at IS NULL
    RETURNING message.received_by, message.seq, message.sent_by, size
), shrunk AS (
    UPDATE inbox SET text_bytes = text_bytes - freed FROM (
        SELECT received_by, sum(size) AS freed
        FROM erased JOIN locked ON user_id = received_by AND seq > removed_seq
        GROUP BY received_by
    ) AS sums WHERE inbox.user_id = sums.received_by
), changes AS MATERIALIZED (
    SELECT received_by AS user_id, 'changed' AS kind, received_by AS peer, seq FROM erased
), {logging("changes")}, place AS (
    SELECT user_id, late, last.*,
        last.sent_at IS NULL AND (SELECT count(*) FROM inboxes) < {ERASE_INBOXES} AS ended
    FROM picked LEFT JOIN LATERAL (
        SELECT received_by, sent_at, seq FROM found
        ORDER BY received_by, sent_at, seq OFFSET {ERASE_MESSAGES - 1}
    ) AS last (inbox, sent_at, seq) ON true
), moved AS (
    UPDATE erasure SET
        received_by = coalesce(inbox, (SELECT max(received_by) FROM inboxes)),
        sent_at = coalesce(place.sent_at, {MAX_INTEGER}),
        seq = coalesce(place.seq, 0)
    FROM place WHERE erasure.user_id = place.user_id AND NOT ended
), passed AS (
    {NEXT_PASS} FROM place WHERE erasure.user_id = place.user_id AND ended AND NOT place.late
), gone AS (
    DELETE FROM erasure USING place
    WHERE erasure.user_id = place.user_id AND ended AND place.late
)
SELECT {more}, NULL, NULL, NULL, NULL FROM told LEFT JOIN place ON true
UNION ALL
SELECT NULL, received_by, seq, sent_by, pg_notify(
    :channel, :prefix || received_by || ':' || seq || ':' || sent_by
) FROM erased
"""


def erase(user_id: int | None, node_id: str) -> Statement[Erased]:
    """See `IStore.erase`; `node_id` is the sender of the notices."""
    parameters = {"user_id": user_id, "channel": CHANNEL, "prefix": changed_prefix(node_id)}
    return Statement(BEFORE_REVISING + step(named=user_id is not None), parameters, _result)


def _result(rows: Rows) -> Erased:
    messages = tuple([ErasedMessage(*row[1:4]) for row in rows if row[1] is not None])
    return Erased(messages, any(row[0] for row in rows))
