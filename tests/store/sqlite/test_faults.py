"""A full or failing disk, and a process that is killed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from chatd.errors import StoreUnavailable, UserNotFound
from chatd.model import Appended, Draft, InboxSlice, ReadAfter, ReadPage
from tests.contracts.helpers import (
    add_accounts,
    appended,
    draft,
    read_inbox,
    send_many,
)
from tests.doubles import result_of
from tests.inbox_slices import expected_slice
from tests.store.sqlite.database import (
    Database,
    FailingConnection,
    fill_up,
    restore_space,
    run_now,
)

ROOT = Path(__file__).resolve().parents[3]


def test_a_store_can_be_closed_when_the_disk_is_full(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(send_many(store, ann, bob, 500))
    fill_up(store)
    result_of(store.close())
    store = database.open()
    assert len(run_now(read_inbox(store, bob))) == 500


def test_a_store_can_be_closed_when_the_disk_fails(database: Database) -> None:
    store = database.store()
    result_of(store.open())
    breaking = FailingConnection(store._write_db)
    store._write_db = breaking  # type: ignore[assignment]
    breaking.fail = {"PRAGMA optimize": sqlite3.OperationalError("disk I/O error")}
    result_of(store.close())
    database.open()


def test_a_batch_is_refused_as_a_whole_when_the_disk_is_full(
    database: Database,
) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    sent = run_now(send_many(store, ann, bob, 3))
    fill_up(store)
    batch = [
        draft(ann, each, "x" * 10_000, f"{number}{each}")
        for number in range(50)
        for each in (ann, bob)
    ]
    with pytest.raises(StoreUnavailable) as refusal:
        result_of(store.append(batch))
    assert refusal.value.retry_after > 0
    assert run_now(read_inbox(store, bob)) == sent
    assert run_now(read_inbox(store, ann)) == []
    restore_space(store)
    results = [appended(result) for result in result_of(store.append(batch))]
    assert [each.seq for each in results if each.received_by == bob] == list(range(4, 54))
    assert [each.seq for each in results if each.received_by == ann] == list(range(1, 51))


def test_reads_succeed_while_the_disk_is_full(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    sent = run_now(send_many(store, ann, bob, 25))
    fill_up(store)
    with pytest.raises(StoreUnavailable):
        result_of(store.append([Draft(ann, bob, "x" * 16_000)] * 10))
    [page] = result_of(store.read([ReadPage(bob, 1, 10)]))
    assert page == expected_slice(sent, ReadPage(bob, 1, 10))


def test_a_failed_commit_leaves_nothing_behind(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    breaking = FailingConnection(store._write_db)
    store._write_db = breaking  # type: ignore[assignment]
    breaking.fail = {"COMMIT": sqlite3.OperationalError("disk I/O error")}
    with pytest.raises(StoreUnavailable, match="cannot do this now"):
        result_of(store.append([draft(ann, bob, "x", "key")]))
    assert result_of(store.last_seqs([bob])) == {bob: 0}
    breaking.fail = {}
    [result] = result_of(store.append([draft(ann, bob, "x", "key")]))
    assert appended(result).seq == 1


def test_a_commit_that_succeeded_despite_an_error_is_seen_by_the_next_read(
    database: Database,
) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(read_inbox(store, bob))

    class Uncertain(FailingConnection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            done = super().execute(statement, *arguments)
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return done

    db = store._write_db
    store._write_db = Uncertain(db)  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        result_of(store.append([draft(ann, bob, "x", "key")]))
    store._write_db = db
    query = ReadAfter(bob, 0, 10)
    read_cached = store.read_cached(query)
    [found] = result_of(store.read([query]))
    assert found is not None
    assert found.last_seq == 1
    assert read_cached in (None, found)
    [result] = result_of(store.append([draft(ann, bob, "x", "key")]))
    assert result == Appended(found.messages[0], replayed=True)


def test_an_error_after_which_sqlite_has_rolled_back_is_reported(
    database: Database,
) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    db = store._write_db

    class AtCommit(FailingConnection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            if statement == "COMMIT":
                self._db.execute("ROLLBACK")
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(statement, *arguments)

    store._write_db = AtCommit(db)  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable, match="cannot do this now"):
        result_of(store.append([Draft(ann, bob, "x")]))
    store._write_db = db
    assert appended(result_of(store.append([Draft(ann, bob, "x")]))[0]).seq == 1


def test_an_error_while_reading_is_reported_and_ends_the_transaction(database: Database) -> None:
    store = database.open()
    [ann] = run_now(add_accounts(store, "ann"))
    breaking = FailingConnection(store._read_db)
    store._read_db = breaking  # type: ignore[assignment]
    breaking.fail = {"SELECT last_seq": sqlite3.OperationalError("disk I/O error")}
    with pytest.raises(StoreUnavailable, match="cannot do this now"):
        result_of(store.read([ReadAfter(ann, 0, 10)]))
    breaking.fail = {"SELECT 1": sqlite3.OperationalError("disk I/O error")}
    with pytest.raises(StoreUnavailable, match="cannot do this now"):
        result_of(store.check())
    breaking.fail = {}
    assert result_of(store.read([ReadAfter(ann, 0, 10)])) == [InboxSlice(0, ())]


def test_programming_errors_are_not_reported_as_unavailable(database: Database) -> None:
    store = database.open()
    [ann] = run_now(add_accounts(store, "ann"))
    with pytest.raises(OverflowError):
        result_of(store.append([Draft(ann, 2**70, "x")]))
    assert isinstance(result_of(store.append([Draft(ann, 4711, "x")]))[0], UserNotFound)


def test_a_store_that_cannot_write_is_not_ready_until_it_can(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    for level in ("info", "error"):
        monkeypatch.setattr(
            f"chatd.store.sqlite.health._log.{level}",
            lambda text, **values: events.append(text.format(**values)),
        )
    store = database.open()
    [ann] = run_now(add_accounts(store, "ann"))
    result_of(store.check())
    breaking = FailingConnection(store._write_db)
    store._write_db = breaking  # type: ignore[assignment]
    breaking.fail = {
        "BEGIN": sqlite3.OperationalError("disk full"),
        "UPDATE": sqlite3.OperationalError("disk full"),
    }
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            result_of(store.append([Draft(ann, ann, "x")]))
    assert events == ["the database cannot be written to: disk full"]
    with pytest.raises(StoreUnavailable):
        result_of(store.check())
    breaking.fail = {}
    result_of(store.check())
    result_of(store.append([Draft(ann, ann, "x")]))
    # Each event is logged only once.
    assert events[1:] == ["the database can be written to again"]


WRITER = """
import os, sys
from chatd.model import Draft
from chatd.store.known_pairs import KnownPairs
from chatd.store.migrations import migrations
from chatd.store.sqlite import accounts as sqlite_accounts
from chatd.store.sqlite import chats as sqlite_chats
from chatd.store.sqlite.changes import Synchronised
from chatd.store.sqlite.file import open_writer
from chatd.store.sqlite.contacts import ContactRules
from tests.contracts.helpers import draft

