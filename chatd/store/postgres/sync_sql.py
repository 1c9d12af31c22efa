"""SQL that records changes and conversations on PostgreSQL.

Changes of an account are numbered, by time, under the lock of its row in `sync_state`, so that the
order of numbers is that of commits. All statements lock inboxes first, then these rows in the order
of their ids, then summaries; so they do not deadlock.
"""

from __future__ import annotations

from typing import Final

from chatd.postgres.notify_payloads import CHANGES_PREFIX, CHANNEL
from chatd.store.results import RANDOM_MICROSECONDS
from chatd.store.sync_statements import EMPTY_SUMMARY, SUMMARY, on_summary_conflict

MICROSECONDS: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""The server's time in microseconds."""

NOTICE_USERS: Final = 300
"""Accounts in one notice, which is limited to 8000 bytes."""
FAN_OUT_STEP: Final = 1000
"""A position that moves by more messages is told by contacts instead of by messages."""

# A transaction that revises messages first takes this lock, shared, in a statement of its own; so
# it reads `sync_state` after that. For an account that begins to have changes it is taken alone,
# once: then those that did not know of the account have ended, and reading finds what they did.
_REVISION_LOCK: Final = 0x6368617464 + 1
BEFORE_REVISING: Final = f"SELECT pg_advisory_xact_lock_shared({_REVISION_LOCK});"
AWAIT_REVISIONS: Final = f"SELECT pg_advisory_xact_lock({_REVISION_LOCK})"

_MERGE: Final = on_summary_conflict("greatest")


def logging(source: str) -> str:
    """The CTEs `counted`, `logged` and `told`, which record the rows of the CTE `source`.

    These have the columns user_id, kind, peer and seq, as the table `change`; rows of accounts that
    have no changes are ignored. `told` has to be selected from: it wakes waiters. Edits and
    deletions use this for sender and recipient, with the kind `changed`.
    """
    return f"""
counted AS (
    INSERT INTO sync_state AS state (user_id, last_change)
    SELECT user_id, count(*) FROM {source} JOIN sync_state USING (user_id)
    GROUP BY user_id ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET last_change = excluded.last_change + greatest(
        {MICROSECONDS}, state.last_change + floor(random() * {RANDOM_MICROSECONDS})::bigint
    )
    RETURNING user_id, last_change
), logged AS (
    INSERT INTO change (user_id, kind, peer, seq, number)
    SELECT user_id, kind, peer, seq,
        last_change + 1 - row_number() OVER (PARTITION BY user_id ORDER BY peer DESC, seq DESC)
    FROM {source} JOIN counted USING (user_id)
    ON CONFLICT (user_id, kind, peer, seq) DO UPDATE SET number = excluded.number
), told AS (
    SELECT count(pg_notify('{CHANNEL}', '{CHANGES_PREFIX}' || users)) FROM (
        SELECT string_agg(user_id::text, ',') AS users
        FROM (SELECT user_id, row_number() OVER () / {NOTICE_USERS} AS part FROM counted) AS parted
        GROUP BY part
    ) AS payloads
)"""


def summarising(*selects: tuple[str, str, dict[str, str]]) -> str:
    """SQL that merges rows into summaries: of each select its FROM, its key, and its columns.

    It runs after the CTE `counted`, as the order of locks requires.
    """
    rows = " UNION ALL ".join(
        f"SELECT {key}, "
        + ", ".join(f"{columns.get(each, '0')}::bigint AS {each}" for each in EMPTY_SUMMARY)
        + f" FROM {source}"
        for source, key, columns in selects
    )
    greatest = ", ".join(f"max({each})" for each in EMPTY_SUMMARY)
    return f"""
    INSERT INTO conversation_summary AS summary ({SUMMARY})
    SELECT user_id, peer, greatest(max(received_at), max(sent_at)), {greatest}
    FROM ({rows}) AS merged (user_id, peer, {", ".join(EMPTY_SUMMARY)})
    WHERE (SELECT count(*) FROM counted) >= 0
    GROUP BY user_id, peer ORDER BY user_id, peer {_MERGE}
"""


def _same(*columns: str) -> dict[str, str]:
    return {each: each for each in columns}


SENT_COLUMNS: Final = {"sent_seq": "seq", "sent_at": "sent_at"}
_RECEIVED: Final = {"received_seq": "seq", "received_at": "sent_at"}

