"""Transactions and shared statements on a SQLite connection."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import TypeVar

from chatd.store.statements import Statement, sqlite

T = TypeVar("T")


def execute(db: sqlite3.Connection, statement: Statement[T]) -> T:
    """Run a shared statement, fetch all rows and return its result."""
    rows = db.execute(sqlite(statement.sql), statement.parameters).fetchall()
    return statement.result(rows)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Context manager for a write transaction, rolled back if the block raises."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite rolls back by itself after some errors
            db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """Context manager for a read transaction: all statements see the database of one moment."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("COMMIT")
