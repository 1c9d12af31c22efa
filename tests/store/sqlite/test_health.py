"""A database that cannot be written to."""

from __future__ import annotations

import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from chatd.errors import StoreUnavailable, UsernameTaken
from chatd.model import Draft
from chatd.store.sqlite.store import SqliteStore
from tests.conftest import LoggedFailures
from tests.contracts.helpers import add_accounts, read_inbox, send
from tests.doubles import logged, result_of
from tests.store.sqlite.database import Database, fill_up, restore_space, run_now

LARGE = "x" * 12_000


def two_accounts(store: SqliteStore) -> tuple[int, int]:
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    return ann, bob


def refuse(store: SqliteStore, ids: tuple[int, int], text: str = "x") -> None:
    with pytest.raises(StoreUnavailable):
        result_of(store.append([Draft(*ids, text)]))


def test_a_full_disk_is_reported_until_a_message_fits(
    database: Database, logged_failures: LoggedFailures
) -> None:
    store = database.open()
    ids = two_accounts(store)
    run_now(send(store, *ids, "fits"))
    result_of(store.check())
    fill_up(store)
    refuse(store, ids, LARGE)
    # What needs no further page succeeds.
    run_now(send(store, *ids, "fits"))
    result_of(store.record_seen({ids[0]: 7}, {}))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            result_of(store.check())
        refuse(store, ids, LARGE)
    restore_space(store)
    result_of(store.check())
    assert run_now(send(store, *ids, LARGE)).seq == 3
    assert database.sql("SELECT name FROM sqlite_schema WHERE name = 'probe'") == []
    logged_failures.flush_messages()


def test_a_probe_that_was_interrupted_leaves_no_harm(
    database: Database, logged_failures: LoggedFailures
) -> None:
    store = database.open()
    ids = two_accounts(store)
    store._write_db.execute("CREATE TABLE probe (filler BLOB)")
    fill_up(store)
    refuse(store, ids, LARGE)
    restore_space(store)
    result_of(store.check())
    assert database.sql("SELECT name FROM sqlite_schema WHERE name = 'probe'") == []
    logged_failures.flush_messages()


def test_refusals_say_nothing_about_the_database(database: Database) -> None:
    store = database.open()
    run_now(add_accounts(store, "ann"))
    with pytest.raises(UsernameTaken):
        result_of(store.add_account("ann", "a@x", "h"))
    assert not store._health.needs_probe


def damage(path: Path, table: str) -> None:
    """Let the root page of a table be nonsense."""
    with closing(sqlite3.connect(path)) as db:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        [[page]] = db.execute(query, (table,)).fetchall()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)


def test_a_damaged_database_is_reported_until_the_restart(database: Database) -> None:
    store = database.open()
    ids = two_accounts(store)
    run_now(send(store, *ids, "kept"))
    result_of(store.close())
    database.opened.clear()
    damage(database.path, "message")
    store = database.open()
    result_of(store.check())
    reads = logged(lambda: fail(read_inbox(store, ids[1])))
    assert len(reads) == 1
    assert reads[0].startswith("the database is damaged: see chatd db check, and restore a copy (")
    refuse(store, ids)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="the database is damaged"):
            result_of(store.check())
    # What is not damaged can be used.
    run_now(add_accounts(store, "cat"))


def fail(work: Coroutine[Deferred[Any], Any, object]) -> None:
    with pytest.raises(StoreUnavailable, match="is damaged"):
        run_now(work)
