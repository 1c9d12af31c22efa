"""Query plans of conversations and changes in SQLite: from indexes in order, without scans."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from chatd.model import ChangesPosition
from chatd.model_sync import ListConversations, ReadChanges
from chatd.store import sync_statements
from chatd.store.migrations import migrations
from chatd.store.sqlite import changes, conversations, messages


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    for migration in migrations("sqlite"):
        connection.executescript(migration.sql)
    yield connection
    connection.close()


def plan(db: sqlite3.Connection, sql: str, parameters: Any) -> list[str]:
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]


BOUNDS = {"received_by": 1, "sent_by": 2, "after": 3, "upto": 4}
STATEMENTS: dict[str, tuple[str, Any]] = {
    "old peers": (changes._OLD_PEERS, (1, 2)),
    "positions": (changes._POSITIONS, {"user_id": 1, "peer": 2}),
    "last new": (messages._LAST_NEW, (1, 2, 3, 4)),
    "last indexed": (messages._LAST_INDEXED, BOUNDS),
    "indexed between": (messages._INDEXED_BETWEEN, BOUNDS),
    "new between": (messages._NEW_BETWEEN, (1, 2, 3, 4)),
    "unread": (conversations._UNREAD, (1, 2, 3, 4)),
    "new": (conversations._NEW, (1, 2)),
    "time": (conversations._TIME, (1, 2)),
    "contacts": (conversations._CONTACTS, (1,)),
    "delivered": (conversations._DELIVERED, (1,)),
    "deleted peer": (sync_statements.FORGET_DELETED_PEER, {"user_id": 1}),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_scans_a_table(db: sqlite3.Connection, name: str) -> None:
    sql, parameters = STATEMENTS[name]
    found = plan(db, sql, parameters)
    scans = {line for line in found if line.startswith("SCAN")}
    assert scans <= {"SCAN CONSTANT ROW", "SCAN (subquery-1)"}, found


def test_a_list_of_conversations_is_one_range_of_its_index(db: sqlite3.Connection) -> None:
    query = ListConversations(1, 50)
    parameters = sync_statements.conversations_parameters(query)
    found = plan(db, conversations._LIST, parameters)
    searches = [line for line in found if line.startswith("SEARCH")]
    assert searches == [
        "SEARCH conversation_summary USING INDEX conversation_summary_newest"
        " (user_id=? AND last_at>? AND (last_at,peer)<(?,?))",
        "SEARCH account USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN",
        "SEARCH message USING PRIMARY KEY (received_by=? AND seq=?) LEFT-JOIN",
    ], found
    # Of the rows of one page only, which the range has returned.
    assert [line for line in found if line.startswith("SCAN")] == ["SCAN listed"], found
    assert not [line for line in found if "B-TREE" in line], found


def test_changes_are_one_range_of_their_index(db: sqlite3.Connection) -> None:
    query = ReadChanges(1, ChangesPosition(2), 100)
    found = plan(db, changes._CHANGES, sync_statements.changes_parameters(query))
    assert "SEARCH change USING COVERING INDEX change_number (user_id=? AND number>?)" in found
    assert [line for line in found if line.startswith("SCAN")] == ["SCAN listed"], found
    assert not [line for line in found if "B-TREE" in line], found


def test_the_first_use_reads_each_conversation_by_index(db: sqlite3.Connection) -> None:
    found = plan(db, changes._STATE, {"user_id": 1})
    scans = [line for line in found if line.startswith("SCAN")]
    # The peers, and what was found of each of them.
    assert scans == ["SCAN peers", "SCAN state"], found
