"""SQL that appends a batch of messages to inboxes in one statement.

The parameters are arrays with one element per draft. Each statement returns rows of place (from 1),
seq, sent_at and fingerprint. The fingerprint is that of the first request with the draft's key, and
NULL if the draft was stored now. A row without seq is for a draft that repeats the key of another
draft of the batch, and there is no row for a draft without recipient.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from chatd.postgres.notify_payloads import MAX_TEXT_BYTES, SPLIT_BYTES
from chatd.store.postgres.sync_sql import LOG_SENT
from chatd.store.statements import KEY, MESSAGE

# The time is taken after the locks, so that in an inbox the order of `sent_at` is that of commit.
_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

# Added to each draft to be stored: `back`, its distance from the new end of the inbox, 0 or less.
_NUMBERED: Final = """
        row_number() OVER (PARTITION BY received_by ORDER BY place)
        - count(*) OVER (PARTITION BY received_by) AS back
"""
# The accounts of the batch that have changes.
_SYNCHRONISED: Final = """
WITH synchronised AS MATERIALIZED (
    SELECT user_id FROM sync_state WHERE user_id = ANY(%(participants)s::bigint[])
), """
# Unless the statement records changes, it does nothing if there are any.
_GATE: Final = " AND NOT EXISTS (SELECT FROM synchronised)"

_WITHOUT_KEYS: Final = f"""
fresh AS (
    SELECT draft.*, NULL::text AS key, NULL::bytea AS fingerprint, {_NUMBERED}
    FROM unnest(%(senders)s::bigint[], %(recipients)s::bigint[], %(texts)s::text[])
        WITH ORDINALITY AS draft (sent_by, received_by, text, place)
    WHERE EXISTS (SELECT FROM inbox WHERE user_id = draft.received_by AND NOT closed){{gate}}
), """

# `used` has the drafts whose key was used by an earlier transaction. Of the other drafts with the
# same key, the first that has a recipient is stored and the rest are replays of it.
_WITH_KEYS: Final = f"""
draft AS (
    SELECT * FROM unnest(%(senders)s::bigint[], %(recipients)s::bigint[], %(texts)s::text[],
                         %(keys)s::text[], %(fingerprints)s::bytea[])
        WITH ORDINALITY AS draft (sent_by, received_by, text, key, fingerprint, place)
), used AS (
    SELECT draft.place, previous.seq, previous.sent_at, previous.fingerprint
    FROM draft JOIN idempotency AS previous
        ON previous.sent_by = draft.sent_by AND previous.key = draft.key
), deliverable AS (
    SELECT draft.*, row_number() OVER (PARTITION BY sent_by, key ORDER BY place) AS use
    FROM draft
    WHERE EXISTS (SELECT FROM inbox WHERE user_id = draft.received_by AND NOT closed)
        AND NOT EXISTS (SELECT FROM used WHERE used.place = draft.place)
), fresh AS (
    SELECT deliverable.*, {_NUMBERED}
    FROM deliverable WHERE (key IS NULL OR use = 1){{gate}}
), """

# See `chatd.postgres.notify_payloads.MessageNotice`. Other processes answer polls with the texts in
# notices, and read only those that are too long from the database.
_NOTICE: Final = f"""
    '[' || received_by || ',' || seq || CASE
        WHEN octet_length(text) <= {MAX_TEXT_BYTES}
            AND octet_length(to_json(text)::text) <= {MAX_TEXT_BYTES}
        THEN ',' || sent_by || ',' || sent_at || ',' || to_json(text)::text ELSE ''
    END || ']'
