"""Accounts and tokens on PostgreSQL.

All statements are safe to repeat, because a lost connection leaves it unknown whether a statement
was executed. `at`, in microseconds, is unique to a call and so identifies what it did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

from msgspec import structs

from chatd.model import Account, AccountChange, AddedToken, EncodedTokens, Session, TokenOptions
from chatd.postgres.array_literals import array
from chatd.postgres.notify_payloads import CHANNEL, RevokedNotice, SessionsNotice, encode
from chatd.store import statements, token_statements
from chatd.store.erasure_statements import schedule
from chatd.store.postgres.retry import Executor
from chatd.store.postgres.sync_sql import MICROSECONDS
from chatd.store.statements import (
    DELETED,
    PASSWORD_CHANGED,
    PURGE_STEP,
    Statement,
    postgres,
    purge_step,
)
from chatd.store.sync_statements import FORGET_DELETED_PEER

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
_DELETE_OWN: Final = f"""
{statements.DELETE_ACCOUNT};
UPDATE inbox SET closed = true WHERE user_id = ({DELETED});
DELETE FROM token WHERE user_id = :user_id AND EXISTS ({DELETED});
DELETE FROM seen WHERE user_id = :user_id AND EXISTS ({DELETED});
DELETE FROM delivered WHERE user_id = :user_id AND EXISTS ({DELETED});
DELETE FROM sync_state WHERE user_id = :user_id AND EXISTS ({DELETED});
DELETE FROM block WHERE user_id = :user_id AND EXISTS ({DELETED});
{statements.SCHEDULE_PURGE};
"""
_DELETE: Final = f"""
{_DELETE_OWN}
DELETE FROM idempotency WHERE sent_by = :user_id AND EXISTS ({DELETED});
{FORGET_DELETED_PEER} AND EXISTS ({DELETED});
"""
# In the owner's lane. The keys are with the recipients, and expire.
_DELETE_SHARDED: Final = f"""
{_DELETE_OWN}
DELETE FROM claim WHERE sent_by = :user_id AND EXISTS ({DELETED});
"""
_NOTIFY_DELETED: Final = f"SELECT pg_notify(:channel, :payload) FROM ({DELETED}) AS deleted"
_DELETE_ACCOUNT: Final = _DELETE + _NOTIFY_DELETED
_SCHEDULE_ERASURE: Final = f"{schedule(MICROSECONDS)};\n"
_ERASE_ACCOUNT: Final = _DELETE + _SCHEDULE_ERASURE + _NOTIFY_DELETED

_PICKED: Final = "(SELECT user_id FROM picked)"
# Skips users whose inbox another process is purging.
_PURGE_STEP: Final = f"""
WITH picked AS (
    SELECT user_id FROM purge {{condition}} LIMIT 1 FOR UPDATE SKIP LOCKED
), gone AS (
    {purge_step("message", "received_by", "seq", _PICKED)} RETURNING 1
), strangers AS (
    {purge_step("contact", "received_by", "sent_by", _PICKED)} RETURNING 1
), conversations AS (
    {purge_step("conversation_summary", "user_id", "peer", _PICKED)} RETURNING 1
), changes AS (
    {purge_step("change", "user_id", "number", _PICKED)} RETURNING 1
), emptied AS (
    DELETE FROM purge
    WHERE user_id = {_PICKED} AND :step > greatest(
        (SELECT count(*) FROM gone), (SELECT count(*) FROM strangers),
        (SELECT count(*) FROM conversations), (SELECT count(*) FROM changes)
    )
)
SELECT count(*) FROM picked
"""
_PURGE: Final = _PURGE_STEP.format(condition="")
_PURGE_NAMED: Final = _PURGE_STEP.format(condition="WHERE user_id = :user_id")

# As the one above.
_CHANGE_ACCOUNT: Final = f"""
{statements.CHANGE_ACCOUNT};
{token_statements.DELETE_OTHERS} AND EXISTS ({PASSWORD_CHANGED});
SELECT pg_notify(:channel, :payload) FROM ({PASSWORD_CHANGED}) AS changed;
"""


def _time(column: str) -> str:
    """SQL for a time as JSON."""
    seconds = f"to_timestamp({column} / 1000000) AT TIME ZONE 'UTC'"
    return f"coalesce(to_json(to_char({seconds}, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))::text, 'null')"


_ENCODED_TOKENS: Final = f"""
SELECT '[' || coalesce(string_agg(
        '{{"id":' || id || ',"label":' || coalesce(to_json(label)::text, 'null')
        || ',"scopes":' || {token_statements.SCOPE_NAMES}
        || ',"created_at":' || {_time("created_at")}
        || ',"last_used_at":' || {_time("last_used_at")}
        || ',"expires_at":' || {_time("expires_at")}
        || ',"current":' || CASE WHEN id = :current THEN 'true' ELSE 'false' END || '}}',
        ',' ORDER BY id DESC
    ), '') || ']' AS encoded,
    string_agg(encode(digest, 'hex'), '' ORDER BY id DESC) AS digests,
    coalesce(json_agg(last_used_at ORDER BY id DESC)::text, '[]') AS used