# The rows are of accounts of the CTE `synchronised`.
_RECEIVED_NOW: Final = """received AS (
    SELECT received_by AS user_id, sent_by AS peer, seq, sent_at
    FROM numbered WHERE seq IS NOT NULL AND received_by IN (SELECT user_id FROM synchronised)
)"""

# Of a batch of new messages, the CTE `numbered`, for the accounts of the CTE `synchronised`.
LOG_SENT: Final = f""", sent AS MATERIALIZED (
    SELECT sent_by AS user_id, 'sent' AS kind, received_by AS peer, seq, sent_at
    FROM numbered WHERE seq IS NOT NULL AND sent_by IN (SELECT user_id FROM synchronised)
), {_RECEIVED_NOW}, {logging("sent")}, summarised AS ({
    summarising(("sent", "user_id, peer", SENT_COLUMNS), ("received", "user_id, peer", _RECEIVED))
})"""
# The same for recipients only, of whom no changes are recorded.
LOG_RECEIVED: Final = f""", {_RECEIVED_NOW}, counted AS (
    SELECT user_id FROM synchronised WHERE false
), summarised AS ({summarising(("received", "user_id, peer", _RECEIVED))})"""


def _last_upto(position: str) -> str:
    """SQL for the last message of the user to `peer` at or before a seq of the peer's inbox."""
    time = (
        "SELECT sent_at FROM message"
        f" WHERE received_by = peer AND seq <= {position} ORDER BY seq DESC LIMIT 1"
    )
    return f"""coalesce((
        SELECT seq FROM message WHERE received_by = peer AND sent_by = :user_id
            AND (sent_at, seq) <= (({time}), {position})
        ORDER BY sent_at DESC, seq DESC LIMIT 1
    ), 0)"""


# How far the conversations with the CTE `peers` are, found by index whatever their length.
POSITIONS: Final = f"""
reached AS (
    SELECT peers.peer, sent.seq AS sent_seq, sent.sent_at,
        coalesce(theirs.read_seq, 0) AS read_upto,
        greatest(delivered.seq, theirs.read_seq, 0) AS delivered_upto
    FROM peers
    LEFT JOIN LATERAL (
        SELECT seq, sent_at FROM message WHERE received_by = peers.peer AND sent_by = :user_id
            AND EXISTS (SELECT FROM inbox WHERE user_id = peers.peer AND NOT closed)
        ORDER BY sent_at DESC, seq DESC LIMIT 1
    ) AS sent ON true
    LEFT JOIN delivered ON delivered.user_id = peers.peer
    LEFT JOIN conversation_summary AS theirs
        ON theirs.user_id = peers.peer AND theirs.peer = :user_id
), positions AS (
    SELECT reached.*,
        CASE WHEN sent_seq IS NULL OR delivered_upto = 0 THEN 0
            WHEN delivered_upto >= sent_seq THEN sent_seq
            ELSE {_last_upto("delivered_upto")} END AS peer_delivered,
        CASE WHEN sent_seq IS NULL OR read_upto = 0 THEN 0
            WHEN read_upto >= sent_seq THEN sent_seq
            ELSE {_last_upto("read_upto")} END AS peer_read
    FROM reached
)"""

PEER_POSITIONS: Final = f"""
WITH peers AS (SELECT :peer::bigint AS peer), {POSITIONS}
SELECT peer_delivered, peer_read FROM positions
"""

_STATE: Final = f"""
peers AS (
    SELECT received_by AS peer FROM contact WHERE sent_by = :user_id
    UNION
    SELECT sent_by FROM contact WHERE received_by = :user_id
), {POSITIONS}, state AS (
    SELECT :user_id::bigint AS user_id, positions.peer,
        coalesce(received.seq, 0) AS received_seq, coalesce(received.sent_at, 0) AS received_at,
        coalesce(sent_seq, 0) AS sent_seq, coalesce(positions.sent_at, 0) AS sent_at,
        peer_delivered, peer_read
    FROM positions
    LEFT JOIN LATERAL (
        SELECT seq, sent_at FROM message
        WHERE received_by = :user_id AND sent_by = positions.peer
        ORDER BY sent_at DESC, seq DESC LIMIT 1
    ) AS received ON true
)"""
_STATE_COLUMNS: Final = _same(
    "received_seq", "received_at", "sent_seq", "sent_at", "peer_delivered", "peer_read"
)

