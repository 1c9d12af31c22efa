"""Appending and reading in SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from chatd.errors import StoreUnavailable
from chatd.model import Draft, InboxSlice, Message, ReadAfter, ReadPage
from chatd.store import known_pairs
from chatd.store.sqlite import chats as sqlite_chats
from tests.contracts.helpers import (
    add_accounts,
    appended,
    conversation_of,
    read_conversation,
    read_inbox,
    send,
    send_many,
)
from tests.doubles import result_of
from tests.inbox_slices import expected_slice
from tests.store.sqlite.database import (
    Database,
    FailingConnection,
    count,
    run_now,
)


def test_the_index_of_conversations_is_updated_in_steps(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_chats, "INDEX_STEP", 10)
    store = database.open()
    ann, bob, cat = run_now(add_accounts(store, "ann", "bob", "cat"))
    said: list[Message] = []
    for number in range(35):
        said.append(run_now(send(store, ann, bob, "a")))
        said.append(run_now(send(store, bob, ann, "b")))
        run_now(send(store, cat, bob, "c"))
        end = count(database, f"SELECT last_seq FROM inbox WHERE user_id = {bob}")
        indexed = count(database, f"SELECT indexed_seq FROM inbox WHERE user_id = {bob}")
        assert end - 10 < indexed <= end
        assert indexed == count(
            database, f"SELECT count(*) FROM conversation WHERE received_by = {bob}"
        )
        if number % 4 == 0:
            for limit in (1, 3, 100):
                assert run_now(read_conversation(store, ann, bob, limit)) == conversation_of(said)
    # A batch with more messages than `INDEX_STEP`.
    results = result_of(store.append([Draft(ann, bob, "d")] * 25))
    said += [appended(result) for result in results]
    assert run_now(read_conversation(store, bob, ann, 100)) == conversation_of(said)
    assert result_of(store.delete_account(bob)) is True
    assert count(database, f"SELECT count(*) FROM conversation WHERE received_by = {bob}") == 0


@pytest.mark.parametrize("ends", [1, 3])
def test_an_inbox_that_another_program_changes_stays_dense(database: Database, ends: int) -> None:
    """As `sqlite3 chatd.db ".restore copy"` does, or a second daemon."""
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(send_many(store, ann, bob, 2))
    database.sql("DELETE FROM message WHERE seq = 2")
    if ends == 3:
        for seq in (2, 3):
            database.sql("INSERT INTO message VALUES (?, ?, ?, 9, 'x', NULL, NULL)", bob, seq, ann)
    database.sql("UPDATE inbox SET last_seq = ?", ends)
    with pytest.raises(StoreUnavailable, match="another program has changed the database"):
        run_now(send(store, ann, bob, "refused"))
    sent = run_now(send(store, ann, bob, "next"))
    assert sent.seq == ends + 1
    assert [message.seq for message in run_now(read_inbox(store, bob))] == list(range(1, ends + 2))


def test_setting_the_clock_back_does_not_reorder_messages(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    first = run_now(send(store, ann, bob, "first"))
    database.now.offset = -3_600_000_000
    second = run_now(send(store, ann, bob, "second"))
    third = run_now(send(store, bob, ann, "to another inbox"))
    assert first.sent_at <= second.sent_at <= third.sent_at
    result_of(store.close())
    store = database.open()
    fourth = run_now(send(store, ann, bob, "after a restart"))
    assert fourth.sent_at >= third.sent_at
    database.now.offset = 60_000_000
    fifth = run_now(send(store, ann, bob, "the time has come"))
    assert fifth.sent_at == database.now()


def test_a_read_does_not_see_commits_made_during_it(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    sent = run_now(send_many(store, ann, bob, 3))
    queries: list[ReadAfter | ReadPage]
    queries = [ReadAfter(bob, 0, 10), ReadPage(bob, 1, 10), ReadAfter(ann, 0, 10)]

    class WithCommits(FailingConnection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            rows = super().execute(statement, *arguments)
            if statement.startswith("SELECT"):
                result_of(store.append([Draft(ann, each, "between") for each in (ann, bob)]))
            return rows

    db = store._read_db
    store._read_db = WithCommits(db)  # type: ignore[assignment]
    found = result_of(store.read(queries))
    store._read_db = db
    assert found == [
        expected_slice(sent, queries[0]),
        expected_slice(sent, queries[1]),
        InboxSlice(0, ()),
    ]


def test_a_contact_is_written_with_the_first_message_of_a_pair_only(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(send_many(store, ann, bob, 3))
    assert database.sql("SELECT * FROM contact ORDER BY 1, 2") == [(ann, bob)]
    db = store._write_db
    store._write_db = breaking = FailingConnection(db)  # type: ignore[assignment]
    run_now(send(store, ann, bob, "more"))
    monkeypatch.setattr(breaking, "executemany", None, raising=False)
    run_now(send(store, ann, bob, "without another statement"))
    monkeypatch.undo()
    run_now(send(store, bob, ann, "the other direction"))
    store._write_db = db
    assert database.sql("SELECT * FROM contact ORDER BY 1, 2") == [(ann, bob), (bob, ann)]


def test_known_pairs_may_be_forgotten(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_pairs, "MAX_KNOWN_PAIRS", 2)
    store = database.open()
    users = run_now(add_accounts(store, *(f"user{number}" for number in range(6))))
    for _ in range(2):
        for each in users:
            run_now(send(store, users[0], each, "x"))
            assert len(store._pairs._pairs) <= 3
    assert database.sql("SELECT * FROM contact ORDER BY 1, 2") == [
        (users[0], each) for each in users
    ]


def test_a_failed_append_leaves_the_pair_unknown(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    db = store._write_db
    store._write_db = breaking = FailingConnection(db)  # type: ignore[assignment]
    breaking.fail = {"COMMIT": sqlite3.OperationalError("disk full")}
    with pytest.raises(StoreUnavailable):
        run_now(send(store, ann, bob, "lost"))
    store._write_db = db
    run_now(send(store, ann, bob, "x"))
    assert database.sql("SELECT * FROM contact ORDER BY 1, 2") == [(ann, bob)]
