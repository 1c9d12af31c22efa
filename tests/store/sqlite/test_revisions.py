"""What is left of the text of a revised message in the files of SQLite."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import pytest

from chatd.errors import StoreUnavailable
from chatd.model import Draft, InboxSlice, ReadAfter, ReadConversation, Revision
from chatd.store.inbox_cache import MAX_READS
from chatd.store.sqlite.housekeeping import HOUSEKEEPING_SECONDS
from tests.contracts.helpers import add_accounts, send
from tests.doubles import result_of
from tests.store.sqlite.database import Database, FailingConnection, run_now, step_until


def secret(size: int, number: int) -> str:
    """A text of this size that nothing else in the database contains."""
    return f"secret{number:04}." * (size // 11)


@pytest.mark.parametrize("size", [22, 330, 16_000])
def test_nothing_is_left_of_the_text_in_the_database(database: Database, size: int) -> None:
    store = database.open()
    ann, bob, cat = run_now(add_accounts(store, "ann", "bob", "cat"))
    for number in range(40):
        result_of(store.append([Draft(ann, each, secret(size, number)) for each in (bob, cat)]))
    for seq in range(1, 41):
        text = None if seq % 2 else "short"
        for recipient in (bob, cat):
            result_of(store.revise(Revision(ann, recipient, seq, text)))
    result_of(store.close())
    database.opened.clear()
    assert b"secret" not in database.path.read_bytes()
    assert not database.path.with_name("chatd.db-wal").exists()


BUSY_SECONDS = 5
"""How long a transaction of another process is waited for."""


def test_the_text_leaves_the_log_within_a_minute(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(send(store, ann, bob, secret(330, 1)))
    log = database.path.with_name("chatd.db-wal")
    result_of(store.revise(Revision(ann, bob, 1, None)))
    assert b"secret" in log.read_bytes()
    # A reader keeps the log from being emptied until the next time; nothing waits for it.
    store._read_db.execute("BEGIN")
    store._read_db.execute("SELECT count(*) FROM message").fetchall()
    began = time.monotonic()
    database.clock.advance(HOUSEKEEPING_SECONDS)
    assert time.monotonic() - began < BUSY_SECONDS / 2
    assert log.read_bytes()
    store._read_db.execute("COMMIT")
    database.clock.advance(HOUSEKEEPING_SECONDS)
    assert log.read_bytes() == b""
    assert b"secret" not in database.path.read_bytes()
    run_now(send(store, ann, bob, "x"))
    database.clock.advance(HOUSEKEEPING_SECONDS)
    assert log.read_bytes()


def test_a_failed_revision_changes_nothing_and_is_possible_later(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    sent = run_now(send(store, ann, bob, "old"))
    query = ReadAfter(bob, 0, 10)
    writer = store._write_db
    failing = FailingConnection(writer)
    failing.fail["COMMIT"] = sqlite3.OperationalError("disk I/O error")
    store._write_db = failing  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        result_of(store.revise(Revision(ann, bob, 1, "new")))
    # It is not certain what the database holds.
    assert store.read_cached(query) is None
    assert result_of(store.read([query])) == [InboxSlice(1, (sent,))]
    failing.fail.clear()
    edited = result_of(store.revise(Revision(ann, bob, 1, "new")))
    assert result_of(store.read([query])) == [InboxSlice(1, (edited,))]
    store._write_db = writer


def test_what_was_read_before_a_revision_is_read_again(database: Database) -> None:
    store = database.open_stepped()
    writer, reader = database.workers["writer"], database.workers["reader"]
    ann, bob = [
        step_until(writer, store.add_account(name, "a@example.org", "hash")).id
        for name in ("ann", "bob")
    ]
    step_until(writer, store.append([Draft(ann, bob, "old")]))
    query = ReadAfter(bob, 0, 10)
    for text in ("new", "newer"):
        results: list[Any] = []
        store.read([query]).addCallback(results.extend)
        store.conversation(ReadConversation(ann, bob, 10)).addCallback(results.append)
        reader.work()
        reader.work()
        edited = step_until(writer, store.revise(Revision(ann, bob, 1, text)))
        while reader.step():
            pass
        assert [each.messages for each in results] == [(edited,)] * 2
        assert store.read_cached(query) == InboxSlice(1, (edited,))
    # A message that is revised during every read is read a limited number of times.
    results = []
    store.read([query]).addCallback(results.extend)
    for number in range(MAX_READS):
        assert not results
        reader.work()
        step_until(writer, store.revise(Revision(ann, bob, 1, f"{number}")))
        reader.deliver()
    assert len(results) == 1
    closing = store.close()
    while not closing.called:
        assert writer.step() or reader.step()