FROM ({token_statements.listed()}) AS listed
"""

_PASSWORD_HASHES: Final = (
    "SELECT id, password_hash FROM account"
    " WHERE id = ANY(%s::bigint[]) AND deleted_at IS NULL AND disabled_at IS NULL"
)

_SESSIONS: Final = f"""
SELECT {token_statements.SESSION} FROM token
WHERE digest = ANY(:digests::bytea[]) AND {token_statements.VALID}
"""

# Each statement sees what was committed before it began, so also all tokens that were added before
# the account's row was locked.
_ADD_TOKEN: Final = f"""
{{add}};
WITH removed AS ({token_statements.REMOVE_EXCESS} RETURNING 1), told AS (
    SELECT pg_notify(:channel, :payload) FROM removed LIMIT 1
), notices AS (SELECT count(*) FROM told)
SELECT added.* FROM ({token_statements.ADDED}) AS added, notices
"""

_DELETE_TOKEN: Final = f"""
WITH deleted AS ({token_statements.DELETE})
SELECT pg_notify(:channel, :payload) FROM deleted
"""

_DELETE_TOKEN_BY_ID: Final = f"""
WITH deleted AS ({token_statements.DELETE_BY_ID})
SELECT pg_notify(:channel, :payload || encode(digest, 'hex')) FROM deleted
"""

_DELETE_OTHER_TOKENS: Final = f"""
{token_statements.DELETE_OTHERS};
SELECT pg_notify(:channel, :payload)
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

# Waits for nobody: a token that another process is writing or deleting is written the next time.
_RECORD_USED: Final = """
WITH free AS (
    SELECT digest, at
    FROM token JOIN unnest(%s::bytea[], %s::bigint[]) AS given (digest, at) USING (digest)
    FOR NO KEY UPDATE OF token SKIP LOCKED
)
UPDATE token SET last_used_at = at FROM free
WHERE token.digest = free.digest AND coalesce(last_used_at, 0) < at
"""


def delete_account(user_id: int, at: int, node_id: str, erase: bool) -> Statement[bool]:
    """Make an account and its inbox inaccessible; `purge` deletes the messages later.

    With `erase`, `erasure.erase` deletes what it has sent.
    """
    parameters = {"user_id": user_id, "at": at, **_notice(node_id, user_id, None)}
    return Statement(_ERASE_ACCOUNT if erase else _DELETE_ACCOUNT, parameters, bool)


def delete_account_in_lane(user_id: int, at: int, erase: bool) -> Statement[bool]:
    """The part of `delete_account` in the owner's lane; notifies nobody."""
    schedule_erasure = _SCHEDULE_ERASURE if erase else ""
    sql = f"{_DELETE_SHARDED}{schedule_erasure}{DELETED}"
    return Statement(sql, {"user_id": user_id, "at": at}, bool)


def change_account(change: AccountChange, node_id: str) -> Statement[Account | None]:
    """See `IStore.change_account`; notifies other processes of a new password."""
    parameters = {
        **structs.asdict(change),
        "channel": CHANNEL,
        "payload": encode(node_id, SessionsNotice(change.user_id)),
    }
    found = statements.changed_account(change, ACCOUNTS)
    return Statement(_CHANGE_ACCOUNT + found.sql, {**parameters, **found.parameters}, found.result)


