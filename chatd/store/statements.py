"""What both databases are asked in the same words: columns, statements and what their rows mean.

The words are written once, with parameters as SQLite takes them, `:name`, and row locks as
PostgreSQL needs them; `sqlite` and `postgres` render them. A column or a look-up is added here.

What is not here differs on purpose. PostgreSQL appends, reads and finds the owners of tokens for
many users in one statement, for a network lies between; in SQLite, whose rows are a call away, a
row by its key costs less. SQLite deletes an inbox with its account and has `last_seen_at` there;
PostgreSQL closes the inbox, which others may be writing to, and keeps what changes often in `seen`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, Generic, NamedTuple, TypeVar

from chatd.model import Account, ConversationSlice, Credentials, Message, ReadConversation
from chatd.store.results import KEY_SECONDS, merged, username_taken

T = TypeVar("T")
Rows = list[tuple[Any, ...]]

# In the order of the fields of `chatd.model`.
MESSAGE: Final = "received_by, seq, sent_by, sent_at, text"
_ACCOUNT: Final = "id, username, email, date_joined, last_seen_at"

KEY: Final = "sent_by, key, fingerprint, seq, sent_at"

PURGE_STEP: Final = 2000
"""Rows deleted in one transaction: a large inbox must not hold up what else is written."""

_PARAMETER: Final = re.compile(r"(?<![:\w]):([a-z_]+)")
_ROW_LOCK: Final = re.compile(r"\s+FOR (?:SHARE|UPDATE SKIP LOCKED)\b")


class Statement(NamedTuple, Generic[T]):
    """A statement in the words of this module, its parameters, and what the rows it gives mean."""

    sql: str
    parameters: Mapping[str, Any]
    result: Callable[[Rows], T]


@cache
def sqlite(sql: str) -> str:
    """The statement for SQLite: who writes has locked everything."""
    return _ROW_LOCK.sub("", sql)


@cache
def postgres(sql: str) -> str:
    """The statement for psycopg2."""
    return _PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%"))


# Names are looked for first: a conflict, too, uses up an id.
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
    """Fails with `UsernameTaken`; `sql` does more than `ADD_ACCOUNT` and gives the same row."""

    def result(rows: Rows) -> Account:
        if not rows:
            raise username_taken(username)
        return Account(rows[0][0], username, email, at, None)

    named = {"username": username, "folded": username.lower(), "email": email}
    return Statement(sql, {**named, "hash": password_hash, "at": at}, result)


def account(user_id: int, source: str = "account") -> Statement[Account | None]:
    """An account by its id; `source` joins what of an account lies in other tables."""
    return _account("id = :user_id", {"user_id": user_id}, source)


def account_named(username: str, source: str = "account") -> Statement[Account | None]:
    """An account by its name, whatever the case."""
    return _account("username_folded = :folded", {"folded": username.lower()}, source)


def _account(which: str, parameters: dict[str, Any], source: str) -> Statement[Account | None]:
    sql = f"SELECT {_ACCOUNT} FROM {source} WHERE {which} AND deleted_at IS NULL"
    return Statement(sql, parameters, lambda rows: Account(*rows[0]) if rows else None)


def credentials(username: str) -> Statement[Credentials | None]:
    """What a password is checked against."""
    return Statement(
        "SELECT id, password_hash FROM account"
        " WHERE username_folded = :folded AND deleted_at IS NULL",
        {"folded": username.lower()},
        lambda rows: Credentials(*rows[0]) if rows else None,
    )


# `DELETED` finds what `DELETE_ACCOUNT` did, in its transaction or when it is repeated.
DELETE_ACCOUNT: Final = """
UPDATE account SET deleted_at = :at, email = NULL, password_hash = NULL
WHERE id = :user_id AND deleted_at IS NULL
"""
DELETED: Final = "SELECT id FROM account WHERE id = :user_id AND deleted_at = :at"
LEAVE_TO_PURGE: Final = f"INSERT INTO purge (user_id) {DELETED} ON CONFLICT DO NOTHING"


def purge_step(table: str, owner: str, key: str, user: str = ":user_id") -> str:
    """Delete up to `:step` rows of a user, first keys first; `user` is an expression."""
    return (
        f"DELETE FROM {table} WHERE {owner} = {user} AND {key} IN"
        f" (SELECT {key} FROM {table} WHERE {owner} = {user} ORDER BY {key} LIMIT :step)"
    )


# The lock waits for a deletion under way and lets none pass before the token is there to go too.
_ADD_TOKEN: Final = """
INSERT INTO token (digest, user_id, created_at)
SELECT :digest, id, :at FROM account WHERE id = :user_id AND deleted_at IS NULL FOR SHARE
ON CONFLICT (digest) DO UPDATE SET created_at = token.created_at
RETURNING created_at
"""


def add_token(user_id: int, digest: bytes, at: int) -> Statement[int | None]:
    """When the token was added, be it by an earlier try; None where there is no account."""
    parameters = {"user_id": user_id, "digest": digest, "at": at}
    return Statement(_ADD_TOKEN, parameters, lambda rows: rows[0][0] if rows else None)


DELETE_TOKEN: Final = "DELETE FROM token WHERE digest = :digest AND user_id = :user_id RETURNING 1"

# Keys that another process is dropping are passed over. The key stands first: with `sent_by` there,
# SQLite reads all keys of each sender.
_FORGET_KEYS: Final = """
WITH old AS (
    SELECT sent_by, key FROM idempotency WHERE sent_at < :before ORDER BY sent_at LIMIT :step
    FOR UPDATE SKIP LOCKED
)
DELETE FROM idempotency WHERE (key, sent_by) IN (SELECT key, sent_by FROM old) RETURNING 1
"""


def forget_keys(now: int, step: int) -> Statement[bool]:
    """Drop up to `step` keys that are older than `KEY_SECONDS`; True if more may be left."""
    parameters = {"before": now - KEY_SECONDS * 1_000_000, "step": step}
    return Statement(_FORGET_KEYS, parameters, lambda rows: len(rows) == step)


def direction(received_by: str, sent_by: str) -> str:
    """What one sent the other, newest first, by the names of their parameters.

    Within an inbox the order of seq is the order of commit, so the index gives both.
    """
    return f"""
        SELECT {MESSAGE} FROM message
        WHERE received_by = :{received_by} AND sent_by = :{sent_by}
            AND (sent_at, seq) < (:{received_by}_time, :{received_by}_seq)
        ORDER BY sent_at DESC, seq DESC LIMIT :limit
    """


@cache
def _conversation(direction: Callable[[str, str], str]) -> str:
    """Of two directions, in one statement, so one snapshot.

    A deleted peer's messages may still be there, waiting to be purged; with oneself there is only
    one direction.
    """
    return f"""
        WITH ends AS (
            SELECT EXISTS (SELECT 1 FROM account WHERE id = :user_id AND deleted_at IS NULL)
                    AS mine,
                EXISTS (SELECT 1 FROM account WHERE id = :peer AND deleted_at IS NULL) AS theirs
        )
        SELECT mine, theirs, found.* FROM ends LEFT JOIN (
            SELECT * FROM ({direction("user_id", "peer")}) AS received
            UNION ALL
            SELECT * FROM ({direction("peer", "user_id")}) AS sent WHERE :peer <> :user_id
        ) AS found ON mine AND (theirs OR received_by = :user_id)
    """


def conversation(
    query: ReadConversation, direction: Callable[[str, str], str] = direction
) -> Statement[ConversationSlice | None]:
    """See `IStore.conversation`."""
    # One more than asked for: it tells that there is more.
    parameters = {"user_id": query.user_id, "peer": query.peer, "limit": query.limit + 1}
    for name in ("user_id", "peer"):
        bound = query.bound(parameters[name])
        parameters[f"{name}_time"], parameters[f"{name}_seq"] = bound

    def result(rows: Rows) -> ConversationSlice | None:
        mine, theirs = rows[0][:2]
        messages = [Message(*row[2:]) for row in rows if row[2] is not None]
        return merged(query, messages, bool(theirs)) if mine else None

    return Statement(_conversation(direction), parameters, result)
