"""SQL statements on tokens that SQLite and PostgreSQL share, see `chatd.store.statements`."""

from __future__ import annotations

from typing import Final

import msgspec

from chatd.interfaces import MAX_TOKENS
from chatd.model import (
    ALL_SCOPES,
    AddedToken,
    EncodedTokens,
    Scope,
    Token,
    TokenOptions,
    scope_names,
)
from chatd.store.statements import Rows, Statement

# The columns are in the order of the fields in `chatd.model`.
_TOKEN: Final = "id, digest, label, scopes, created_at, last_used_at, expires_at"
SESSION: Final = "user_id, digest, id, scopes, expires_at"
VALID: Final = "(expires_at IS NULL OR expires_at > :now)"

SCOPE_NAMES: Final = "CASE scopes & {all} {cases} END".format(
    all=ALL_SCOPES.value,
    cases=" ".join(
        f"WHEN {each} THEN '{msgspec.json.encode(scope_names(each)).decode('ascii')}'"
        for each in range(ALL_SCOPES.value + 1)
    ),
)
"""SQL for the names of a token's scopes as a JSON array."""

_DIGEST_BYTES: Final = 32
_last_used: Final = msgspec.json.Decoder(list[int | None])

# The row lock waits for a concurrent deletion or change of the password, and makes a later one, and
# other additions, wait for this token.
_ADD: Final = """
INSERT INTO token ({column}digest, user_id, label, scopes, created_at, expires_at)
SELECT {value}:digest, id, :label, :scopes, :now, :expires_at FROM account
WHERE id = :user_id AND deleted_at IS NULL AND disabled_at IS NULL
    AND (:verified IS NULL OR password_hash = :verified) FOR NO KEY UPDATE
ON CONFLICT ({key}) DO NOTHING
"""
ADD: Final = _ADD.format(column="", value="", key="digest")
# Without a sequence, the id is the time.
ADD_IN_LANE: Final = _ADD.format(column="id, ", value=":now, ", key="user_id, digest")

_NEW: Final = "digest = :digest AND user_id = :user_id"

# Of the oldest ones, so that the many tokens that older versions permitted do not go at once.
REMOVE_EXCESS: Final = f"""
DELETE FROM token WHERE user_id = :user_id AND id IN (
    SELECT id FROM (
        SELECT id, coalesce(last_used_at, created_at) AS used FROM token
        WHERE user_id = :user_id AND digest <> :digest AND {VALID} ORDER BY id LIMIT 2 * :most
    ) AS others
    ORDER BY used DESC, id DESC LIMIT 2 * :most OFFSET :most - 1
) AND EXISTS (SELECT 1 FROM token WHERE {_NEW})
"""

# By their number: what a repeated addition has removed before is not known to it.
_DISPLACED: Final = (
    f"(SELECT count(*) FROM (SELECT 1 FROM token WHERE user_id = :user_id AND {VALID} LIMIT :most)"
    " AS held) = :most"
)
ADDED: Final = f"SELECT id, created_at, {_DISPLACED} FROM token WHERE {_NEW}"


def add(
    user_id: int,
    digest: bytes,
    options: TokenOptions,
    verified: str | None,
    at: int,
    sql: str = ADDED,
) -> Statement[AddedToken | None]:
    """Add a token by `ADD`, `REMOVE_EXCESS` and `ADDED`, in one transaction; None if there is no
    account of that password hash. Safe to repeat.

    `sql` may be all of them. With `ADD_IN_LANE`, fails if the user has another token of that time.
    """
    expires_at = None if options.lifetime is None else at + options.lifetime
    parameters = {
        "user_id": user_id,
        "digest": digest,
        "label": options.label,
        "scopes": options.scopes.value,
        "now": at,
        "expires_at": expires_at,
        "verified": verified,
        "most": MAX_TOKENS,
    }

    def result(rows: Rows) -> AddedToken | None:
        if not rows:
            return None
        token_id, created_at, displaced = rows[0]
        times = (created_at, None, expires_at)
        token = Token(token_id, digest, options.label, options.scopes, *times)
        return AddedToken(token, bool(displaced))

    return Statement(sql, parameters, result)


def listed(source: str = "token") -> str:
    """SQL for the tokens of `IStore.tokens`; `source` may join a table that only users with an
    account are in."""
    return (
        f"SELECT {_TOKEN} FROM {source} WHERE user_id = :user_id AND {VALID}"
        f" ORDER BY id DESC LIMIT {MAX_TOKENS}"
    )


def tokens(user_id: int, now: int, source: str = "token") -> Statement[list[Token]]:
    """See `IStore.tokens`, and `listed` for `source`."""

    def result(rows: Rows) -> list[Token]:
        return [
            Token(id, bytes(digest), label, Scope(scopes), *times)
            for id, digest, label, scopes, *times in rows
        ]

    return Statement(listed(source), {"user_id": user_id, "now": now}, result)


def encoded(sql: str, user_id: int, now: int, current: int | None) -> Statement[EncodedTokens]:
    """See `IStore.encoded_tokens`.

    `sql` returns one row: the JSON, and of the tokens in that order the digests, in hexadecimal,
    and a JSON array of `last_used_at`.
    """

    def result(rows: Rows) -> EncodedTokens:
        [(text, hexadecimal, last_used_at)] = rows
        joined = bytes.fromhex(hexadecimal or "")
        digests = [joined[at : at + _DIGEST_BYTES] for at in range(0, len(joined), _DIGEST_BYTES)]
        return EncodedTokens(len(digests), text, digests, _last_used.decode(last_used_at))

    return Statement(sql, {"user_id": user_id, "now": now, "current": current}, result)


DELETE: Final = "DELETE FROM token WHERE digest = :digest AND user_id = :user_id RETURNING digest"
DELETE_BY_ID: Final = (
    f"DELETE FROM token WHERE id = :id AND user_id = :user_id AND {VALID} RETURNING digest"
)
DELETE_OTHERS: Final = (
    "DELETE FROM token WHERE user_id = :user_id AND (:kept IS NULL OR digest <> :kept)"
)

# Skips tokens that another process is deleting.
_DELETE_EXPIRED: Final = """
DELETE FROM token WHERE digest IN (
    SELECT digest FROM token WHERE expires_at <= :now ORDER BY expires_at LIMIT :step
    FOR UPDATE SKIP LOCKED
) RETURNING 1
"""


def delete_expired(now: int, step: int) -> Statement[bool]:
    """Delete up to `step` tokens that have expired; True if more may be left."""
    return Statement(_DELETE_EXPIRED, {"now": now, "step": step}, lambda rows: len(rows) == step)
