"""Appending and reading in SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from chatd.model import Draft, InboxSlice, Message, ReadAfter, ReadPage
from chatd.store.sqlite import chats as sqlite_chats
from tests.contracts.helpers import (
    appended,
    conversation_of,
    fill,
    people,
    send,
    talk,
)
from tests.doubles import result_of
from tests.store.sqlite.database import (
    Breaking,
    Database,
    count,
    now_of,
)


def test_the_index_of_conversations_is_brought_up_to_date_now_and_then(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_chats, "INDEX_STEP", 10)
    store = database.open()
    ann, bob, cat = now_of(people(store, "ann", "bob", "cat"))
    said: list[Message] = []
    for number in range(35):
        said.append(now_of(send(store, ann, bob, "a")))
        said.append(now_of(send(store, bob, ann, "b")))
        now_of(send(store, cat, bob, "c"))
        end = count(database, f"SELECT last_seq FROM inbox WHERE user_id = {bob}")
        indexed = count(database, f"SELECT indexed_seq FROM inbox WHERE user_id = {bob}")
        assert end - 10 < indexed <= end
        assert indexed == count(
            database, f"SELECT count(*) FROM conversation WHERE received_by = {bob}"
        )
        if number % 4 == 0:
            for limit in (1, 3, 100):
                assert now_of(talk(store, ann, bob, limit)) == conversation_of(said)
    # A batch that holds more than is indexed at once.
    outcomes = result_of(store.append([Draft(ann, bob, "d")] * 25))
    said += [appended(outcome) for outcome in outcomes]
    assert now_of(talk(store, bob, ann, 100)) == conversation_of(said)
    assert result_of(store.delete_account(bob)) is True
    assert count(database, f"SELECT count(*) FROM conversation WHERE received_by = {bob}") == 0


def test_a_clock_that_was_set_back_does_not_reorder(database: Database) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    first = now_of(send(store, ann, bob, "first"))
    database.now.offset = -3_600_000_000
    second = now_of(send(store, ann, bob, "second"))
    third = now_of(send(store, bob, ann, "to another inbox"))
    assert first.sent_at <= second.sent_at <= third.sent_at
    result_of(store.close())
    store = database.open()
    fourth = now_of(send(store, ann, bob, "after a restart"))
    assert fourth.sent_at >= third.sent_at
    database.now.offset = 60_000_000
    fifth = now_of(send(store, ann, bob, "the time has come"))
    assert fifth.sent_at == database.now()


def test_a_commit_in_the_middle_of_a_read_is_not_seen_by_it(database: Database) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    sent = now_of(fill(store, ann, bob, 3))
    queries: list[ReadAfter | ReadPage]
    queries = [ReadAfter(bob, 0, 10), ReadPage(bob, 1, 10), ReadAfter(ann, 0, 10)]

    class WithCommits(Breaking):
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
        InboxSlice(3, tuple(sent)),
        InboxSlice(3, tuple(reversed(sent))),
        InboxSlice(0, ()),
    ]
