"""Accounts and tokens in SQLite: functions of a connection that the store runs in its threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from chatd.model import Account
from chatd.store import statements
from chatd.store.sqlite.transactions import execute, transaction
from chatd.store.statements import PURGE_STEP, purge_step

_PURGE: Final = (
    purge_step("message", "received_by", "seq"),
    "DELETE FROM conversation WHERE received_by = :user_id AND (seq, sent_at, sent_by) IN"
    " (SELECT seq, sent_at, sent_by FROM conversation WHERE received_by = :user_id LIMIT :step)",
    purge_step("token", "user_id", "digest"),
    purge_step("idempotency", "sent_by", "key"),
    purge_step("block", "user_id", "blocked_id"),
)

# A deleted account has no inbox, but its tokens may not have been purged yet.
_OWNER: Final = "SELECT user_id FROM token JOIN inbox USING (user_id) WHERE digest = ?"


def add_account(
    db: sqlite3.Connection, username: str, email: str, password_hash: str, now: int
) -> Account:
    """See `IStore.add_account`."""
    with transaction(db):
        account = execute(db, statements.add_account(username, email, password_hash, now))
        db.execute("INSERT INTO inbox VALUES (?, 0, 0, 0)", (account.id,))
    return account


def delete_account(db: sqlite3.Connection, user_id: int, now: int) -> bool:
    """Make an account with its inbox and tokens inaccessible; `purge` deletes the data later."""
    deletion = {"user_id": user_id, "at": now}
    with transaction(db):
        deleted = db.execute(statements.DELETE_ACCOUNT, deletion).rowcount
        if deleted:
            db.execute("DELETE FROM inbox WHERE user_id = ?", (user_id,))
            db.execute(statements.SCHEDULE_PURGE, deletion)
    return bool(deleted)


def purge(db: sqlite3.Connection) -> bool:
    """Delete up to `PURGE_STEP` rows of deleted accounts; True if more may be left."""
    row = db.execute("SELECT user_id FROM purge LIMIT 1").fetchone()
    if row is None:
        return False
    left = PURGE_STEP
    with transaction(db):
        for statement in _PURGE:
            left -= db.execute(statement, {"user_id": row[0], "step": left}).rowcount
        if left:
            db.execute("DELETE FROM purge WHERE user_id = ?", row)
    return True


def token_owners(db: sqlite3.Connection, digests: Sequence[bytes]) -> list[int | None]:
    """See `IStore.token_owners`."""
    rows = [db.execute(_OWNER, (digest,)).fetchone() for digest in digests]
    return [None if row is None else row[0] for row in rows]


def delete_token(db: sqlite3.Connection, user_id: int, digest: bytes) -> bool:
    """See `IStore.delete_token`."""
    parameters = {"user_id": user_id, "digest": digest}
    return bool(db.execute(statements.DELETE_TOKEN, parameters).fetchall())


def record_seen(db: sqlite3.Connection, seen: Mapping[int, int]) -> None:
    """See `IStore.record_seen`."""
    with transaction(db):
        db.executemany(
            "UPDATE account SET last_seen_at = ?1"
            " WHERE id = ?2 AND deleted_at IS NULL AND coalesce(last_seen_at, 0) < ?1",
            [(at, user_id) for user_id, at in seen.items()],
        )
