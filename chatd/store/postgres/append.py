"""Appending on PostgreSQL: one statement a batch, carried out once however often it is sent."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import psycopg2.errors
from twisted.internet.defer import Deferred, FirstError, gatherResults

from chatd.errors import DomainError, StoreUnavailable
from chatd.model import Appended, Draft
from chatd.postgres.array_literals import array, texts
from chatd.postgres.connection import Rows
from chatd.postgres.notify_payloads import CHANNEL, LINES_BYTES, QUOTED_BYTES, woken_prefix
from chatd.store.postgres.retry import RetryingExecutor
from chatd.store.results import first_use, replayed, user_not_found
from chatd.store.statements import KEY, MESSAGE, forget_keys

BATCH_SECONDS: Final = 900
"""How long the answer of a batch is kept; far longer than any statement is tried again."""

# Times are taken after the locks are: the order of `sent_at` in an inbox is the order of commit.
_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

# The drafts that are to be stored, with `back`: how many seqs before the end their inbox will have.
_NUMBERED: Final = """
        row_number() OVER (PARTITION BY received_by ORDER BY place)
        - count(*) OVER (PARTITION BY received_by) AS back
"""
_WITHOUT_KEYS: Final = f"""
WITH fresh AS (
    SELECT draft.*, NULL::text AS key, NULL::bytea AS fingerprint, {_NUMBERED}
    FROM unnest(%(senders)s::bigint[], %(recipients)s::bigint[], %(texts)s::text[])
        WITH ORDINALITY AS draft (sent_by, received_by, text, place)
    WHERE EXISTS (SELECT FROM inbox WHERE user_id = draft.received_by AND NOT closed)
), """

# `used`: drafts whose key an earlier transaction used. Of the others, the first with a recipient
# uses the key; the rest of its namesakes are answered from the first.
_WITH_KEYS: Final = f"""
WITH draft AS (
    SELECT * FROM unnest(%(senders)s::bigint[], %(recipients)s::bigint[], %(texts)s::text[],
                         %(keys)s::text[], %(fingerprints)s::bytea[])
        WITH ORDINALITY AS draft (sent_by, received_by, text, key, fingerprint, place)
), used AS (
    SELECT draft.place, kept.seq, kept.sent_at, kept.fingerprint
    FROM draft JOIN idempotency AS kept ON kept.sent_by = draft.sent_by AND kept.key = draft.key
), deliverable AS (
    SELECT draft.*, row_number() OVER (PARTITION BY sent_by, key ORDER BY place) AS use
    FROM draft
    WHERE EXISTS (SELECT FROM inbox WHERE user_id = draft.received_by AND NOT closed)
        AND NOT EXISTS (SELECT FROM used WHERE used.place = draft.place)
), fresh AS (
    SELECT deliverable.*, {_NUMBERED}
    FROM deliverable WHERE key IS NULL OR use = 1
), """

# See `chatd.postgres.notify_payloads.MessageNotice`. Whoever waits for a message elsewhere is
# answered with it from here, and reads the database only for what is too long.
_LINE: Final = f"""
    '[' || received_by || ',' || seq || CASE
        WHEN octet_length(text) <= {QUOTED_BYTES}
            AND octet_length(to_json(text)::text) <= {QUOTED_BYTES}
        THEN ',' || sent_by || ',' || sent_at || ',' || to_json(text)::text ELSE ''
    END || ']'
"""

# Inserting "on conflict" is how rows are updated in a certain order, here that of user ids, so that
# transactions never wait for each other in a circle; UPDATE takes them as the plan happens to.
# It sees the row as it is once the lock is had, and a closed inbox gives none.
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
), answered AS (
    INSERT INTO batch (id, places, seqs, times)
    SELECT %(id)s::uuid, array_agg(place), array_agg(seq), array_agg(sent_at)
    FROM numbered HAVING count(*) > 0
), told AS (
    SELECT count(pg_notify(%(channel)s, %(origin)s || lines)) FROM (
        SELECT string_agg(line, ',' ORDER BY place) AS lines FROM (
            SELECT *, sum(octet_length(line) + 1) OVER (ORDER BY place) / {LINES_BYTES} AS part
            FROM (SELECT place, {_LINE} AS line FROM numbered) AS each
        ) AS parted GROUP BY part ORDER BY part
    ) AS payloads
)"""

# Should another transaction use the same key meanwhile, this one waits for it and is undone by the
# unique index. In order, so that two with several keys in common do not wait for each other.
_KEPT: Final = f""", kept AS (
    INSERT INTO idempotency ({KEY}) SELECT {KEY} FROM numbered
    WHERE key IS NOT NULL ORDER BY sent_by, key
)"""

# `told` is evaluated only because it is asked for; it gives one row.
_ANSWER: Final = """
SELECT place, seq, sent_at, NULL::bytea FROM numbered, told
"""

_APPEND: Final = _WITHOUT_KEYS + _STORED + _ANSWER
_APPEND_KEYED: Final = f"""{_WITH_KEYS}{_STORED}{_KEPT}{_ANSWER}
UNION ALL
SELECT place, seq, sent_at, fingerprint FROM used
UNION ALL
SELECT place, NULL, NULL, NULL FROM deliverable WHERE key IS NOT NULL AND use > 1
"""

# What the transaction with this id answered, with the keys that were used before or by it.
_ANSWERED: Final = """
SELECT place, seq, sent_at, NULL::bytea
FROM batch, unnest(places, seqs, times) AS answer (place, seq, sent_at)
WHERE id = %(id)s::uuid
UNION ALL
SELECT place, kept.seq, kept.sent_at, kept.fingerprint
FROM unnest(%(senders)s::bigint[], %(keys)s::text[]) WITH ORDINALITY AS draft (sent_by, key, place)
JOIN idempotency AS kept ON kept.sent_by = draft.sent_by AND kept.key = draft.key
WHERE place NOT IN (
    SELECT unnest(places) FROM batch WHERE id = %(id)s::uuid)
"""

