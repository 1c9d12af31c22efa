"""Removal of old messages from SQLite: steps, what is deleted, and the size of the file."""

from __future__ import annotations

from itertools import pairwise

import pytest

from chatd.model import MAX_INTEGER, Draft
from chatd.store.migrations import migrations
from chatd.store.sqlite import retention
from chatd.store.sqlite.housekeeping import RETENTION_SECONDS
from chatd.store.sqlite.maintenance import SqliteMaintenance
from chatd.store.sqlite.store import SqliteStore
from tests.contracts.helpers import add_accounts, read_inbox, send, send_many
from tests.doubles import InlineExecutor, fired, result_of
from tests.store.sqlite.database import Database, count, run_now, step_until


def check(database: Database) -> list[str]:
    return SqliteMaintenance(str(database.path), migrations("sqlite")).check()


def test_only_what_is_older_is_removed(database: Database) -> None:
    store = database.open()
    ann, bob, cat = run_now(add_accounts(store, "ann", "bob", "cat"))
    for number in range(200):
        database.clock.advance(1)
        run_now(send(store, ann, bob, f"{number}"))
        run_now(send(store, bob, cat, f"{number}"))
    edge = run_now(read_inbox(store, bob))[150].sent_at
    assert result_of(store.admin.remove_old(edge)) == 300
    assert store.removed == {bob: 150, cat: 150}
    for user_id in (bob, cat):
        assert [each.seq for each in run_now(read_inbox(store, user_id))] == [*range(151, 201)]
    assert count(database, "SELECT removed_at FROM inbox WHERE user_id = 2") < edge
    assert check(database) == []
    status = SqliteMaintenance(str(database.path), migrations("sqlite")).status()
    assert (status.messages, status.removed, status.oldest_message_at) == (100, 300, edge)


def test_other_writes_come_between_the_steps(database: Database) -> None:
    store = database.open_stepped()
    writer = database.workers["writer"]
    ann, bob = [
        step_until(writer, store.add_account(name, "a@b", "hash")).id for name in ("ann", "bob")
    ]
    for _ in range(6):
        step_until(writer, store.append([_draft(ann, bob)] * 500))
    removal = store.admin.remove_old(MAX_INTEGER)
    steps = 0
    while not removal.called:
        # What is queued now is written before the next step.
        sent = store.append([_draft(bob, ann)])
        assert writer.step()
        assert not sent.called
        step_until(writer, sent)
        steps += 1
    assert steps >= 2 * 3000 / retention.MESSAGES
    # Messages that came meanwhile are as old.
    assert result_of(removal) >= 3000
    assert store.removed[bob] == 3000
    end(database, store)


def end(database: Database, store: SqliteStore) -> None:
    """Close a store whose threads run in steps."""
    closing = store.close()
    while not fired(closing):
        assert any(worker.step() for worker in database.workers.values())


def test_owners_remove_a_bounded_number_in_a_transaction(database: Database) -> None:
    store = database.open_stepped()
    writer = database.workers["writer"]
    ann, bob = [
        step_until(writer, store.add_account(name, "a@b", "hash")).id for name in ("ann", "bob")
    ]
    for _ in range(5):
        step_until(writer, store.append([_draft(ann, bob)] * 500))
    more: bool | None = True
    for expected in (1000, 2000, 2400):
        assert more
        more = step_until(writer, store.remove_oldest(bob, 2400))
        assert store.removed[bob] == expected
    assert more is False
    # The rows are deleted in the background, with other writes in between.
    left = [count(database, "SELECT count(*) FROM message WHERE received_by = 2")]
    while writer.pending:
        step_until(writer, store.append([_draft(bob, ann)]))
        left.append(count(database, "SELECT count(*) FROM message WHERE received_by = 2"))
    assert left[-1] == 100
    assert max(before - after for before, after in pairwise(left)) <= retention.MESSAGES
    end(database, store)
    assert check(database) == []


def _draft(sent_by: int, received_by: int) -> Draft:
    return Draft(sent_by, received_by, "text")


def test_free_pages_are_returned_to_the_disk(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SPARE_PAGES", 10)
    store = SqliteStore(
        str(database.path),
        clock=database.clock,
        now=database.now,
        worker=lambda _: InlineExecutor(),
        keep=86_400_000_000,
    )
    result_of(store.open())
    database.opened.append(store)
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(send_many(store, ann, bob, 3000))
    maintenance = SqliteMaintenance(str(database.path), migrations("sqlite"))
    before = maintenance.status()
    database.clock.advance(86_400)
    database.clock.advance(RETENTION_SECONDS)
    after = maintenance.status()
    assert (after.messages, after.removed) == (0, 3000)
    assert after.bytes < before.bytes * 0.6
    assert after.free_bytes == 10 * 4096
    assert check(database) == []


def test_a_file_of_before_is_made_to_shrink_by_vacuum(database: Database) -> None:
    result_of(database.open().close())
    database.opened.clear()
    assert database.sql("PRAGMA auto_vacuum") == [(0,)]
    SqliteMaintenance(str(database.path), migrations("sqlite")).vacuum()
    assert database.sql("PRAGMA auto_vacuum") == [(0,)]
    SqliteMaintenance(str(database.path), migrations("sqlite"), shrinks=True).vacuum()
    assert database.sql("PRAGMA auto_vacuum") == [(2,)]


def test_what_is_interrupted_is_continued(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(send_many(store, ann, bob, 300))
    result_of(store.close())
    database.opened.clear()
    # The process ended after it had moved the beginning of the inbox.
    database.sql("UPDATE inbox SET removed_seq = 200, text_bytes = 1100 WHERE user_id = 2")
    assert check(database) == []
    store = database.open()
    assert store.removed == {bob: 200}
    # Also where messages are kept for ever.
    database.clock.advance(RETENTION_SECONDS)
    assert count(database, "SELECT count(*) FROM message") == 100
    assert result_of(store.admin.remove_old(0)) == 0
    assert check(database) == []
