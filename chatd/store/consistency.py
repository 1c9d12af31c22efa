"""Statements that find what is inconsistent in a database, for SQLite and PostgreSQL.

Each returns a line of text for everything it finds. `open_inbox` are the inboxes of accounts that
are not deleted; what is left of others waits in `purge`.
"""

from __future__ import annotations

from typing import Final

MAX_FOUND: Final = 5
"""How much is reported of each kind."""

_SQLITE_INBOXES: Final = "SELECT * FROM inbox"
_POSTGRES_INBOXES: Final = "SELECT * FROM inbox WHERE NOT closed"

_IS_OPEN: Final = "{0} IN (SELECT user_id FROM open_inbox)"
_IS_NOBODYS: Final = (
    "{0} NOT IN (SELECT user_id FROM open_inbox) AND {0} NOT IN (SELECT user_id FROM purge)"
)

_CHECKS: Final = (
    # Inboxes are numbered without gaps, from 1 or from where nothing is removed. What is removed
    # may not be deleted yet.
    """
    SELECT 'inbox ' || user_id || ' ends with ' || last_seq || ', its first ' || removed_seq
        || ' are removed, but it has ' || coalesce(held, 0) || ' messages from '
        || coalesce(lowest, 0) || ' to ' || coalesce(highest, 0)
    FROM open_inbox LEFT JOIN (
        SELECT received_by, count(*) AS held, min(seq) AS lowest, max(seq) AS highest
        FROM message GROUP BY received_by
    ) AS found ON received_by = user_id
    WHERE removed_seq > last_seq OR CASE
        WHEN held IS NULL THEN last_seq > removed_seq
        ELSE highest > last_seq OR lowest > removed_seq + 1 OR held <> highest - lowest + 1
            OR (highest < last_seq AND last_seq > removed_seq)
    END
    """,
    # The order of times is that of seqs.
    """
    SELECT 'message ' || seq || ' of inbox ' || received_by || ' is older than the one before'
    FROM (
        SELECT received_by, seq, sent_at,
            lag(sent_at) OVER (PARTITION BY received_by ORDER BY seq) AS sent_before
        FROM message
    ) AS pairs WHERE sent_at < sent_before
    """,
    """
    SELECT 'inbox ' || user_id || ' is older than its last message'
    FROM open_inbox JOIN message ON received_by = user_id AND seq = last_seq
    WHERE sent_at > last_sent_at
    """,
    f"""
    SELECT DISTINCT 'messages of inbox ' || received_by || ', which does not exist'
    FROM message WHERE {_IS_NOBODYS.format("received_by")}
    """,
    """
    SELECT 'message ' || seq || ' of inbox ' || received_by || ' is deleted, but has a text'
    FROM message WHERE deleted_at IS NOT NULL AND text <> ''
    """,
    # Accounts and what belongs to them.
    """
    SELECT 'account ' || id || ' has no inbox'
    FROM account WHERE deleted_at IS NULL AND id NOT IN (SELECT user_id FROM open_inbox)
    """,
    """
    SELECT 'inbox ' || user_id || ' has no account'
    FROM open_inbox WHERE user_id NOT IN (SELECT id FROM account WHERE deleted_at IS NULL)
    """,
    """
    SELECT 'account ' || id || ' is not found by its name'
    FROM account WHERE username_folded <> lower(username)
    """,
    """
    SELECT 'account ' || id || ' has no password'
    FROM account WHERE deleted_at IS NULL AND (password_hash IS NULL OR email IS NULL)
    """,
    f"""
    SELECT 'token ' || id || ' of user ' || user_id || ', who does not exist'
    FROM token WHERE {_IS_NOBODYS.format("user_id")}
    """,
    """
    SELECT 'token ' || token.id || ' of user ' || user_id || ', who is disabled'
    FROM token JOIN account ON account.id = user_id WHERE disabled_at IS NOT NULL
    """,
    """
    SELECT 'token ' || id || ' is not stored as a hash' FROM token WHERE length(digest) <> 32
    """,
    """
    SELECT 'a key of user ' || sent_by || ' has no hash of its request'
    FROM idempotency WHERE length(fingerprint) <> 32 OR seq < 1
    """,
    f"""
    SELECT 'a block of user ' || user_id || ', who does not exist'
    FROM block WHERE {_IS_NOBODYS.format("user_id")}
    """,
    """
    SELECT 'the messages of user ' || user_id || ' are being erased, who is not deleted'
    FROM erasure WHERE user_id NOT IN (SELECT id FROM account WHERE deleted_at IS NOT NULL)
    """,
    # Who has written to whom.
    f"""
    SELECT 'user ' || sent_by || ' has written to ' || received_by || ', but is no contact'
    FROM (
        SELECT sent_by, received_by FROM message WHERE {_IS_OPEN.format("received_by")}
        EXCEPT SELECT sent_by, received_by FROM contact
    ) AS missing
    """,
    # Conversations and changes.
    f"""
    SELECT 'changes of user ' || user_id || ', who has none'
    FROM (
        SELECT user_id FROM change UNION SELECT user_id FROM conversation_summary
        EXCEPT SELECT user_id FROM sync_state
    ) AS lost WHERE {_IS_OPEN.format("user_id")}
    """,
    """
    SELECT 'change ' || number || ' of user ' || sync_state.user_id || ' is past the last'
    FROM change JOIN sync_state ON sync_state.user_id = change.user_id WHERE number > last_change
    """,
    """
    SELECT 'user ' || inbox.user_id || ' has read or received more of ' || peer || ' than there is'
    FROM conversation_summary AS summary JOIN open_inbox AS inbox ON inbox.user_id = summary.user_id
    WHERE received_seq > last_seq OR read_seq > last_seq
    """,
    """
    SELECT 'more of inbox ' || delivered.user_id || ' is delivered than there is'
    FROM delivered JOIN open_inbox AS inbox ON inbox.user_id = delivered.user_id
    WHERE seq > last_seq
    """,
)

