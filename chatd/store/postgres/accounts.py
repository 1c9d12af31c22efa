"""Accounts and tokens on PostgreSQL.

All statements are safe to repeat, because a lost connection leaves it unknown whether a statement
was executed. `at`, in microseconds, is unique to a call and so identifies what it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from chatd.postgres.array_literals import array
from chatd.postgres.notify_payloads import CHANNEL, RevokedNotice, encode
from chatd.store import statements
from chatd.store.postgres.retry import RetryingExecutor
from chatd.store.statements import DELETED, PURGE_STEP, Statement, purge_step

T = TypeVar("T")

MAX_ROWS: Final = 2000
"""Tokens or accounts per statement; larger calls are split."""

# When repeated, it finds its own row by the time and the hash, which has a new salt each time.
ADD_ACCOUNT: Final = f"""
WITH added AS ({statements.ADD_ACCOUNT}), opened AS (
    INSERT INTO inbox (user_id, last_seq, last_sent_at) SELECT id, 0, 0 FROM added
)
SELECT id FROM added
UNION ALL
SELECT id FROM account
WHERE username_folded = :folded AND date_joined = :at AND password_hash = :hash
"""

ACCOUNTS: Final = "account LEFT JOIN seen ON user_id = id"

# Several statements in one transaction and one round trip. Each sees what was committed before it
# began, so the later ones miss nothing from before the account's row was locked. When repeated, it
# recognises by `at` that it deleted the account itself.
_DELETE_ACCOUNT: Final = f"""
{statements.DELETE_ACCOUNT};
UPDATE inbox SET closed = true WHERE user_id = ({DELETED});
DELETE FROM token WHERE user_id = :user_id AND EXISTS ({DELETED});
DELETE FROM seen WHERE user_id = :user_id AND EXISTS ({DELETED});
DELETE FROM idempotency WHERE sent_by = :user_id AND EXISTS ({DELETED});
DELETE FROM block WHERE user_id = :user_id AND EXISTS ({DELETED});
{statements.SCHEDULE_PURGE};
SELECT pg_notify(:channel, :payload) FROM ({DELETED}) AS deleted;
"""

# Skips users whose inbox another process is purging.
_PURGE: Final = f"""
WITH picked AS (
    SELECT user_id FROM purge LIMIT 1 FOR UPDATE SKIP LOCKED
), gone AS (
    {purge_step("message", "received_by", "seq", "(SELECT user_id FROM picked)")} RETURNING 1
), emptied AS (
    DELETE FROM purge
    WHERE user_id = (SELECT user_id FROM picked) AND (SELECT count(*) FROM gone) < :step
)
SELECT count(*) FROM picked
"""

_TOKEN_OWNERS: Final = "SELECT digest, user_id FROM token WHERE digest = ANY(%s::bytea[])"

_DELETE_TOKEN: Final = f"""
WITH deleted AS ({statements.DELETE_TOKEN})
SELECT pg_notify(:channel, :payload) FROM deleted
"""

# Ordered by user id, like all statements that lock rows of several users, to prevent deadlocks.
_RECORD_SEEN: Final = """
INSERT INTO seen (user_id, last_seen_at)
SELECT user_id, at FROM unnest(%s::bigint[], %s::bigint[]) AS given (user_id, at)
WHERE EXISTS (SELECT FROM account WHERE id = user_id AND deleted_at IS NULL)
ORDER BY user_id
ON CONFLICT (user_id) DO UPDATE SET last_seen_at = excluded.last_seen_at
WHERE seen.last_seen_at < excluded.last_seen_at
"""


def delete_account(user_id: int, at: int, node_id: str) -> Statement[bool]:
    """Make an account and its inbox inaccessible; `purge` deletes the messages later."""
    parameters = {"user_id": user_id, "at": at, **_notice(node_id, user_id, None)}
    return Statement(_DELETE_ACCOUNT, parameters, bool)


def purge() -> Statement[bool]:
    """Delete up to `PURGE_STEP` messages of deleted accounts; True if more may be left."""
    return Statement(_PURGE, {"step": PURGE_STEP}, lambda rows: bool(rows[0][0]))


def delete_token(user_id: int, digest: bytes, node_id: str) -> Statement[bool]:
    """Revoke a token and notify other processes; False if the user does not own it."""
    parameters = {"user_id": user_id, "digest": digest, **_notice(node_id, user_id, digest)}
    return Statement(_DELETE_TOKEN, parameters, bool)


async def token_owners(executor: RetryingExecutor, digests: Sequence[bytes]) -> list[int | None]:
    """See `IStore.token_owners`."""
    owners: dict[bytes, int] = {}
    for part in _parts(digests):
        rows = await executor.run(_TOKEN_OWNERS, (array(part),))
        owners.update({bytes(digest): user_id for digest, user_id in rows})
    return [owners.get(digest) for digest in digests]


async def record_seen(executor: RetryingExecutor, seen: Mapping[int, int]) -> None:
    """See `IStore.record_seen`."""
    for part in _parts(list(seen.items())):
        users, times = [user_id for user_id, _ in part], [at for _, at in part]
        await executor.run(_RECORD_SEEN, (array(users), array(times)))


def _notice(node_id: str, user_id: int, token: bytes | None) -> dict[str, Any]:
    return {"channel": CHANNEL, "payload": encode(node_id, RevokedNotice(user_id, token))}


def _parts(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + MAX_ROWS] for start in range(0, len(items), MAX_ROWS)]
