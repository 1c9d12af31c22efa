"""Claims on Idempotency-Keys: how a key is used once although sender and recipient are apart.

A send with a key is two transactions. The first one claims the key in the sender's lane, for the
fingerprint of the request; the second one stores the message with its key in the recipient's lane.

Why a key stores at most one message, and a repeated request returns it:

1. At any time there is at most one claim for a key, because (sent_by, key) is its primary key. A
   send goes on only if the claim has its own fingerprint, else it is `IdempotencyKeyReused`.
2. A fingerprint determines the recipient. So all sends that go on with a key, while its claim is
   there, are for one recipient, and hence in one lane, where (received_by, sent_by, key) is a
   primary key: one of them stores the message, and the others return that. If the process dies
   between the two transactions nothing is stored, and a repetition finds its own claim.
3. A claim is removed only if no send that goes on with it can store anything any more:
   a. A send that was refused removes the claim that it has made itself, unless another send has
      found it since: that one takes the claim from its `holder`, for good. A send whose outcome is
      unknown removes nothing.
   b. After `CLAIM_SECONDS` since the last send that went on with it. The key of the message is
      kept for `KEY_SECONDS` since it was stored, and no send takes the difference, a day, from its
      first transaction to its second.
4. So as long as a stored key is remembered, its claim is there, and a send with another fingerprint
   is refused. After that, the key may be used again, as on one server.

Both transactions are safe to repeat: the same `holder` claims again, and a batch has an id. The
simulator (`tests/simulation/sharded_database.py`) has processes die, statements come late and
shards move in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from chatd.model import Draft, IdempotencyKey
from chatd.postgres.array_literals import array, texts
from chatd.store.postgres.retry import Executor
from chatd.store.postgres.sync_sql import MICROSECONDS
from chatd.store.results import KEY_SECONDS
from chatd.store.statements import Rows, Statement

CLAIM_SECONDS: Final = KEY_SECONDS + 24 * 3600
DELETE_CLAIMS_STEP: Final = 1000

Key = tuple[int, str]
"""The sender and the key."""

# In the order of keys, as they lock rows.
_CLAIM: Final = f"""
INSERT INTO claim (sent_by, key, fingerprint, at, holder)
SELECT sent_by, key, fingerprint, {MICROSECONDS}, %(holder)s::uuid
FROM unnest(%(senders)s::bigint[], %(keys)s::text[], %(fingerprints)s::bytea[])
    AS given (sent_by, key, fingerprint)
ORDER BY sent_by, key
ON CONFLICT (sent_by, key) DO UPDATE SET
    at = CASE WHEN claim.fingerprint = excluded.fingerprint
        THEN greatest(claim.at, excluded.at) ELSE claim.at END,
    holder = CASE WHEN claim.fingerprint <> excluded.fingerprint OR claim.holder = excluded.holder
        THEN claim.holder END
RETURNING sent_by, key, fingerprint
"""

_RELEASE: Final = """
DELETE FROM claim USING unnest(%(senders)s::bigint[], %(keys)s::text[]) AS given (sent_by, key)
WHERE claim.sent_by = given.sent_by AND claim.key = given.key AND holder = %(holder)s::uuid
"""

_DELETE_OLD: Final = """
DELETE FROM claim WHERE (sent_by, key) IN (
    SELECT sent_by, key FROM claim WHERE at < :before ORDER BY at LIMIT :step
    FOR UPDATE SKIP LOCKED
) AND at < :before RETURNING 1
"""


def key_of(draft: Draft) -> Key:
    """The key of a draft that has one."""
    assert draft.idempotency is not None
    return draft.sent_by, draft.idempotency.key


async def claim(
    executor: Executor, keys: Mapping[Key, IdempotencyKey], holder: str, deadline: float
) -> set[Key]:
    """Claim keys of senders of one lane; returns those whose claims have these fingerprints."""
    parameters = {
        **_names(list(keys)),
        "fingerprints": array([key.fingerprint for key in keys.values()]),
        "holder": holder,
    }
    found: Rows = await executor.run(_CLAIM, parameters, prepare=True, deadline=deadline)
    return {
        (sent_by, key)
        for sent_by, key, fingerprint in found
        if bytes(fingerprint) == keys[sent_by, key].fingerprint
    }


async def release(executor: Executor, keys: Sequence[Key], holder: str) -> None:
    """Remove the claims of sends that were refused, unless others have found them since."""
    await executor.run(_RELEASE, {**_names(keys), "holder": holder})


def delete_old(now: int) -> Statement[bool]:
    """Delete some claims that are older than `CLAIM_SECONDS`; True if more may be left."""
    parameters = {"before": now - CLAIM_SECONDS * 1_000_000, "step": DELETE_CLAIMS_STEP}
    return Statement(_DELETE_OLD, parameters, lambda rows: len(rows) == DELETE_CLAIMS_STEP)


def _names(keys: Sequence[Key]) -> dict[str, str]:
    return {
        "senders": array([sent_by for sent_by, _ in keys]),
        "keys": texts([key for _, key in keys]),
    }
