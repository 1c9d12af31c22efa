"""SQL statements that SQLite and PostgreSQL share: columns, parameters and results.

They are written once, with SQLite's `:name` parameters and PostgreSQL's row locks; `sqlite` and
`postgres` convert them. Add columns and look-ups here.

Other statements differ on purpose. To save round trips, PostgreSQL appends, reads and looks up
tokens for many users in one statement; in SQLite, look-ups of single rows by key are cheaper.
SQLite deletes an inbox with its account and stores `last_seen_at` in `account`; PostgreSQL closes
the inbox, because others may be writing to it, and keeps what changes often in the table `seen`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, Generic, NamedTuple, TypeVar

from chatd.model import (
    Account,
    AccountChange,
    ConversationSlice,
    Credentials,
    EncodedRows,
    Message,
    ReadConversation,
    UserName,
)
from chatd.store.results import KEY_SECONDS, merge_directions, username_taken

T = TypeVar("T")
Rows = list[tuple[Any, ...]]

# The columns are in the order of the fields in `chatd.model`.
NEW_MESSAGE: Final = "received_by, seq, sent_by, sent_at, text"
MESSAGE: Final = f"{NEW_MESSAGE}, edited_at, deleted_at"
_ACCOUNT: Final = "id, username, email, date_joined, last_seen_at"

KEY: Final = "sent_by, key, fingerprint, seq, sent_at"

PURGE_STEP: Final = 2000
"""Rows deleted per transaction, so that purging a large inbox does not delay other writes."""

_PARAMETER: Final = re.compile(r"(?<![:\w]):([a-z_]+)")
_ROW_LOCK: Final = re.compile(r"\s+FOR (?:NO KEY UPDATE|UPDATE SKIP LOCKED)\b")


class Statement(NamedTuple, Generic[T]):
    """A shared statement, its parameters, and the function that turns its rows into a result."""

    sql: str
    parameters: Mapping[str, Any]
    result: Callable[[Rows], T]


@cache
def sqlite(sql: str) -> str:
    """Convert a statement for SQLite, whose writers lock the whole database."""
    return _ROW_LOCK.sub("", sql)


@cache
def postgres(sql: str) -> str:
    """Convert a statement for psycopg2."""
    return _PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%"))


# Checks for the name first, because an insert that conflicts uses up an id.
ADD_ACCOUNT: Final = """
INSERT INTO account (username, username_folded, email, password_hash, date_joined)
SELECT :username, :folded, :email, :hash, :at
WHERE NOT EXISTS (SELECT 1 FROM account WHERE username_folded = :folded)
ON CONFLICT (username_folded) DO NOTHING
RETURNING id
"""


def add_account(
    username: str, email: str, password_hash: str, at: int, sql: str = ADD_ACCOUNT
) -> Statement[Account]:
    """Add an account, or raise `UsernameTaken`; `sql` may extend `ADD_ACCOUNT`."""

    def result(rows: Rows) -> Account:
        if not rows:
            raise username_taken(username)
        return Account(rows[0][0], username, email, at, None)

    parameters = {"username": username, "folded": username.lower(), "email": email}
    return Statement(sql, {**parameters, "hash": password_hash, "at": at}, result)


def account(user_id: int, source: str = "account") -> Statement[Account | None]:
    """Look up an account by id; `source` may join other tables that hold columns of accounts."""
    return _account("id = :user_id", {"user_id": user_id}, source)


def account_named(username: str, source: str = "account") -> Statement[Account | None]:
    """Look up an account by name, ignoring case."""
    return _account("username_folded = :folded", {"folded": username.lower()}, source)


def _account(condition: str, parameters: dict[str, Any], source: str) -> Statement[Account | None]:
    sql = f"SELECT {_ACCOUNT} FROM {source} WHERE {condition} AND deleted_at IS NULL"
    return Statement(sql, parameters, lambda rows: Account(*rows[0]) if rows else None)


def credentials(username: str) -> Statement[Credentials | None]:
    """Look up the password hash of a username, ignoring case."""
    return Statement(
        "SELECT id, password_hash, disabled_at FROM account"
        " WHERE username_folded = :folded AND deleted_at IS NULL",
        {"folded": username.lower()},
        _credentials,
    )


def _credentials(rows: Rows) -> Credentials | None:
    if not rows:
        return None
    [(user_id, password_hash, disabled_at)] = rows
    return Credentials(user_id, password_hash, disabled_at is not None)


# Repeated, it finds the new password hash, which has a new salt each time.
CHANGE_ACCOUNT: Final = """
UPDATE account
SET password_hash = coalesce(:password_hash, password_hash), email = coalesce(:email, email)
WHERE id = :user_id AND deleted_at IS NULL AND password_hash IN (:verified, :password_hash)
"""
PASSWORD_CHANGED: Final = (
    "SELECT id FROM account WHERE id = :user_id AND password_hash = :password_hash"
)


def changed_account(change: AccountChange, source: str = "account") -> Statement[Account | None]:
    """Look up an account that `CHANGE_ACCOUNT` changed; None if there is none."""
    condition = "id = :user_id AND password_hash = :expected"
    expected = change.password_hash or change.verified
    return _account(condition, {"user_id": change.user_id, "expected": expected}, source)


_FIND_USERS: Final = """
SELECT id, username FROM account
WHERE username_folded >= :first AND username_folded < :end AND deleted_at IS NULL
ORDER BY username_folded LIMIT :limit
"""


def find_users(prefix: str, limit: int) -> Statement[list[UserName]]:
    """See `IStore.find_users`; `prefix` is ASCII and not empty."""
    first = prefix.lower()
    end = first[:-1] + chr(ord(first[-1]) + 1)
    return Statement(
        _FIND_USERS,
        {"first": first, "end": end, "limit": limit},
        lambda rows: [UserName(*row) for row in rows],
    )


# `DELETED` finds the account that `DELETE_ACCOUNT` deleted, also when both are repeated.
DELETE_ACCOUNT: Final = """
UPDATE account SET deleted_at = :at, email = NULL, password_hash = NULL
WHERE id = :user_id AND deleted_at IS NULL
"""
DELETED: Final = "SELECT id FROM account WHERE id = :user_id AND deleted_at = :at"
SCHEDULE_PURGE: Final = f"INSERT INTO purge (user_id) {DELETED} ON CONFLICT DO NOTHING"


def purge_step(table: str, owner: str, key: str, user: str = ":user_id") -> str:
    """SQL to delete up to `:step` rows of a user in the order of `key`; `user` is an expression."""
    return (
        f"DELETE FROM {table} WHERE {owner} = {user} AND {key} IN"
        f" (SELECT {key} FROM {table} WHERE {owner} = {user} ORDER BY {key} LIMIT :step)"
    )


# Skips keys that another process is deleting. With `sent_by` before `key`, SQLite would read all
# keys of each sender.
_DELETE_OLD_KEYS: Final = """
WITH old AS (
    SELECT {columns} FROM idempotency WHERE sent_at < :before ORDER BY sent_at LIMIT :step
    FOR UPDATE SKIP LOCKED
)
DELETE FROM idempotency WHERE ({columns}) IN (SELECT {columns} FROM old) RETURNING 1
"""
KEY_NAME: Final = "key, sent_by"
"""The columns that name a key."""


def delete_old_keys(now: int, step: int, columns: str = KEY_NAME) -> Statement[bool]:
    """Delete up to `step` keys that are older than `KEY_SECONDS`; True if more may be left."""
    parameters = {"before": now - KEY_SECONDS * 1_000_000, "step": step}
    sql = _DELETE_OLD_KEYS.format(columns=columns)
    return Statement(sql, parameters, lambda rows: len(rows) == step)


BLOCKS: Final = """
SELECT blocked_id, username FROM block JOIN account ON id = blocked_id AND deleted_at IS NULL
WHERE user_id = :user_id ORDER BY username_folded
"""
"""Whom a user has blocked. Databases encode the rows, each in its own way."""


def encoded(rows: Rows) -> EncodedRows:
    """What a database has encoded: one row of the number and the text."""
    return EncodedRows(*rows[0])


def kept(received_by: str) -> str:
    """SQL for the messages of an inbox that were not removed, whose rows may still be there.

    By index, however many rows there are: in an inbox the orders of `sent_at` and `seq` agree.
    """
    columns = ", ".join(
        f"(SELECT {column} FROM inbox WHERE user_id = :{received_by})"
        for column in ("removed_at", "removed_seq")
    )
    return f"(sent_at, seq) > ({columns})"


def within_bytes(order: str, source: str = "found", max_bytes: str = ":max_bytes::bigint") -> str:
    """SQL for the columns of messages of a source, without the texts that follow `max_bytes`.

    Those come after the one with which the texts have so many bytes, in that order; only these are
    counted, by lengths that are known without reading them. For PostgreSQL: SQLite's rows are read
    one by one, see `results.within`.
    """
    before = (
        f"sum(octet_length({source}.text)) OVER"
        f" (ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    )
    text = f"CASE WHEN coalesce({before}, 0) < {max_bytes} THEN {source}.text END AS text"
    return ", ".join(
        text if column == "text" else f"{source}.{column}" for column in MESSAGE.split(", ")
    )


_DESCENDING: Final = within_bytes("found.sent_at DESC, found.seq DESC")


def direction(received_by: str, sent_by: str) -> str:
    """SQL for the messages that one user sent to another, newest first.

    The arguments are names of parameters. In an inbox the orders of `sent_at` and `seq` agree, so
    the index serves both.
    """
    return f"""
        SELECT {_DESCENDING} FROM (SELECT {MESSAGE} FROM message
        WHERE received_by = :{received_by} AND sent_by = :{sent_by}
            AND (sent_at, seq) < (:{received_by}_time, :{received_by}_seq)
            AND {kept(received_by)}
        ORDER BY sent_at DESC, seq DESC LIMIT :limit) AS found
    """


# One direction of a conversation, and whether its recipient has an account.
_DIRECTION: Final = f"""
SELECT found.* FROM account LEFT JOIN ({direction("received_by", "sent_by")}) AS found ON true
WHERE account.id = :received_by AND account.deleted_at IS NULL
"""


def one_direction(
    query: ReadConversation, received_by: int, sent_by: int
) -> Statement[list[Message] | None]:
    """What one user has sent another, for `conversation`; None if the recipient has no account."""
    time, seq = query.bound(received_by)
    parameters = {
        "received_by": received_by,
        "sent_by": sent_by,
        "received_by_time": time,
        "received_by_seq": seq,
        "limit": query.limit + 1,
        "max_bytes": query.max_bytes,
    }

    def result(rows: Rows) -> list[Message] | None:
        return [Message(*row) for row in rows if row[0] is not None] if rows else None

    return Statement(_DIRECTION, parameters, result)


# Both directions, in one statement and therefore one snapshot. Messages to a deleted peer may not
# have been purged yet, so they are filtered out. A user's conversation with themselves has only one
# direction.
_CONVERSATION: Final = f"""
WITH ends AS (
    SELECT EXISTS (SELECT 1 FROM account WHERE id = :user_id AND deleted_at IS NULL) AS mine,
        EXISTS (SELECT 1 FROM account WHERE id = :peer AND deleted_at IS NULL) AS theirs
)
SELECT mine, theirs, found.* FROM ends LEFT JOIN (
    SELECT * FROM ({direction("user_id", "peer")}) AS received
    UNION ALL
    SELECT * FROM ({direction("peer", "user_id")}) AS sent WHERE :peer <> :user_id
) AS found ON mine AND (theirs OR received_by = :user_id)
"""


def conversation(query: ReadConversation) -> Statement[ConversationSlice | None]:
    """See `IStore.conversation`."""
    # One more than the limit, to find out whether there are older messages.
    parameters = {
        "user_id": query.user_id,
        "peer": query.peer,
        "limit": query.limit + 1,
        "max_bytes": query.max_bytes,
    }
    for name in ("user_id", "peer"):
        bound = query.bound(parameters[name])
        parameters[f"{name}_time"], parameters[f"{name}_seq"] = bound

    def result(rows: Rows) -> ConversationSlice | None:
        mine, theirs = rows[0][:2]
        messages = [Message(*row[2:]) for row in rows if row[2] is not None]
        return merge_directions(query, messages, bool(theirs)) if mine else None

    return Statement(_CONVERSATION, parameters, result)
