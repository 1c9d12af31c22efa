"""How SQLite finds a conversation: by ranges of an index, at any depth."""

import sqlite3

from chatd.model import MAX_INTEGER
from chatd.store.migrations import migrations
from chatd.store.sqlite_conversations import _DIRECTION


def test_a_direction_is_one_range_of_the_index_read_in_its_order() -> None:
    db = sqlite3.connect(":memory:")
    for migration in migrations("sqlite"):
        db.executescript(migration.sql)
    parameters = (1, 2, MAX_INTEGER, MAX_INTEGER, 51)
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {_DIRECTION}", parameters)]
    db.close()
    assert len(plan) == 1, plan
    assert "message_conversation (received_by=? AND sent_by=? AND (sent_at,seq)<(?,?))" in plan[0]
