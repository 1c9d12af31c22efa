"""Accounts and tokens on PostgreSQL: functions on a pool.

All statements are safe to repeat: a connection that is lost leaves open whether one was carried
out. `at`, microseconds, differs from one call to the next and names what is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from chatd.model import Account, Credentials
from chatd.postgres.arrays import array
from chatd.postgres.notices import CHANNEL, Revoked, encode
from chatd.store.outcomes import username_taken
from chatd.store.postgres_pool import Pool

T = TypeVar("T")

LARGEST: Final = 2000
"""Tokens or accounts in one statement; more are spread over several."""

PURGE_STEP: Final = 2000
"""Messages deleted in one transaction: a large inbox must not hold up what else is written."""

# A repetition finds its own row by the time and the hash, whose salt is new for each registration.
_ADD_ACCOUNT: Final = """
WITH added AS (
    INSERT INTO account (username, username_folded, email, password_hash, date_joined)
    SELECT %(username)s, %(folded)s, %(email)s, %(hash)s, %(at)s
    WHERE NOT EXISTS (SELECT FROM account WHERE username_folded = %(folded)s)
    ON CONFLICT (username_folded) DO NOTHING
    RETURNING id
), opened AS (
    INSERT INTO inbox (user_id, last_seq, last_sent_at) SELECT id, 0, 0 FROM added
)
SELECT id FROM added
UNION ALL
SELECT id FROM account
WHERE username_folded = %(folded)s AND date_joined = %(at)s AND password_hash = %(hash)s
"""

_ACCOUNT: Final = """
SELECT id, username, email, date_joined, last_seen_at
FROM account LEFT JOIN seen ON user_id = id
WHERE deleted_at IS NULL AND """

_ACCOUNT_BY_ID: Final = _ACCOUNT + "id = %s"
_ACCOUNT_NAMED: Final = _ACCOUNT + "username_folded = %s"

_CREDENTIALS: Final = """
SELECT id, password_hash FROM account WHERE username_folded = %s AND deleted_at IS NULL
"""

# Several statements in one transaction and one round trip: each sees what was committed before it
# began, so nothing that others did until the account's row was locked is left over. `at` names
# the deletion: repeated, it finds the account deleted by itself.
_DELETE_ACCOUNT: Final = """
UPDATE account SET deleted_at = %(at)s, email = NULL, password_hash = NULL
WHERE id = %(user_id)s AND deleted_at IS NULL;
UPDATE inbox SET closed = true
WHERE user_id = (SELECT id FROM account WHERE id = %(user_id)s AND deleted_at = %(at)s);
DELETE FROM token WHERE user_id = %(user_id)s
    AND EXISTS (SELECT FROM account WHERE id = %(user_id)s AND deleted_at = %(at)s);
DELETE FROM seen WHERE user_id = %(user_id)s
    AND EXISTS (SELECT FROM account WHERE id = %(user_id)s AND deleted_at = %(at)s);
DELETE FROM idempotency WHERE sent_by = %(user_id)s
    AND EXISTS (SELECT FROM account WHERE id = %(user_id)s AND deleted_at = %(at)s);