# Repeating it has no effect.
SYNCHRONISE: Final = f"""
WITH {_STATE}, created AS (
    INSERT INTO sync_state (user_id, last_change)
    SELECT id, {MICROSECONDS} + (SELECT count(*) FROM state WHERE peer_delivered > 0)
    FROM account WHERE id = :user_id AND deleted_at IS NULL
    ON CONFLICT (user_id) DO NOTHING
    RETURNING user_id, last_change
), counted AS (
    SELECT user_id FROM created
), summarised AS ({
    summarising(
        (
            "state WHERE EXISTS (SELECT FROM created)",
            "user_id, peer",
            {**_STATE_COLUMNS, "logged_after": "sent_seq"},
        )
    )
}), logged AS (
    INSERT INTO change (user_id, kind, peer, seq, number)
    SELECT user_id, 'peer', peer, 0, last_change + 1 - row_number() OVER (ORDER BY peer DESC)
    FROM state JOIN created USING (user_id) WHERE peer_delivered > 0
)
SELECT 1 FROM account WHERE id = :user_id AND deleted_at IS NULL
"""

# Records what transactions have done for the account that began before it had changes.
CATCH_UP: Final = f"""
WITH {_STATE}, known AS (
    SELECT state.*, coalesce(summary.logged_after, 0) AS logged_after,
        state.peer_delivered > coalesce(summary.peer_delivered, 0)
            OR state.peer_read > coalesce(summary.peer_read, 0) AS moved,
        state.received_seq > coalesce(summary.received_seq, 0)
            OR state.sent_seq > coalesce(summary.sent_seq, 0) AS grown
    FROM state LEFT JOIN conversation_summary AS summary USING (user_id, peer)
), missing AS MATERIALIZED (
    SELECT user_id, 'sent' AS kind, peer, unlogged.seq
    FROM known CROSS JOIN LATERAL (
        SELECT seq FROM message
        WHERE received_by = known.peer AND sent_by = known.user_id AND known.sent_seq > 0
            AND (sent_at, seq) > (coalesce((
                SELECT sent_at FROM message
                WHERE received_by = known.peer AND seq = known.logged_after
            ), 0), known.logged_after)
    ) AS unlogged
    WHERE NOT EXISTS (
        SELECT FROM change WHERE change.user_id = known.user_id AND change.kind = 'sent'
            AND change.peer = known.peer AND change.seq = unlogged.seq
    )
    UNION ALL
    SELECT user_id, 'peer', peer, 0 FROM known WHERE moved
), {logging("missing")}, summarised AS ({
    summarising(("known WHERE moved OR grown", "user_id, peer", _STATE_COLUMNS))
}), settled AS (
    UPDATE sync_state SET settled = true
    WHERE user_id = :user_id AND :settled::boolean AND NOT EXISTS (SELECT FROM counted)
)
SELECT user_id FROM counted, told
"""

# Whether all transactions have ended that were running at a time. A transaction locks the table of
# messages shortly after it has begun.
NOW: Final = "SELECT clock_timestamp()"
SETTLED: Final = """
SELECT NOT EXISTS (
    SELECT FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)
    WHERE pg_locks.relation = 'message'::regclass AND pg_locks.mode = 'RowExclusiveLock'
        AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND activity.xact_start <= %s
)
"""

