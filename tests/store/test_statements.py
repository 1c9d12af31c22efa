"""What is written once for both databases, as each of them takes it."""

import sqlite3

import pytest

from chatd.model import ReadConversation
from chatd.store import statements
from chatd.store.migrations import migrations
from chatd.store.statements import direction, postgres, sqlite


@pytest.mark.parametrize(
    ("sql", "rendered"),
    [
        ("SELECT 1", "SELECT 1"),
        ("WHERE id = :user_id AND at<:at", "WHERE id = %(user_id)s AND at<%(at)s"),
        ("(:a,:b)", "(%(a)s,%(b)s)"),
        (":ids::bigint[]", "%(ids)s::bigint[]"),
        ("'{}'::text", "'{}'::text"),
        ("LIKE 'a%'", "LIKE 'a%%'"),
    ],
)
def test_psycopg2_takes_parameters_by_name(sql: str, rendered: str) -> None:
    assert postgres(sql) == rendered


@pytest.mark.parametrize(
    ("sql", "rendered"),
    [
        ("WHERE id = :user_id", "WHERE id = :user_id"),
        ("SELECT 1 FROM a FOR SHARE\nON CONFLICT", "SELECT 1 FROM a\nON CONFLICT"),
        ("LIMIT :step\n    FOR UPDATE SKIP LOCKED\n)", "LIMIT :step\n)"),
    ],
)
def test_sqlite_locks_no_rows(sql: str, rendered: str) -> None:
    assert sqlite(sql) == rendered


def test_a_direction_is_one_range_of_the_index_read_in_its_order() -> None:
    plan = sqlite_plan(direction("user_id", "peer"))
    assert len(plan) == 1, plan
    assert "message_conversation (received_by=? AND sent_by=? AND (sent_at,seq)<(?,?))" in plan[0]


def test_a_conversation_reads_both_directions_so() -> None:
    plan = sqlite_plan(statements.conversation(ReadConversation(1, 2, 50)).sql)
    ranges = [line for line in plan if "message_conversation (received_by=? AND sent_by=?" in line]
    assert len(ranges) == 2, plan
    assert not [line for line in plan if "SCAN message" in line or "B-TREE" in line], plan


def sqlite_plan(sql: str) -> list[str]:
    db = sqlite3.connect(":memory:")
    for migration in migrations("sqlite"):
        db.executescript(migration.sql)
    parameters = statements.conversation(ReadConversation(1, 2, 50)).parameters
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sqlite(sql)}", parameters)]
    db.close()
    return plan