INSERT INTO purge SELECT id FROM account WHERE id = %(user_id)s AND deleted_at = %(at)s
ON CONFLICT DO NOTHING;
SELECT pg_notify(%(channel)s, %(payload)s)
FROM account WHERE id = %(user_id)s AND deleted_at = %(at)s;
"""

# Processes take turns: a user whose inbox another one is emptying is passed over.
_PURGE: Final = f"""
WITH picked AS (
    SELECT user_id FROM purge LIMIT 1 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM message
    WHERE received_by = (SELECT user_id FROM picked) AND seq IN (
        SELECT seq FROM message WHERE received_by = (SELECT user_id FROM picked)
        ORDER BY seq LIMIT {PURGE_STEP})
    RETURNING 1
), emptied AS (
    DELETE FROM purge
    WHERE user_id = (SELECT user_id FROM picked) AND (SELECT count(*) FROM gone) < {PURGE_STEP}
)
SELECT count(*) FROM picked
"""

# The lock waits for a deletion under way and lets none pass before the token is there to go too.
_ADD_TOKEN: Final = """
WITH owner AS (
    SELECT id FROM account WHERE id = %(user_id)s AND deleted_at IS NULL FOR SHARE
)
INSERT INTO token (digest, user_id, created_at)
SELECT %(digest)s, id, %(at)s FROM owner
ON CONFLICT (digest) DO UPDATE SET created_at = token.created_at
RETURNING created_at
"""

_TOKEN_OWNERS: Final = "SELECT digest, user_id FROM token WHERE digest = ANY(%s::bytea[])"

_DELETE_TOKEN: Final = """
WITH deleted AS (
    DELETE FROM token WHERE digest = %(digest)s AND user_id = %(user_id)s RETURNING 1
)
SELECT pg_notify(%(channel)s, %(payload)s) FROM deleted
"""

# In order of user id, as are all statements that lock rows of several users.
_RECORD_SEEN: Final = """
INSERT INTO seen (user_id, last_seen_at)
SELECT user_id, at FROM unnest(%s::bigint[], %s::bigint[]) AS given (user_id, at)
WHERE EXISTS (SELECT FROM account WHERE id = user_id AND deleted_at IS NULL)
ORDER BY user_id
ON CONFLICT (user_id) DO UPDATE SET last_seen_at = excluded.last_seen_at
WHERE seen.last_seen_at < excluded.last_seen_at
"""


async def add_account(
    pool: Pool, username: str, email: str, password_hash: str, at: int
) -> Account:
    rows = await pool.run(
        _ADD_ACCOUNT,
        {
            "username": username,
            "folded": username.lower(),
            "email": email,
            "hash": password_hash,
            "at": at,
        },
    )
    if not rows:
        raise username_taken(username)
    return Account(rows[0][0], username, email, at, None)


async def account(pool: Pool, user_id: int) -> Account | None:
    rows = await pool.run(_ACCOUNT_BY_ID, (user_id,))
    return Account(*rows[0]) if rows else None


async def account_named(pool: Pool, username: str) -> Account | None:
    rows = await pool.run(_ACCOUNT_NAMED, (username.lower(),))
    return Account(*rows[0]) if rows else None


async def credentials(pool: Pool, username: str) -> Credentials | None:
    rows = await pool.run(_CREDENTIALS, (username.lower(),))
    return Credentials(*rows[0]) if rows else None


async def delete_account(pool: Pool, user_id: int, at: int, origin: str) -> bool:
    """Make the account and its inbox unreachable at once; `purge` empties the inbox later."""
    notice = _notice(origin, user_id, None)
    return bool(await pool.run(_DELETE_ACCOUNT, {"user_id": user_id, "at": at, **notice}))


async def purge(pool: Pool) -> bool:
    """Delete up to `PURGE_STEP` messages of deleted accounts; True if more may be left."""
    [[picked]] = await pool.run(_PURGE)
    return bool(picked)


async def add_token(pool: Pool, user_id: int, digest: bytes, at: int) -> int | None:
    rows = await pool.run(_ADD_TOKEN, {"user_id": user_id, "digest": digest, "at": at})
    return rows[0][0] if rows else None


async def token_owners(pool: Pool, digests: Sequence[bytes]) -> list[int | None]:
    owners: dict[bytes, int] = {}
    for part in _parts(digests):
        rows = await pool.run(_TOKEN_OWNERS, (array(part),))
        owners.update({bytes(digest): user_id for digest, user_id in rows})
    return [owners.get(digest) for digest in digests]


async def delete_token(pool: Pool, user_id: int, digest: bytes, origin: str) -> bool:
    notice = _notice(origin, user_id, digest)
    return bool(await pool.run(_DELETE_TOKEN, {"user_id": user_id, "digest": digest, **notice}))


async def record_seen(pool: Pool, seen: Mapping[int, int]) -> None:
    for part in _parts(list(seen.items())):
        users, times = [user_id for user_id, _ in part], [at for _, at in part]
        await pool.run(_RECORD_SEEN, (array(users), array(times)))


def _notice(origin: str, user_id: int, token: bytes | None) -> dict[str, Any]:
    return {"channel": CHANNEL, "payload": encode(origin, Revoked(user_id, token))}


def _parts(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + LARGEST] for start in range(0, len(items), LARGEST)]