_BATCH_KEY: Final = "batch_pkey"
_IDEMPOTENCY_KEY: Final = "idempotency_pkey"

FORGET_STEP: Final = 5000

_FORGET_BATCHES: Final = "DELETE FROM batch WHERE id < %s::uuid"


class Appender:
    """Appends to the inboxes of one database.

    `now` tells microseconds; it only names batches, messages carry the server's time. `lane`: see
    `chatd.store.postgres.store.PostgresStore`.
    """

    def __init__(
        self,
        executor: RetryingExecutor,
        *,
        now: Callable[[], int],
        lane: Callable[[int], int] | None = None,
    ) -> None:
        self._executor = executor
        self._now = now
        self._lane = lane

    async def append(self, drafts: Sequence[Draft], node_id: str) -> list[Appended | DomainError]:
        """See `IStore.append`; with several lanes, a transaction each. `node_id` notifies."""
        prefix = woken_prefix(node_id)
        if self._lane is None:
            return await self._append_lane(drafts, prefix)
        lanes: dict[int, list[int]] = {}
        for place, draft in enumerate(drafts):
            lanes.setdefault(self._lane(draft.received_by), []).append(place)
        try:
            answers = await gatherResults(
                [
                    Deferred.fromCoroutine(
                        self._append_lane([drafts[place] for place in places], prefix)
                    )
                    for places in lanes.values()
                ],
                consumeErrors=True,
            )
        except FirstError as first:
            # Other lanes may have been stored: what became of the batch is not known.
            first.subFailure.raiseException()
        found: dict[int, Appended | DomainError] = {}
        for places, outcomes in zip(lanes.values(), answers, strict=True):
            found.update(zip(places, outcomes, strict=True))
        return [found[place] for place in range(len(drafts))]

    async def _append_lane(
        self, drafts: Sequence[Draft], prefix: str
    ) -> list[Appended | DomainError]:
        found: dict[int, Appended | DomainError] = {}
        left = list(range(len(drafts)))
        while left:
            asked = [drafts[place] for place in left]
            outcomes = _outcomes(asked, await self._once(asked, prefix))
            again = []
            for place, outcome in zip(left, outcomes, strict=True):
                if outcome is None:
                    again.append(place)
                else:
                    found[place] = outcome
            left = again
        return [found[place] for place in range(len(drafts))]

    async def _once(self, drafts: Sequence[Draft], prefix: str) -> Rows:
        """Carry the batch out once, however often its statement must be sent."""
        parameters = _parameters(drafts, _batch_id(self._now()), prefix)
        keyed = any(draft.idempotency is not None for draft in drafts)
        # Every round finds at least one key that it did not see the round before.
        for _ in range(len(drafts) + 1):
            try:
                statement = _APPEND_KEYED if keyed else _APPEND
                return await self._executor.run(statement, parameters, prepare=True)
            except psycopg2.errors.UniqueViolation as violation:
                broken = violation.diag.constraint_name
                if broken == _BATCH_KEY:
                    # The first time it was carried out, and its answer was lost on the way.
                    return await self._executor.run(_ANSWERED, parameters)
                if broken != _IDEMPOTENCY_KEY:
                    raise
                # Another process used one of the keys just now: the next time it is seen.
        raise StoreUnavailable("others are using the same Idempotency-Keys", retry_after=1)

    async def forget(self) -> None:
        """Drop old keys and batches."""
        while await self._executor.execute(forget_keys(self._now(), FORGET_STEP)):
            pass
        old = self._now() - BATCH_SECONDS * 1_000_000
        await self._executor.run(_FORGET_BATCHES, (f"{old << 64:032x}",))


def _batch_id(now: int) -> str:
    """An id for a batch: 64 bits of time in microseconds, then 64 random ones."""
    return f"{now << 64 | secrets.randbits(64):032x}"


def _parameters(drafts: Sequence[Draft], id: str, prefix: str) -> dict[str, Any]:
    keys = [draft.idempotency for draft in drafts]
    return {
        "id": id,
        "channel": CHANNEL,
        "origin": prefix,
        "senders": array([draft.sent_by for draft in drafts]),
        "recipients": array([draft.received_by for draft in drafts]),
        "texts": texts([draft.text for draft in drafts]),
        "keys": texts([None if key is None else key.key for key in keys]),
        "fingerprints": array([None if key is None else key.fingerprint for key in keys]),
    }


def _outcomes(
    drafts: Sequence[Draft], rows: Iterable[tuple[Any, ...]]
) -> list[Appended | DomainError | None]:
    """What became of each draft; None where it is to be tried again.

    That is so when the draft that was to use its key found its recipient gone at the last moment.
    """
    answered = {row[0]: row for row in rows}
    results: list[Appended | DomainError | None] = []
    keys: dict[tuple[int, str], tuple[bytes, int, int]] = {}
    for place, draft in enumerate(drafts, 1):
        wanted = draft.idempotency
        name = None if wanted is None else (draft.sent_by, wanted.key)
        _, seq, sent_at, used = answered.get(place, (place, None, None, None))
        if used is not None:
            results.append(replayed(draft, bytes(used), seq, sent_at))
        elif seq is not None:
            results.append(first_use(draft, seq, sent_at))
            if wanted is not None and name is not None:
                keys[name] = (wanted.fingerprint, seq, sent_at)
        elif name is not None and name in keys:
            results.append(replayed(draft, *keys[name]))
        else:
            results.append(None if place in answered else user_not_found(draft))
    return results
