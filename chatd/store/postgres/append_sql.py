"""SQL that appends a batch of messages to inboxes in one statement.

The parameters are arrays with one element per draft. Each statement returns rows of place (from 1),
seq, sent_at and refusal, for batches with keys followed by fingerprint, text, edited_at and
deleted_at. The fingerprint is that of the first request with the draft's key, and NULL if the draft
was stored now; text and times are those of its message now, NULL if its inbox is gone. A refusal is
one of the constants below. A row without seq and refusal is for a draft that has to be tried again,
and there is no row for a draft without recipient.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from chatd.postgres.notify_payloads import MAX_TEXT_BYTES, SPLIT_BYTES
from chatd.store.postgres.silent import silent
from chatd.store.postgres.sync_sql import LOG_RECEIVED, LOG_SENT, MICROSECONDS
from chatd.store.results import RANDOM_MICROSECONDS
from chatd.store.statements import KEY, NEW_MESSAGE
from chatd.store.sync_statements import SENT

BLOCKED: Final = "b"
FULL: Final = "f"
LARGE: Final = "l"
UNKNOWN: Final = "u"
"""Nobody may write first, and neither has written to the other."""

# Scalar subqueries are executed only if they are needed, and always by index. Most recipients have
# never blocked anybody, which their inbox tells.
_BLOCKED: Final = f"""
        WHEN block_changes > 0 AND (
            SELECT 1 FROM block
            WHERE block.user_id = draft.received_by AND blocked_id = draft.sent_by
        ) IS NOT NULL THEN '{BLOCKED}'
"""
# What the recipient has sent is in the sender's lane, which has been asked before.
_FAMILIAR: Final = "NOT (%(familiar)s::boolean[])[draft.place]"
_HAS_ANSWERED: Final = """(
            SELECT 1 FROM contact
            WHERE contact.sent_by = draft.received_by AND contact.received_by = draft.sent_by
        ) IS NULL"""


def _unknown(sharded: bool) -> str:
    return f"""
        WHEN draft.sent_by <> draft.received_by AND (
            SELECT 1 FROM contact
            WHERE contact.sent_by = draft.sent_by AND contact.received_by = draft.received_by
        ) IS NULL AND {_FAMILIAR if sharded else _HAS_ANSWERED} THEN '{UNKNOWN}'
"""


# Drafts of one batch count together only when the next one comes.
_FULL: Final = f"""
        WHEN last_seq - removed_seq >= %(max_messages)s::bigint THEN '{FULL}'
        WHEN text_bytes + octet_length(text) > %(max_bytes)s::bigint THEN '{LARGE}'
"""

# Added to each draft to be stored: `back`, its distance from the new end of the inbox, 0 or less.
_NUMBERED: Final = """
        row_number() OVER (PARTITION BY received_by, refusal ORDER BY place)
        - count(*) OVER (PARTITION BY received_by, refusal) AS back
"""


def _deliverable(draft: str, unknown: str, condition: str = "true") -> str:
    """SQL for the drafts that have a recipient, each with its `refusal`, usually NULL."""
    return f"""
    SELECT draft.*, block_changes, CASE {_BLOCKED} {unknown} {_FULL} END
        AS refusal
    FROM {draft} JOIN inbox ON user_id = draft.received_by AND NOT closed
    WHERE {condition}
"""


_DRAFTS: Final = """
    unnest(%(senders)s::bigint[], %(recipients)s::bigint[], %(texts)s::text[])
        WITH ORDINALITY AS draft (sent_by, received_by, text, place)
"""


# The accounts of the batch that have changes.
_SYNCHRONISED: Final = """
WITH synchronised AS MATERIALIZED (
    SELECT user_id FROM sync_state WHERE user_id = ANY(%(participants)s::bigint[])
), """
# Unless the statement records changes, it does nothing if there are any.
_GATE: Final = "NOT EXISTS (SELECT FROM synchronised)"


def _without_keys(unknown: str, gate: str) -> str:
    return f"""
fresh AS (
    SELECT deliverable.*, NULL::text AS key, NULL::bytea AS fingerprint, {_NUMBERED}
    FROM ({_deliverable(_DRAFTS, unknown)}) AS deliverable WHERE {gate}
), """


# `used` has the drafts whose key was used by an earlier transaction. Of the other drafts with the
# same key, the first that is not refused is stored and the rest are replays of it.
def _used(sharded: bool) -> str:
    # Keys are with the recipient there. Whoever has used one for another recipient has another
    # claim.
    same_recipient = "AND previous.received_by = draft.received_by" if sharded else ""
    return f"""
    SELECT draft.place, previous.seq, previous.sent_at, previous.fingerprint,
        message.text, message.edited_at, message.deleted_at
    FROM draft JOIN idempotency AS previous
        ON previous.sent_by = draft.sent_by AND previous.key = draft.key {same_recipient}
    LEFT JOIN inbox ON user_id = draft.received_by AND NOT closed
    LEFT JOIN message ON message.received_by = user_id AND message.seq = previous.seq
