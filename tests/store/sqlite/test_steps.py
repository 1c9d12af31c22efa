"""How much one transaction deletes."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from chatd.model import MAX_INTEGER
from chatd.store.sqlite import steps
from chatd.store.sqlite.steps import Oldest, Step
from tests.contracts.helpers import add_accounts, read_inbox, send
from tests.doubles import result_of
from tests.store.sqlite.database import Database, count, run_now


@pytest.fixture(autouse=True)
def few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STEP_BYTES", 100)


def test_a_step_ends_after_so_many_messages_or_bytes(database: Database) -> None:
    store = database.open()
    ann, bob, cat = run_now(add_accounts(store, "ann", "bob", "cat"))
    for size in (40, 40, 40, 1, 1):
        database.clock.advance(1)
        run_now(send(store, ann, bob, "é" * (size // 2)))
        run_now(send(store, ann, cat, "x"))
    times = [each.sent_at for each in run_now(read_inbox(store, bob))]
    with closing(sqlite3.connect(database.path)) as db:
        step = Step(10)
        assert step.take(db, cat, 1, up_to=3)._replace(sent_at=0) == Oldest(2, 3, 0, 2)
        ends = [step.is_over]
        assert step.take(db, bob) == Oldest(3, 3, times[2], 120)
        ends.append(step.is_over)
        step = Step(2)
        assert step.take(db, bob, before=times[1]).seq == 1
        ends.append(step.is_over)
        assert step.take(db, bob, 3).messages == 1
        ends.append(step.is_over)
        assert ends == [False, True, False, True]
        assert Step(2).take(db, bob, 5) == Oldest()


def test_large_messages_are_removed_and_purged_in_small_steps(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    for _ in range(6):
        run_now(send(store, ann, bob, "x" * 60))
    more = [result_of(store.remove_oldest(bob, 5)) for _ in range(3)]
    assert more == [True, True, False]
    assert store.removed == {bob: 5}
    assert count(database, "SELECT text_bytes FROM inbox WHERE user_id = 2") == 60
    assert count(database, "SELECT count(*) FROM message") == 1
    for _ in range(6):
        run_now(send(store, ann, bob, "x" * 60))
    assert result_of(store.admin.remove_old(MAX_INTEGER)) == 7
    for _ in range(6):
        run_now(send(store, ann, bob, "x" * 60))
    assert result_of(store.delete_account(bob, erase=False))
    assert count(database, "SELECT count(*) FROM message") == 0
