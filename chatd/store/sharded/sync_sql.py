"""SQL of conversations and changes in the sharded layout: each statement is of one lane."""

from __future__ import annotations

from typing import Final

from chatd.store.postgres.silent import silent
from chatd.store.postgres.sync_reading import UNREAD
from chatd.store.postgres.sync_sql import (
    MICROSECONDS,
    MOVING,
    POSITIONS,
    logging,
    reached,
    summarising,
)
from chatd.store.statements import MESSAGE, within_bytes
from chatd.store.sync_statements import SUMMARY, on_summary_conflict

_MERGE: Final = on_summary_conflict("greatest")

# A transaction that appends to the inbox, or revises a message of it, and that did not know of the
# new account, either has ended before, or begins again because `block_changes` has changed.
BEGIN: Final = f"""
UPDATE inbox SET block_changes = block_changes + 1 WHERE user_id = :user_id AND NOT closed;
INSERT INTO sync_state (user_id, last_change)
SELECT id, {MICROSECONDS} FROM account WHERE id = :user_id AND deleted_at IS NULL
ON CONFLICT DO NOTHING;
SELECT 1 FROM account WHERE id = :user_id AND deleted_at IS NULL
"""

SENT_TO: Final = "SELECT received_by FROM contact WHERE sent_by = :user_id"
RECEIVED_FROM: Final = "SELECT sent_by FROM contact WHERE received_by = :user_id"

# In the lane of the peers.
REACHED: Final = f"""
WITH peers AS (SELECT unnest(:peers::bigint[]) AS peer), {POSITIONS}
SELECT peer, coalesce(sent_seq, 0), coalesce(sent_at, 0), peer_delivered, peer_read FROM positions
"""

COMPLETE: Final = f"""
WITH given AS (
    SELECT * FROM unnest(:peers::bigint[], :sent_seqs::bigint[], :sent_ats::bigint[],
                         :delivered::bigint[], :read::bigint[])
        AS given (peer, sent_seq, sent_at, peer_delivered, peer_read)
), state AS MATERIALIZED (
    SELECT :user_id::bigint AS user_id, given.*,
        coalesce(received.seq, 0) AS received_seq, coalesce(received.sent_at, 0) AS received_at
    FROM given LEFT JOIN LATERAL (
        SELECT seq, sent_at FROM message
        WHERE received_by = :user_id AND sent_by = given.peer
        ORDER BY sent_at DESC, seq DESC LIMIT 1
    ) AS received ON true
), counted AS (
    UPDATE sync_state SET settled = true, last_change = greatest({MICROSECONDS}, last_change + 1)
        + (SELECT count(*) FROM state WHERE peer_delivered > 0)
    WHERE user_id = :user_id AND NOT settled
    RETURNING user_id, last_change
), summarised AS (
    INSERT INTO conversation_summary AS summary ({SUMMARY})
    SELECT user_id, peer, greatest(received_at, sent_at), received_seq, received_at, sent_seq,
        sent_at, sent_seq, 0, 0, peer_delivered, peer_read
    FROM state WHERE EXISTS (SELECT FROM counted) ORDER BY peer
    {_MERGE}, logged_after = excluded.logged_after
), logged AS (
    INSERT INTO change (user_id, kind, peer, seq, number)
    SELECT user_id, 'peer', peer, 0, last_change + 1 - row_number() OVER (ORDER BY peer DESC)
    FROM state JOIN counted USING (user_id) WHERE peer_delivered > 0
    ON CONFLICT (user_id, kind, peer, seq) DO UPDATE SET number = excluded.number
)
SELECT 1
"""

# With the last message that was received, unless what was sent is newer.
CONVERSATIONS: Final = f"""
SELECT listed.peer, listed.last_at, listed.read_seq, listed.read_at, listed.peer_delivered,
    listed.peer_read, listed.sent_seq, listed.sent_at, listed.received_at, {UNREAD},
    listed.received_seq, {within_bytes("listed.last_at DESC, listed.peer DESC")}
FROM (
    SELECT * FROM conversation_summary
    WHERE user_id = :user_id AND last_at > 0 AND (last_at, peer) < (:before_at, :before_peer)
    ORDER BY last_at DESC, peer DESC LIMIT :limit
) AS listed
LEFT JOIN LATERAL (
    SELECT {MESSAGE} FROM message
    WHERE received_by = listed.user_id AND seq = listed.received_seq
        AND (listed.sent_at, listed.peer) <= (listed.received_at, listed.user_id) LIMIT 1
) AS found ON true
ORDER BY listed.last_at DESC, listed.peer DESC
"""

# The names of owners of inboxes who have an account, and messages there.
INBOX_MESSAGES: Final = f"""
SELECT id, username, {within_bytes("place")}
FROM unnest(:owners::bigint[], :seqs::bigint[]) WITH ORDINALITY AS given (peer, wanted, place)
JOIN account ON id = peer AND deleted_at IS NULL
LEFT JOIN LATERAL (
    SELECT {MESSAGE} FROM message WHERE received_by = peer AND seq = wanted LIMIT 1
) AS found ON true
ORDER BY place
"""