"""


def _with_keys(unknown: str, gate: str, sharded: bool) -> str:
    unused = "NOT EXISTS (SELECT FROM used WHERE used.place = draft.place)"
    return f"""
draft AS (
    SELECT * FROM unnest(%(senders)s::bigint[], %(recipients)s::bigint[], %(texts)s::text[],
                         %(keys)s::text[], %(fingerprints)s::bytea[])
        WITH ORDINALITY AS draft (sent_by, received_by, text, key, fingerprint, place)
), used AS ({_used(sharded)}), deliverable AS (
    SELECT *, count(*) FILTER (WHERE refusal IS NULL)
        OVER (PARTITION BY sent_by, key ORDER BY place) AS use
    FROM ({_deliverable("draft", unknown, unused)}) AS deliverable
), fresh AS (
    SELECT deliverable.*, {_NUMBERED}
    FROM deliverable WHERE (key IS NULL OR use = 1 OR refusal IS NOT NULL) AND {gate}
), """


# See `chatd.postgres.notify_payloads.MessageNotice`. Other processes answer polls with the texts in
# notices, and read only those that are too long from the database.
_NOTICE: Final = f"""
    '[' || received_by || ',' || seq || ',' || sent_by || ',' || sent_at || CASE
        WHEN octet_length(text) <= {MAX_TEXT_BYTES}
            AND octet_length(to_json(text)::text) <= {MAX_TEXT_BYTES}
        THEN ',' || to_json(text)::text ELSE ''
    END || ']'