"""

# INSERT ... ON CONFLICT updates rows in a defined order, here that of user ids, which prevents
# deadlocks; the order of UPDATE depends on the plan. It sees each row as of the moment when the row
# was locked, and returns nothing for a closed inbox.
_STORED: Final = f"""
advanced AS (
    INSERT INTO inbox (user_id, last_seq, last_sent_at)
    SELECT received_by, count(*), 0 FROM fresh GROUP BY received_by ORDER BY received_by
    ON CONFLICT (user_id) DO UPDATE SET
        last_seq = inbox.last_seq + excluded.last_seq,
        last_sent_at = greatest(inbox.last_sent_at, {_NOW})
    WHERE NOT inbox.closed
    RETURNING user_id, last_seq, last_sent_at
), numbered AS (
    SELECT fresh.*, last_seq + back AS seq, last_sent_at AS sent_at
    FROM fresh JOIN advanced ON user_id = received_by
), stored AS (
    INSERT INTO message ({MESSAGE}) SELECT {MESSAGE} FROM numbered
), recorded AS (
    INSERT INTO batch (id, places, seqs, times)
    SELECT %(id)s::uuid, array_agg(place), array_agg(seq), array_agg(sent_at)
    FROM numbered HAVING count(*) > 0
), notified AS (
    SELECT count(pg_notify(%(channel)s, %(origin)s || lines)) FROM (
        SELECT string_agg(line, ',' ORDER BY place) AS lines FROM (
            SELECT *, sum(octet_length(line) + 1) OVER (ORDER BY place) / {SPLIT_BYTES} AS part
            FROM (SELECT place, {_NOTICE} AS line FROM numbered) AS each
        ) AS parted GROUP BY part ORDER BY part
    ) AS payloads
)"""

# If a concurrent transaction uses the same key, this one waits for it and then fails on the unique
# index. The rows are ordered to prevent deadlocks between transactions that share several keys.
_REMEMBER_KEYS: Final = f""", keys AS (
    INSERT INTO idempotency ({KEY}) SELECT {KEY} FROM numbered
    WHERE key IS NOT NULL ORDER BY sent_by, key
)"""

# While the inbox is locked no other transaction can add the same pair.
_ADD_CONTACTS: Final = """, contacts AS (
    INSERT INTO contact (sent_by, received_by) SELECT DISTINCT sent_by, received_by FROM numbered
    ON CONFLICT DO NOTHING
)"""

# `notified` has one row; PostgreSQL would not evaluate it if it were not selected from.
_RESULT: Final = """
SELECT place, seq, sent_at, NULL::bytea FROM numbered, notified"""

_REFUSED: Final = """
UNION ALL SELECT 0, user_id, NULL, NULL FROM synchronised
"""
_REPLAYS: Final = """
UNION ALL
SELECT place, seq, sent_at, fingerprint FROM used
UNION ALL
SELECT place, NULL, NULL, NULL FROM deliverable WHERE key IS NOT NULL AND use > 1
"""


@cache
def append(*, keyed: bool, linked: bool) -> str:
    """The statement for drafts of which some have keys.

    If it is `linked`, it also stores contacts, and records changes of accounts that have them. If
    not, and there are such accounts, it has no effect and returns a row of place 0 for each, with
    its id as the seq.
    """
    begin = _WITH_KEYS if keyed else _WITHOUT_KEYS
    return "".join(
        [
            _SYNCHRONISED,
            begin.replace("{gate}", "" if linked else _GATE),
            _STORED,
            _REMEMBER_KEYS if keyed else "",
            _ADD_CONTACTS + LOG_SENT + _RESULT + ", told" if linked else _RESULT + _REFUSED,
            _REPLAYS if keyed else "",
        ]
    )


# The result of the transaction with this id, for keys from before it as well as its own.
REPLAY: Final = """
SELECT place, seq, sent_at, NULL::bytea
FROM batch, unnest(places, seqs, times) AS result (place, seq, sent_at)
WHERE id = %(id)s::uuid
UNION ALL
SELECT place, previous.seq, previous.sent_at, previous.fingerprint
FROM unnest(%(senders)s::bigint[], %(keys)s::text[]) WITH ORDINALITY AS draft (sent_by, key, place)
JOIN idempotency AS previous
    ON previous.sent_by = draft.sent_by AND previous.key = draft.key
WHERE place NOT IN (
    SELECT unnest(places) FROM batch WHERE id = %(id)s::uuid)
"""
