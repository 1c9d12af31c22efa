"""Accounts and tokens in SQLite: functions of a connection that the store runs in its threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Final

from msgspec import structs

from chatd.model import Account, AccountChange, AddedToken, EncodedTokens, Session
from chatd.store import statements, token_statements
from chatd.store.erasure_statements import schedule
from chatd.store.sqlite.steps import Step
from chatd.store.sqlite.transactions import execute, transaction
from chatd.store.statements import PURGE_STEP, Statement, purge_step, sqlite
from chatd.store.sync_statements import FORGET_DELETED_PEER

_PURGE_MESSAGES: Final = purge_step("message", "received_by", "seq")
_PURGE: Final = (
    "DELETE FROM conversation WHERE received_by = :user_id AND (seq, sent_at, sent_by) IN"
    " (SELECT seq, sent_at, sent_by FROM conversation WHERE received_by = :user_id LIMIT :step)",
    purge_step("contact", "received_by", "sent_by"),
    purge_step("conversation_summary", "user_id", "peer"),
    purge_step("change", "user_id", "number"),
    purge_step("token", "user_id", "id"),
    purge_step("idempotency", "sent_by", "key"),
    purge_step("block", "user_id", "blocked_id"),
)

_OPEN_INBOX: Final = "INSERT INTO inbox (user_id, last_seq, last_sent_at) VALUES (?, 0, 0)"
_SCHEDULE_ERASURE: Final = schedule(":at")

# A deleted account has no inbox, but its tokens may not have been purged yet.
TOKENS: Final = "token JOIN inbox USING (user_id)"


def _time(column: str) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%SZ', {column} / 1000000, 'unixepoch')"


# One row, since a thread takes Python's lock again after each.
_ENCODED_TOKENS: Final = f"""
SELECT json_group_array(json_object(
        'id', id, 'label', label, 'scopes', json({token_statements.SCOPE_NAMES}),
        'created_at', {_time("created_at")}, 'last_used_at', {_time("last_used_at")},
        'expires_at', {_time("expires_at")},
        'current', json(CASE WHEN id = :current THEN 'true' ELSE 'false' END)
    )), group_concat(hex(digest), ''), json_group_array(last_used_at)
FROM ({token_statements.listed(TOKENS)})
"""


def add_account(
    db: sqlite3.Connection, username: str, email: str, password_hash: str, now: int
) -> Account:
    """See `IStore.add_account`."""
    with transaction(db):
        account = execute(db, statements.add_account(username, email, password_hash, now))
        db.execute(_OPEN_INBOX, (account.id,))
    return account


def change_account(db: sqlite3.Connection, change: AccountChange) -> Account | None:
    """See `IStore.change_account`."""
    parameters = structs.asdict(change)
    with transaction(db):
        changed = db.execute(statements.CHANGE_ACCOUNT, parameters).rowcount
        if changed and change.password_hash is not None:
            db.execute(token_statements.DELETE_OTHERS, parameters)
    return execute(db, statements.changed_account(change)) if changed else None


def password_hashes(db: sqlite3.Connection, user_ids: Collection[int]) -> dict[int, str]:
    """See `IStore.password_hashes`."""
    found: dict[int, str] = {}
    for user_id in user_ids:
        found.update(
            db.execute(
                "SELECT id, password_hash FROM account"
                " WHERE id = ? AND deleted_at IS NULL AND disabled_at IS NULL",
                (user_id,),
            )
        )
    return found


def delete_account(db: sqlite3.Connection, user_id: int, now: int, erase: bool) -> bool:
    """Make an account with its inbox and tokens inaccessible; `purge` deletes the data later.

    With `erase`, `erasure.erase` deletes what it has sent.
    """
    deletion = {"user_id": user_id, "at": now}
    with transaction(db):
        deleted = db.execute(statements.DELETE_ACCOUNT, deletion).rowcount
        if deleted:
            for table in ("inbox", "delivered", "sync_state"):
                db.execute(f"DELETE FROM {table} WHERE user_id = ?", (user_id,))
            db.execute(FORGET_DELETED_PEER, deletion)
            db.execute(statements.SCHEDULE_PURGE, deletion)
            if erase:
                db.execute(_SCHEDULE_ERASURE, deletion)
    return bool(deleted)


def purge(db: sqlite3.Connection) -> bool:
    """Delete up to `PURGE_STEP` rows of deleted accounts; True if more may be left."""
    row = db.execute("SELECT user_id FROM purge LIMIT 1").fetchone()
    if row is None:
        return False
    left = PURGE_STEP
    with transaction(db):
        step = Step(PURGE_STEP)
        messages = step.take(db, row[0]).messages
        left -= db.execute(_PURGE_MESSAGES, {"user_id": row[0], "step": messages}).rowcount
        if step.is_over:
            return True
        for statement in _PURGE:
            left -= db.execute(statement, {"user_id": row[0], "step": left}).rowcount
        if left:
            db.execute("DELETE FROM purge WHERE user_id = ?", row)
    return True


def sessions(db: sqlite3.Connection, digests: Sequence[bytes], now: int) -> list[Session | None]:
    """See `IStore.sessions`."""
    # A statement for each would have the thread take Python's lock again a thousand times for
    # tokens that do not exist, of which anybody may send any number.
    parameters: dict[str, object] = {f"digest{place}": each for place, each in enumerate(digests)}
    rows = db.execute(_sessions(len(digests)), {**parameters, "now": now}).fetchall()
    found = {session.token: session for session in (Session(*row) for row in rows)}
    return [found.get(digest) for digest in digests]


@cache
def _sessions(count: int) -> str:
    digests = ", ".join(f":digest{place}" for place in range(count))
    return (
        f"SELECT {token_statements.SESSION} FROM {TOKENS}"
        f" WHERE digest IN ({digests}) AND {token_statements.VALID}"
    )


def encoded_tokens(user_id: int, now: int, current: int | None) -> Statement[EncodedTokens]:
    """See `IStore.encoded_tokens`."""
    return token_statements.encoded(_ENCODED_TOKENS, user_id, now, current)


def add_token(db: sqlite3.Connection, addition: Statement[AddedToken | None]) -> AddedToken | None:
    """See `IStore.add_token`; `addition` is that of `token_statements.add`."""
    with transaction(db):
        for sql in (token_statements.ADD, token_statements.REMOVE_EXCESS):
            db.execute(sqlite(sql), addition.parameters)
        return execute(db, addition)


def delete_token(db: sqlite3.Connection, sql: str, parameters: Mapping[str, object]) -> bool:
    """Run a statement that deletes one token; False if there was none."""
    return bool(db.execute(sql, parameters).fetchall())


def delete_other_tokens(db: sqlite3.Connection, user_id: int, kept: bytes | None) -> None:
    """See `IStore.delete_other_tokens`."""
    db.execute(token_statements.DELETE_OTHERS, {"user_id": user_id, "kept": kept})


def record_seen(
    db: sqlite3.Connection, users: Mapping[int, int], tokens: Mapping[bytes, int]
) -> None:
    """See `IStore.record_seen`."""
    with transaction(db):
        db.executemany(
            "UPDATE account SET last_seen_at = ?1"
            " WHERE id = ?2 AND deleted_at IS NULL AND coalesce(last_seen_at, 0) < ?1",
            [(at, user_id) for user_id, at in users.items()],
        )
        db.executemany(
            "UPDATE token SET last_used_at = ?1"
            " WHERE digest = ?2 AND coalesce(last_used_at, 0) < ?1",
            [(at, digest) for digest, at in tokens.items()],
        )