MARK_READ: Final = f"""
WITH mine AS (
    SELECT user_id, last_seq, EXISTS (SELECT FROM account WHERE id = :peer) AS peer_exists,
        coalesce((
            SELECT sent_at FROM message
            WHERE received_by = :user_id AND seq <= :seq ORDER BY seq DESC LIMIT 1
        ), 0) AS at,
        coalesce((
            SELECT read_seq FROM conversation_summary WHERE user_id = :user_id AND peer = :peer
        ), 0) AS before
    FROM inbox WHERE user_id = :user_id AND NOT closed
), moving AS (
    SELECT * FROM mine WHERE peer_exists AND before < :seq AND last_seq >= :seq
), seen AS (
    SELECT :peer::bigint AS user_id, :user_id::bigint AS peer, (
        SELECT seq FROM message WHERE received_by = :user_id AND sent_by = :peer
            AND (sent_at, seq) <= (at, :seq)
        ORDER BY sent_at DESC, seq DESC LIMIT 1
    ) AS seq
    FROM moving WHERE EXISTS (SELECT FROM sync_state WHERE user_id = :peer)
), moved AS MATERIALIZED (
    SELECT user_id, 'read' AS kind, :peer::bigint AS peer, 0 AS seq FROM moving
    UNION ALL
    SELECT user_id, 'peer', peer, 0 FROM seen WHERE seq > coalesce((
        SELECT peer_read FROM conversation_summary AS theirs
        WHERE theirs.user_id = seen.user_id AND theirs.peer = seen.peer
    ), 0)
), {logging("moved")}, summarised AS ({
    summarising(
        ("moving", "user_id, :peer::bigint", {"read_seq": ":seq", "read_at": "at"}),
        (
            "seen WHERE seq IS NOT NULL",
            "user_id, peer",
            {"peer_delivered": "seq", "peer_read": "seq"},
        ),
    )
})
SELECT last_seq, peer_exists FROM mine, told
"""

MOVING: Final = """
moving AS MATERIALIZED (
    SELECT given.user_id, given.seq, coalesce(delivered.seq, 0) AS before
    FROM unnest(%(users)s::bigint[], %(seqs)s::bigint[]) AS given (user_id, seq)
    JOIN inbox ON inbox.user_id = given.user_id AND NOT closed AND last_seq >= given.seq
    LEFT JOIN delivered ON delivered.user_id = given.user_id
    WHERE coalesce(delivered.seq, 0) < given.seq
)
"""
"""A part of a statement: delivered positions that move forward."""


def reached(of_messages: str = "", of_contacts: str = "") -> str:
    """SQL for the last messages up to `MOVING` positions, as `(sender, recipient, seq)`.

    `of_messages` and `of_contacts` are further conditions, on `found` and on `contact`.
    """
    # The order and the limit have the planner take the range of the primary key. Otherwise it would
    # read the whole inbox in the index of conversations, which has all columns.
    return f"""
    SELECT found.sent_by AS user_id, moving.user_id AS peer, max(found.seq) AS seq
    FROM moving CROSS JOIN LATERAL (
        SELECT sent_by, seq FROM message
        WHERE received_by = moving.user_id AND message.seq > before AND message.seq <= moving.seq
        ORDER BY message.seq LIMIT {FAN_OUT_STEP}
    ) AS found
    WHERE moving.seq - before <= {FAN_OUT_STEP} {of_messages}
    GROUP BY found.sent_by, moving.user_id
    UNION ALL
    SELECT contact.sent_by, moving.user_id, (
        SELECT seq FROM message
        WHERE received_by = moving.user_id AND sent_by = contact.sent_by
            AND (sent_at, seq) <= ((
                SELECT sent_at FROM message
                WHERE received_by = moving.user_id AND message.seq <= moving.seq
                ORDER BY seq DESC LIMIT 1
            ), moving.seq)
        ORDER BY sent_at DESC, seq DESC LIMIT 1
    )
    FROM moving JOIN contact ON contact.received_by = moving.user_id
    WHERE moving.seq - before > {FAN_OUT_STEP} {of_contacts}
    """


_REACHED: Final = reached(
    "AND EXISTS (SELECT FROM sync_state)"
    " AND EXISTS (SELECT FROM sync_state WHERE user_id = found.sent_by)",
    "AND EXISTS (SELECT FROM sync_state WHERE user_id = contact.sent_by)",
)
RECORD_DELIVERED: Final = f"""
WITH {MOVING}, reached AS ({_REACHED}), moved AS MATERIALIZED (
    SELECT user_id, 'peer' AS kind, peer, 0 AS seq, reached.seq AS upto FROM reached
    WHERE reached.seq > coalesce((
        SELECT peer_delivered FROM conversation_summary AS theirs
        WHERE theirs.user_id = reached.user_id AND theirs.peer = reached.peer
    ), 0)
), {logging("moved")}, summarised AS ({
    summarising(("moved", "user_id, peer", {"peer_delivered": "upto"}))
}), stored AS (
    INSERT INTO delivered (user_id, seq) SELECT user_id, seq FROM moving ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE SET seq = greatest(delivered.seq, excluded.seq)
)
SELECT user_id FROM counted, told
"""
