"""Accounts and tokens in SQLite: plain functions on a connection, run in the store's threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chatd.model import Account, Credentials
from chatd.store.outcomes import username_taken
from chatd.store.sqlite_file import transaction

PURGE_STEP: Final = 2000
"""Rows deleted in one transaction: a large inbox must not hold up the writer."""

_PURGE: Final = (
    "DELETE FROM message WHERE received_by = ?1 AND seq IN"
    " (SELECT seq FROM message WHERE received_by = ?1 ORDER BY seq LIMIT ?2)",
    "DELETE FROM token WHERE digest IN (SELECT digest FROM token WHERE user_id = ?1 LIMIT ?2)",
    "DELETE FROM idempotency WHERE sent_by = ?1 AND key IN"
    " (SELECT key FROM idempotency WHERE sent_by = ?1 LIMIT ?2)",
)

# Of a deleted account there is no inbox, but there may still be tokens.
_OWNER: Final = "SELECT user_id FROM token JOIN inbox USING (user_id) WHERE digest = ?"
_ACCOUNT: Final = "SELECT id, username, email, date_joined, last_seen_at FROM account "


def add_account(
    db: sqlite3.Connection, username: str, email: str, password_hash: str, now: int
) -> Account:
    with transaction(db):
        try:
            cursor = db.execute(
                "INSERT INTO account (username, username_folded, email, password_hash, date_joined)"
                " VALUES (?, ?, ?, ?, ?)",
                (username, username.lower(), email, password_hash, now),
            )
        except sqlite3.IntegrityError:
            raise username_taken(username) from None
        user_id = cursor.lastrowid
        assert user_id is not None
        db.execute("INSERT INTO inbox VALUES (?, 0, 0)", (user_id,))
    return Account(user_id, username, email, now, None)


def account(db: sqlite3.Connection, user_id: int) -> Account | None:
    return _account(
        db.execute(_ACCOUNT + "WHERE id = ? AND deleted_at IS NULL", (user_id,)).fetchone()
    )


def account_named(db: sqlite3.Connection, username: str) -> Account | None:
    return _account(
        db.execute(
            _ACCOUNT + "WHERE username_folded = ? AND deleted_at IS NULL", (username.lower(),)
        ).fetchone()
    )


def _account(row: Any) -> Account | None:
    return None if row is None else Account(*row)


def credentials(db: sqlite3.Connection, username: str) -> Credentials | None:
    row = db.execute(
        "SELECT id, password_hash FROM account WHERE username_folded = ? AND deleted_at IS NULL",
        (username.lower(),),
    ).fetchone()
    return None if row is None else Credentials(*row)


def delete_account(db: sqlite3.Connection, user_id: int, now: int) -> bool:
    """Make the account, its inbox and tokens unreachable at once; `purge` deletes them later."""
    with transaction(db):
        deleted = db.execute(
            "UPDATE account SET deleted_at = ?, email = NULL, password_hash = NULL"
            " WHERE id = ? AND deleted_at IS NULL",
            (now, user_id),
        ).rowcount
        if deleted:
            db.execute("DELETE FROM inbox WHERE user_id = ?", (user_id,))
            db.execute("INSERT INTO purge VALUES (?)", (user_id,))
    return bool(deleted)


def purge(db: sqlite3.Connection) -> bool:
    """Delete up to `PURGE_STEP` rows of deleted accounts; True if more may be left."""
    row = db.execute("SELECT user_id FROM purge LIMIT 1").fetchone()
    if row is None:
        return False
    left = PURGE_STEP
    with transaction(db):
        for statement in _PURGE:
            left -= db.execute(statement, (row[0], left)).rowcount
        if left:
            db.execute("DELETE FROM purge WHERE user_id = ?", row)
    return True


def add_token(db: sqlite3.Connection, user_id: int, digest: bytes, now: int) -> int | None:
    added = db.execute(
        "INSERT INTO token SELECT ?, id, ? FROM account WHERE id = ? AND deleted_at IS NULL",
        (digest, now, user_id),
    ).rowcount
    return now if added else None


def token_owners(db: sqlite3.Connection, digests: Sequence[bytes]) -> list[int | None]:
    owners: list[int | None] = []
    for digest in digests:
        row = db.execute(_OWNER, (digest,)).fetchone()
        owners.append(None if row is None else row[0])
    return owners


def delete_token(db: sqlite3.Connection, user_id: int, digest: bytes) -> bool:
    deleted = db.execute("DELETE FROM token WHERE digest = ? AND user_id = ?", (digest, user_id))
    return bool(deleted.rowcount)


def record_seen(db: sqlite3.Connection, seen: Mapping[int, int]) -> None:
    with transaction(db):
        db.executemany(
            "UPDATE account SET last_seen_at = ?1"
            " WHERE id = ?2 AND deleted_at IS NULL AND coalesce(last_seen_at, 0) < ?1",
            [(at, user_id) for user_id, at in seen.items()],
        )
