"""Conversations and changes in SQLite: which transactions there are."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from chatd.errors import StoreUnavailable
from chatd.model import ALL_CHANGES, Draft
from chatd.model_sync import ReadChanges
from chatd.store.sqlite import conversations
from chatd.store.sqlite.store import SqliteStore
from tests.doubles import result_of
from tests.store.sqlite.database import Database

PEERS = 3


class Synchronised:
    """A store with accounts that have all written to each other, and read changes."""

    def __init__(self, database: Database) -> None:
        self.store: SqliteStore = database.open()
        names = [f"user{number}" for number in range(PEERS + 1)]
        self.users = [result_of(self.store.add_account(name, "a@b", "hash")).id for name in names]
        for user in self.users:
            result_of(self.store.sync.synchronise(user))
        self.send()
        self.transactions: list[int] = []
        """How many positions each had."""
        self.failing: set[int] = set()
        self._write = self.store.sync._write
        self.store.sync._write = self._count

    def send(self) -> None:
        for one in self.users:
            drafts = [Draft(one, other, "hello") for other in self.users if other != one]
            result_of(self.store.append(drafts))

    def _count(self, call: Any, *arguments: Any) -> Deferred[Any]:
        number = len(self.transactions)
        if number in self.failing:
            self.transactions.append(0)
            raise StoreUnavailable("for now", 1)
        written: Deferred[Any] = self._write(call, *arguments)
        self.transactions.append(result_of(written)[1])
        return written

    def record(self, seq: int) -> set[int]:
        positions = dict.fromkeys(self.users, seq)
        told = result_of(self.store.sync.record_delivered(positions))
        return set(told)


def test_delivered_positions_are_told_to_so_many_in_a_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised = Synchronised(database)
    monkeypatch.setattr(conversations, "MAX_SENDERS", PEERS + 1)
    assert synchronised.record(PEERS) == set(synchronised.users)
    assert synchronised.transactions == [2, 2]
    positions = "SELECT user_id FROM delivered WHERE seq = ? ORDER BY user_id"
    assert [user for (user,) in database.sql(positions, PEERS)] == synchronised.users


def test_who_was_told_before_a_failure_is_known_after_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised = Synchronised(database)
    monkeypatch.setattr(conversations, "MAX_SENDERS", 1)
    # Everybody is told by the first two positions.
    synchronised.failing = {2}
    with pytest.raises(StoreUnavailable):
        synchronised.record(PEERS)
    synchronised.transactions.clear()
    synchronised.failing.clear()
    assert synchronised.record(PEERS) == set(synchronised.users)
    # Once.
    assert synchronised.record(PEERS) == set()


def test_changes_are_those_of_one_moment(database: Database) -> None:
    store = database.open()
    ann, bob = [result_of(store.add_account(name, "a@b", "h")).id for name in ("ann", "bob")]
    for part in (130, 100):
        result_of(store.append([Draft(ann, bob, "old")] * part))
    result_of(store.sync.synchronise(ann))

    def changes() -> Any:
        found = result_of(store.sync.changes(ReadChanges(ann, ALL_CHANGES, 300)))
        assert found is not None
        return found.changes

    expected = changes()
    indexed = "SELECT indexed_seq FROM inbox WHERE user_id = ?"
    [before] = database.sql(indexed, bob)

    def index(statement: str) -> None:
        if "FROM conversation JOIN message" in statement and database.sql(indexed, bob) == [before]:
            result_of(store.append([Draft(bob, bob, "new")] * 60))

    store._read_db.set_trace_callback(index)
    assert changes() == expected
    store._read_db.set_trace_callback(None)
    assert database.sql(indexed, bob) != [before]
    assert changes() == expected