# These look at two owners.
_ACROSS: Final = (
    """
    SELECT DISTINCT 'messages of the sender ' || sent_by || ', who has never existed'
    FROM message WHERE sent_by NOT IN (SELECT id FROM account)
    """,
    f"""
    SELECT DISTINCT 'keys of user ' || sent_by || ', who does not exist'
    FROM idempotency WHERE {_IS_NOBODYS.format("sent_by")}
    """,
    """
    SELECT 'user ' || user_id || ' blocks ' || blocked_id || ', who has never existed'
    FROM block WHERE blocked_id NOT IN (SELECT id FROM account)
    """,
    """
    SELECT 'user ' || summary.user_id || ' has sent ' || peer || ' more than there is'
    FROM conversation_summary AS summary JOIN open_inbox AS inbox ON inbox.user_id = peer
    WHERE sent_seq > last_seq OR peer_read > last_seq OR peer_delivered > last_seq
    """,
)

_SQLITE_CHECKS: Final = (
    # The index of conversations is exactly that of the messages up to `indexed_seq`.
    """
    SELECT 'inbox ' || user_id || ': ' || coalesce(indexed, 0) || ' of ' || coalesce(held, 0)
        || ' messages are in the index of conversations'
    FROM open_inbox LEFT JOIN (
        SELECT received_by, count(*) AS indexed FROM conversation GROUP BY received_by
    ) AS found ON found.received_by = user_id LEFT JOIN (
        SELECT received_by, count(*) AS held FROM message
        JOIN inbox ON inbox.user_id = received_by AND seq <= indexed_seq GROUP BY received_by
    ) AS counted ON counted.received_by = user_id
    WHERE coalesce(indexed, 0) <> coalesce(held, 0) OR indexed_seq > last_seq
    """,
    f"""
    SELECT 'inbox ' || indexed.received_by || ': the index of conversations has message '
        || indexed.seq || ', which is another'
    FROM conversation AS indexed LEFT JOIN message
        ON message.received_by = indexed.received_by AND message.seq = indexed.seq
            AND message.sent_by = indexed.sent_by AND message.sent_at = indexed.sent_at
    WHERE message.seq IS NULL AND {_IS_OPEN.format("indexed.received_by")}
    """,
)


def _sizes(size: str) -> str:
    """A check of the bytes of inboxes, where `size` is those of a text."""
    return f"""
    SELECT 'inbox ' || user_id || ' is said to have ' || text_bytes || ' bytes, but it has '
        || coalesce(size, 0)
    FROM open_inbox LEFT JOIN (
        SELECT received_by, sum({size}) AS size
        FROM message JOIN inbox ON user_id = received_by AND seq > removed_seq
        GROUP BY received_by
    ) AS held ON received_by = user_id
    WHERE text_bytes <> coalesce(size, 0)
    """


def _statement(inboxes: str, check: str) -> str:
    return f"WITH open_inbox AS ({inboxes}) {check} LIMIT {MAX_FOUND}"


SQLITE: Final = [
    _statement(_SQLITE_INBOXES, check)
    for check in (*_CHECKS, _sizes("length(CAST(text AS BLOB))"), *_ACROSS, *_SQLITE_CHECKS)
]
POSTGRES_OWN: Final = [
    _statement(_POSTGRES_INBOXES, check) for check in (*_CHECKS, _sizes("octet_length(text)"))
]
"""Those of `POSTGRES` that look at what belongs to one owner, so that they work in a lane."""
POSTGRES: Final = [*POSTGRES_OWN, *(_statement(_POSTGRES_INBOXES, check) for check in _ACROSS)]

COUNTS: Final = """
SELECT (SELECT count(*) FROM account WHERE deleted_at IS NULL),
    (SELECT count(*) FROM account WHERE deleted_at IS NULL AND disabled_at IS NOT NULL),
    (SELECT coalesce(sum(last_seq - removed_seq), 0) FROM open_inbox),
    (SELECT coalesce(sum(removed_seq), 0) FROM open_inbox),
    (SELECT min(first.sent_at) FROM open_inbox JOIN message AS first
        ON first.received_by = user_id AND first.seq = removed_seq + 1),
    (SELECT count(*) FROM purge),
    (SELECT backed_up_at FROM history)
"""
SQLITE_COUNTS: Final = f"WITH open_inbox AS ({_SQLITE_INBOXES}) {COUNTS}"
POSTGRES_COUNTS: Final = f"WITH open_inbox AS ({_POSTGRES_INBOXES}) {COUNTS}"
