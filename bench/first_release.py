"""Databases as the first release of chatd made them, filled by SQL, the same on both."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any, NamedTuple

from chatd.store.migrations import migrations
from chatd.store.sqlite.file import APPLICATION_ID

PEERS = 20
"""How many others have written to each account, if there are as many."""


class Dialect(NamedTuple):
    """What differs: the numbers k from 0 to a count, and k as 32 bytes."""

    numbers: str
    octets: str


SQLITE = Dialect(
    "(WITH RECURSIVE n (k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM n WHERE k + 1 < {count})"
    " SELECT k FROM n)",
    "CAST(printf('%032d', k) AS BLOB)",
)
POSTGRES = Dialect(
    "(SELECT k FROM generate_series(0, {count} - 1) AS k)",
    "convert_to(lpad(k::text, 32, '0'), 'UTF8')",
)


def statements(dialect: Dialect, accounts: int, messages: int) -> list[str]:
    """SQL that fills the tables of the first release, each inbox with as many messages."""
    users = f"{dialect.numbers.format(count=accounts)} AS users"
    each_message = f"{dialect.numbers.format(count=messages)} AS messages"
    return [
        "INSERT INTO account (username, username_folded, email, password_hash, date_joined)"
        " SELECT 'User-' || (k + 1), 'user-' || (k + 1), (k + 1) || '@example.org', 'hash', k"
        f" FROM {users} ORDER BY k",
        "INSERT INTO message (received_by, seq, sent_by, sent_at, text)"
        f" SELECT 1 + k % {accounts}, 1 + k / {accounts},"
        f" 1 + (k % {accounts} + k / {accounts} % {PEERS} * 17) % {accounts},"
        " 1700000000000000 + k * 1000,"
        " 'message ' || k || ' of the first release, which is as long as messages often are'"
        f" FROM {each_message} ORDER BY 1, 2",
        "INSERT INTO inbox (user_id, last_seq, last_sent_at)"
        " SELECT received_by, max(seq), max(sent_at) FROM message GROUP BY received_by ORDER BY 1",
        f"INSERT INTO token (digest, user_id, created_at) SELECT {dialect.octets}, k + 1, k"
        f" FROM {users}",
        "INSERT INTO idempotency (sent_by, key, fingerprint, seq, sent_at)"
        f" SELECT sent_by, 'key ' || received_by, {dialect.octets}, seq, sent_at"
        f" FROM {users} JOIN message ON received_by = k + 1 AND seq = 1",
    ]


def fill_sqlite(path: str, accounts: int, messages: int) -> None:
    """Make a database file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")
        db.executescript(migrations("sqlite")[0].sql)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
        db.execute("BEGIN")
        for statement in statements(SQLITE, accounts, messages):
            db.execute(statement)
        db.execute("COMMIT")


def fill_postgres(db: Any, accounts: int, messages: int) -> None:
    """Fill an empty database; `db` is a connection of psycopg2."""
    with db, db.cursor() as cursor:
        cursor.execute(migrations("postgres")[0].sql)
        cursor.execute("UPDATE schema_version SET version = 1")
        for statement in statements(POSTGRES, accounts, messages):
            cursor.execute(statement)
    db.autocommit = True
    with db.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