# Of messages up to `logged_after` the account may have been told while it began, also by a
# statement that does not know yet that this is over. They are read as old messages.
CHANGES: Final = """
SELECT listed.number, listed.kind, listed.peer, listed.seq, read_seq, peer_delivered, peer_read
FROM (
    SELECT * FROM change WHERE user_id = :user_id AND number > :after AND NOT (
        kind = 'sent' AND seq <= coalesce((
            SELECT logged_after FROM conversation_summary AS old
            WHERE old.user_id = change.user_id AND old.peer = change.peer
        ), 0)
    ) ORDER BY number LIMIT :limit
) AS listed
LEFT JOIN LATERAL (
    SELECT * FROM conversation_summary AS summary
    WHERE listed.kind IN ('read', 'peer') AND summary.user_id = listed.user_id
        AND summary.peer = listed.peer LIMIT 1
) AS summary ON true
ORDER BY listed.number
"""

OLD_PEERS: Final = """
SELECT peer, logged_after FROM conversation_summary
WHERE user_id = :user_id AND peer >= :peer AND logged_after > 0 ORDER BY peer LIMIT :peers
"""
OLD_MESSAGES: Final = f"""
SELECT {within_bytes("found.received_by, found.seq")}
FROM unnest(:peers::bigint[], :logged::bigint[], :after::bigint[])
    AS old (peer, logged_after, after)
JOIN inbox ON user_id = old.peer AND NOT closed
CROSS JOIN LATERAL (
    SELECT {MESSAGE} FROM message
    WHERE received_by = old.peer AND sent_by = :user_id
        AND (sent_at, seq) <= ((
            SELECT sent_at FROM message
            WHERE received_by = old.peer AND seq <= logged_after ORDER BY seq DESC LIMIT 1
        ), logged_after)
        AND (sent_at, seq) > (coalesce((
            SELECT sent_at FROM message
            WHERE received_by = old.peer AND seq <= old.after ORDER BY seq DESC LIMIT 1
        ), 0), old.after)
    ORDER BY sent_at, seq LIMIT :limit
) AS found
ORDER BY found.received_by, found.seq LIMIT :limit
"""

# How far a position reaches: the end of the inbox, and the last message of the peer up to there.
READING: Final = """
SELECT last_seq, at, coalesce((
    SELECT seq FROM message WHERE received_by = :user_id AND sent_by = :peer
        AND (sent_at, seq) <= (at, :seq)
    ORDER BY sent_at DESC, seq DESC LIMIT 1
), 0)
FROM inbox CROSS JOIN LATERAL (
    SELECT coalesce((
        SELECT sent_at FROM message
        WHERE received_by = :user_id AND seq <= :seq ORDER BY seq DESC LIMIT 1
    ), 0) AS at
) AS reached WHERE user_id = :user_id AND NOT closed
"""
EXISTED: Final = "SELECT 1 FROM account WHERE id = :user_id"

MOVE_READ: Final = silent(f"""
WITH moving AS MATERIALIZED (
    SELECT user_id FROM inbox WHERE user_id = :user_id AND NOT closed AND coalesce((
        SELECT read_seq FROM conversation_summary WHERE user_id = :user_id AND peer = :peer
    ), 0) < :seq
), moved AS MATERIALIZED (
    SELECT user_id, 'read' AS kind, :peer::bigint AS peer, 0 AS seq FROM moving
), {logging("moved")}, summarised AS ({
    summarising(
        ("moving", "user_id, :peer::bigint", {"read_seq": ":seq", "read_at": ":at"}),
    )
})
SELECT 1
""")

# Which messages of whom are delivered with positions that move forward.
DELIVERING: Final = f"WITH {MOVING} {reached()}"
STORE_DELIVERED: Final = """
INSERT INTO delivered (user_id, seq)
SELECT given.user_id, given.seq
FROM unnest(%(users)s::bigint[], %(seqs)s::bigint[]) AS given (user_id, seq)
JOIN inbox ON inbox.user_id = given.user_id AND NOT closed AND last_seq >= given.seq
ORDER BY given.user_id
ON CONFLICT (user_id) DO UPDATE SET seq = greatest(delivered.seq, excluded.seq)
"""

# Positions of peers, of which accounts are told. Returns the accounts that have changes, and
# whether this is one.
TELL_POSITIONS: Final = silent(f"""
WITH given AS MATERIALIZED (
    SELECT given.* FROM unnest(%(users)s::bigint[], %(peers)s::bigint[], %(delivered)s::bigint[],
                               %(read)s::bigint[]) AS given (user_id, peer, delivered, read)
    JOIN sync_state ON sync_state.user_id = given.user_id
), moved AS MATERIALIZED (
    SELECT given.user_id, 'peer' AS kind, given.peer, 0 AS seq, given.delivered, given.read
    FROM given LEFT JOIN conversation_summary AS theirs
        ON theirs.user_id = given.user_id AND theirs.peer = given.peer
    WHERE given.delivered > coalesce(peer_delivered, 0) OR given.read > coalesce(peer_read, 0)
), {logging("moved")}, summarised AS ({
    summarising(
        ("moved", "user_id, peer", {"peer_delivered": "delivered", "peer_read": "read"}),
    )
})
SELECT given.user_id, EXISTS (SELECT FROM counted WHERE counted.user_id = given.user_id) FROM given
""")