"""

# INSERT ... ON CONFLICT updates rows in a defined order, here that of user ids, which prevents
# deadlocks; the order of UPDATE depends on the plan. It sees each row as of the moment when the row
# was locked, and returns nothing for an inbox that was closed, or whose owner has changed their
# blocks, since the statement began. The time is taken after the lock, so that in an inbox the order
# of `sent_at` is that of commit. It grows with each transaction, by a random number where
# the clock was set back: if the database is set back as well, the messages that take the place of
# lost ones have other times, which cursors notice.
_STORED: Final = f"""
advanced AS (
    INSERT INTO inbox (user_id, last_seq, last_sent_at, block_changes, text_bytes)
    SELECT received_by, count(*), 0, max(block_changes), sum(octet_length(text))
    FROM fresh WHERE refusal IS NULL
    GROUP BY received_by ORDER BY received_by
    ON CONFLICT (user_id) DO UPDATE SET
        last_seq = inbox.last_seq + excluded.last_seq,
        text_bytes = inbox.text_bytes + excluded.text_bytes,
        last_sent_at = greatest(
            {MICROSECONDS}, inbox.last_sent_at + 1 + floor(random() * {RANDOM_MICROSECONDS})::bigint
        )
    WHERE NOT inbox.closed AND inbox.block_changes = excluded.block_changes
    RETURNING user_id, last_seq, last_sent_at
), numbered AS (
    SELECT fresh.*, last_seq + back AS seq, last_sent_at AS sent_at
    FROM fresh LEFT JOIN advanced ON user_id = received_by AND refusal IS NULL
), stored AS (
    INSERT INTO message ({NEW_MESSAGE}) SELECT {NEW_MESSAGE} FROM numbered WHERE seq IS NOT NULL
)"""

_RECORDED: Final = """, recorded AS (
    INSERT INTO batch (id, places, seqs, times)
    SELECT %(id)s::uuid, array_agg(place), array_agg(seq), array_agg(sent_at)
    FROM numbered WHERE seq IS NOT NULL HAVING count(*) > 0
)"""
# The owner is the same whatever is stored, so that the id is found again. The senders are told of
# what is recorded here, see `chatd.store.sharded.outbox`.
_OWNER: Final = "(%(recipients)s::bigint[])[1]"
_RECORDED_TO_TELL: Final = f""", recorded AS (
    INSERT INTO batch (owner, id, places, seqs, times, senders, recipients, kind)
    SELECT {_OWNER}, %(id)s::uuid, array_agg(place), array_agg(seq), array_agg(sent_at),
        array_agg(sent_by), array_agg(received_by), '{SENT}'
    FROM numbered WHERE seq IS NOT NULL HAVING count(*) > 0
)"""

_NOTIFIED: Final = f""", notified AS (
    SELECT count(pg_notify(%(channel)s, %(origin)s || lines)) FROM (
        SELECT string_agg(line, ',' ORDER BY place) AS lines FROM (
            SELECT *, sum(octet_length(line) + 1) OVER (ORDER BY place) / {SPLIT_BYTES} AS part
            FROM (
                SELECT place, {_NOTICE} AS line FROM numbered WHERE seq IS NOT NULL
            ) AS each
        ) AS parted GROUP BY part ORDER BY part
    ) AS payloads
)"""


# If a concurrent transaction uses the same key, this one waits for it and then fails on the unique
# index. The rows are ordered to prevent deadlocks between transactions that share several keys.
def _remember_keys(columns: str) -> str:
    return f""", keys AS (
    INSERT INTO idempotency ({columns}) SELECT {columns} FROM numbered
    WHERE key IS NOT NULL AND seq IS NOT NULL ORDER BY sent_by, key
)"""


# While the inbox is locked no other transaction can add the same pair.
_ADD_CONTACTS: Final = """, contacts AS (
    INSERT INTO contact (sent_by, received_by)
    SELECT DISTINCT sent_by, received_by FROM numbered WHERE seq IS NOT NULL
    ON CONFLICT DO NOTHING
)"""

# A transaction that writes nothing commits without waiting for a synchronous standby. But what it
# has found may not be there yet: the connection that wrote it may have been lost while it waited.
# Any entry of the log has the commit wait.
_DURABLE: Final = """durable AS (
    SELECT pg_logical_emit_message(true, 'chatd', ''::text){}
)"""

_NO_KEY: Final = "NULL::bytea, NULL::text, NULL::bigint, NULL::bigint"
_WAITING: Final = ", " + _DURABLE.format(" FROM (SELECT FROM used LIMIT 1) AS replayed")
_REPLAYED: Final = "place, seq, sent_at, NULL::text, fingerprint, text, edited_at, deleted_at"
_REPLAYS: Final = f"""
UNION ALL
SELECT {_REPLAYED} FROM used, durable
UNION ALL
SELECT place, NULL, NULL, NULL, {_NO_KEY} FROM deliverable
WHERE key IS NOT NULL AND use > 1 AND refusal IS NULL
"""


@cache
def append(
    *,
    keyed: bool,
    known_only: bool,
    linked: bool,
    notifying: bool = True,
    sharded: bool = False,
) -> str:
    """The statement, for batches with keys or without; with `known_only` nobody may write first.

    If it is `sharded`, which is not `notifying`, it is run in the lane of the recipients, so it
    records nothing for the senders, but `batch` says what they are to be told.

    Unless it is `notifying`, it notifies nobody, and returns a row of place -1 for each account for
    which it has recorded changes, with its id as the seq.

    If it is `linked`, it also stores contacts, and records changes of accounts that have them. If
    not, and there are such accounts, it has no effect and returns a row of place 0 for each, with
    its id as the seq.
    """
    gate = "true" if linked else _GATE
    more = f", {_NO_KEY}" if keyed else ""
    unknown = _unknown(sharded) if known_only else ""
    log = LOG_RECEIVED if sharded else LOG_SENT if notifying else silent(LOG_SENT)
    # `notified` and `told` have one row; PostgreSQL would not evaluate them if they were not
    # selected from.
    return "".join(
        [
            _SYNCHRONISED,
            _with_keys(unknown, gate, sharded) if keyed else _without_keys(unknown, gate),
            _STORED,
            _RECORDED_TO_TELL if sharded else _RECORDED,
            _NOTIFIED if notifying else "",
            _remember_keys(f"received_by, {KEY}" if sharded else KEY) + _WAITING if keyed else "",
            _ADD_CONTACTS + log if linked else "",
            f"SELECT place, seq, sent_at, refusal{more} FROM numbered",
            ", notified" if notifying else "",
            ", told" if linked and notifying else "",
            f" UNION ALL SELECT -1, user_id, NULL, NULL{more} FROM counted"
            if linked and not notifying
            else "",
            "" if linked else f" UNION ALL SELECT 0, user_id, NULL, NULL{more} FROM synchronised",
            _REPLAYS if keyed else "",
        ]
    )


@cache
def replay(*, sharded: bool = False) -> str:
    """The result of the transaction with this id, for keys from before it as well as its own.

    It has no rows for drafts that were not stored.
    """
    owner = f"owner = {_OWNER} AND" if sharded else ""
    return f"""
WITH recorded AS (
    SELECT result.* FROM batch, unnest(places, seqs, times) AS result (place, seq, sent_at)
    WHERE {owner} id = %(id)s::uuid
), draft AS (
    SELECT * FROM unnest(%(senders)s::bigint[], %(recipients)s::bigint[], %(keys)s::text[])
        WITH ORDINALITY AS draft (sent_by, received_by, key, place)
    WHERE place NOT IN (SELECT place FROM recorded)
), used AS ({_used(sharded)}), {_DURABLE.format("")}
SELECT place, seq, sent_at, NULL::text, {_NO_KEY} FROM recorded, durable
UNION ALL
SELECT {_REPLAYED} FROM used, durable
"""