lock, db, epoch = open_writer(sys.argv[1], migrations("sqlite"))
start = int(sys.argv[2])
if start == 0:
    for name in ("ann", "bob", "cat"):
        sqlite_accounts.add_account(db, name, "a@example.org", "hash", 1)
number = start
ends = sqlite_chats.InboxEnds()
contacts = ContactRules(known_only=False)
pairs, synchronised = KnownPairs(), Synchronised(db, lambda: 1)
while True:
    drafts = []
    for _ in range(1 + number % 40):
        number += 1
        drafts.append(draft(1, 1 + number % 3, f"{number}", f"key {number}"))
    results = sqlite_chats.append(db, drafts, 1 + number, ends, contacts, pairs, synchronised)
    for result in results:
        message = result.message
        os.write(1, b"%d %d %s\\n" % (message.received_by, message.seq, message.text.encode()))
"""


def test_acknowledged_messages_survive_kill_9(database: Database) -> None:
    acknowledged: dict[tuple[int, int], str] = {}
    numbers: list[int] = []
    for round_number in range(4):
        start = max(numbers, default=0) + 1000 * round_number
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(database.path), str(start)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        ) as writer:
            assert writer.stdout is not None
            line = writer.stdout.readline()
            # Kill the writer at an arbitrary time.
            timer = threading.Timer(
                0.05 + 0.037 * round_number, writer.send_signal, [signal.SIGKILL]
            )
            timer.start()
            lines = [line, *writer.stdout.readlines()]
            timer.join()
        for each in lines:
            if not each.endswith(b"\n"):
                continue
            recipient, place, number = each.split()
            acknowledged[int(recipient), int(place)] = number.decode()
            numbers.append(int(number))
        store = database.open()
        database.opened.clear()
        held = {}
        for user_id in (1, 2, 3):
            for message in run_now(read_inbox(store, user_id)):
                held[user_id, message.seq] = message.text
        assert held.items() >= acknowledged.items()
        assert len(set(held.values())) == len(held)
        # Keys were committed with their messages, so a repeated send is a replay.
        (user_id, seq), text = max(acknowledged.items(), key=lambda item: int(item[1]))
        [result] = result_of(store.append([draft(1, user_id, text, f"key {text}")]))
        assert isinstance(result, Appended)
        assert (result.replayed, result.message.seq) == (True, seq)
        result_of(store.close())
    assert len(acknowledged) > 100