async def password_hashes(executor: Executor, user_ids: Collection[int]) -> dict[int, str]:
    """See `IStore.password_hashes`."""
    found: dict[int, str] = {}
    for part in _parts(list(user_ids)):
        found.update(await executor.run(_PASSWORD_HASHES, (array(part),)))
    return found


def purge(user_id: int | None = None) -> Statement[bool]:
    """Delete up to `PURGE_STEP` messages of a deleted account; True if more may be left.

    Of any account if none is given.
    """
    sql = _PURGE if user_id is None else _PURGE_NAMED
    return Statement(sql, {"user_id": user_id, "step": PURGE_STEP}, lambda rows: bool(rows[0][0]))


def add_token(
    user_id: int,
    digest: bytes,
    options: TokenOptions,
    verified: str | None,
    at: int,
    node_id: str,
    add: str = token_statements.ADD,
) -> Statement[AddedToken | None]:
    """See `token_statements.add`; notifies other processes of tokens that it removes."""
    sql = _ADD_TOKEN.format(add=add)
    addition = token_statements.add(user_id, digest, options, verified, at, sql)
    notice = {"channel": CHANNEL, "payload": encode(node_id, SessionsNotice(user_id))}
    return addition._replace(parameters={**addition.parameters, **notice})


def delete_token(user_id: int, digest: bytes, node_id: str) -> Statement[bool]:
    """Revoke a token and notify other processes; False if the user does not own it."""
    parameters = {"user_id": user_id, "digest": digest, **_notice(node_id, user_id, digest)}
    return Statement(_DELETE_TOKEN, parameters, bool)


def delete_token_by_id(user_id: int, token_id: int, now: int, node_id: str) -> Statement[bool]:
    """Revoke a token and notify other processes; False if the user does not own it."""
    # The statement adds the token to the notice.
    notice = _notice(node_id, user_id, b"")
    parameters = {"user_id": user_id, "id": token_id, "now": now, **notice}
    return Statement(_DELETE_TOKEN_BY_ID, parameters, bool)


def delete_other_tokens(user_id: int, kept: bytes | None, node_id: str) -> Statement[None]:
    """See `IStore.delete_other_tokens`; notifies other processes."""
    payload = encode(node_id, SessionsNotice(user_id))
    parameters = {"user_id": user_id, "kept": kept, "channel": CHANNEL, "payload": payload}
    return Statement(_DELETE_OTHER_TOKENS, parameters, lambda rows: None)


def encoded_tokens(user_id: int, now: int, current: int | None) -> Statement[EncodedTokens]:
    """See `IStore.encoded_tokens`."""
    return token_statements.encoded(_ENCODED_TOKENS, user_id, now, current)


async def sessions(executor: Executor, digests: Sequence[bytes], now: int) -> list[Session | None]:
    """See `IStore.sessions`."""
    found: dict[bytes, Session] = {}
    for part in _parts(digests):
        parameters = {"digests": array(part), "now": now}
        for user_id, digest, *rest in await executor.run(postgres(_SESSIONS), parameters):
            found[bytes(digest)] = Session(user_id, bytes(digest), *rest)
    return [found.get(digest) for digest in digests]


async def record_seen(
    executor: Executor, users: Mapping[int, int], tokens: Mapping[bytes, int]
) -> None:
    """See `IStore.record_seen`."""
    for users_part in _parts(list(users.items())):
        await executor.run(_RECORD_SEEN, _columns(users_part))
    for tokens_part in _parts(list(tokens.items())):
        await executor.run(_RECORD_USED, _columns(tokens_part))


def _columns(times: Sequence[tuple[int | bytes, int]]) -> tuple[str, str]:
    """Keys and times as arrays."""
    return array([key for key, _ in times]), array([at for _, at in times])


def _notice(node_id: str, user_id: int, token: bytes | None) -> dict[str, Any]:
    return {"channel": CHANNEL, "payload": encode(node_id, RevokedNotice(user_id, token))}


def _parts(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + MAX_ROWS] for start in range(0, len(items), MAX_ROWS)]
