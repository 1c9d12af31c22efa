"""The embedded store: the contract, and what is SQLite's own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import Clock

from chatd.errors import StartError, StoreUnavailable, UserNotFound
from chatd.model import Appended, Draft, InboxSlice, Message, ReadAfter, ReadPage
from chatd.runtime.thread_pool import ThreadPool
from chatd.store.migrations import Migration, migrations
from chatd.store.results import KEY_SECONDS
from chatd.store.sqlite import accounts as sqlite_accounts
from chatd.store.sqlite import chats as sqlite_chats
from chatd.store.sqlite.file import APPLICATION_ID, backup
from chatd.store.sqlite.housekeeping import HOUSEKEEPING_SECONDS
from chatd.store.sqlite.store import SqliteStore
from tests.conftest import LoggedFailures
from tests.contracts import (
    OpenStore,
    StoreContract,
    appended,
    conversation_of,
    digest,
    draft,
    fill,
    inbox,
    page_of,
    people,
    send,
    talk,
)
from tests.doubles import InlineExecutor, Now, SteppedExecutor, result_of

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[3]


@async_yield_fixture
async def open_store(tmp_path: Path) -> AsyncIterator[OpenStore]:
    """The store as the daemon runs it: real threads, the real reactor, the real time."""
    from twisted.internet import reactor

    opened: list[SqliteStore] = []

    async def open_one() -> SqliteStore:
        store = SqliteStore(
            str(tmp_path / "chatd.db"),
            clock=IReactorTime(reactor),
            now=lambda: time.time_ns() // 1000,
            worker=lambda name: ThreadPool(name, 1, IReactorFromThreads(reactor).callFromThread),
        )
        await store.open()
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


class TestSqliteStore(StoreContract):
    """The contract."""


class Database:
    """A database file and a store on it whose threads and time are the test's."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "chatd.db"
        self.clock = Clock()
        self.now = Now(self.clock)
        self.workers: dict[str, SteppedExecutor] = {}
        self.opened: list[SqliteStore] = []

    def store(
        self,
        known: list[Migration] | None = None,
        worker: Callable[[str], InlineExecutor | SteppedExecutor] = lambda _: InlineExecutor(),
    ) -> SqliteStore:
        """A store that is not open yet."""
        return SqliteStore(
            str(self.path), clock=self.clock, now=self.now, worker=worker, known=known
        )

    def open(self, known: list[Migration] | None = None) -> SqliteStore:
        """An open store that does everything at once."""
        store = self.store(known)
        result_of(store.open())
        self.opened.append(store)
        return store

    def open_stepped(self) -> SqliteStore:
        """An open store whose threads the test steps; housekeeping at the start is done."""

        def worker(name: str) -> SteppedExecutor:
            self.workers[name] = SteppedExecutor()
            return self.workers[name]

        store = self.store(worker=worker)
        result_of(store.open())
        return store

    def refused(self, known: list[Migration] | None = None) -> str:
        """The line with which a store refuses to open."""
        timers = self.clock.getDelayedCalls()
        with pytest.raises(StartError) as refusal:
            result_of(self.store(known).open())
        line = str(refusal.value)
        assert "\n" not in line
        assert self.clock.getDelayedCalls() == timers
        return line

    def sql(self, statement: str, *arguments: object) -> list[tuple[object, ...]]:
        """What another program reads or writes in the file."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            return db.execute(statement, arguments).fetchall()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    for store in database.opened:
        result_of(store.close())
    assert not database.clock.getDelayedCalls()


def now_of(work: Coroutine[Deferred[Any], Any, T]) -> T:
    """The result of an `async def` that ends at once."""
    return result_of(Deferred.fromCoroutine(work))


# The file


def test_only_its_owner_may_read_the_database(database: Database) -> None:
    before = os.umask(0)
    try:
        store = database.open()
        now_of(people(store, "ann"))
        modes = {
            entry.name: entry.stat().st_mode & 0o777 for entry in database.path.parent.iterdir()
        }
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(
        ("chatd.db", "chatd.db-wal", "chatd.db-shm", "chatd.db.lock"), 0o600
    )


def test_commits_are_synchronised_to_the_disk(database: Database) -> None:
    store = database.open()
    for db in (store._write_db, store._read_db):
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._write_db.execute("PRAGMA synchronous").fetchone() == (2,)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store._read_db.execute("DELETE FROM account")


def test_a_closed_database_is_one_file_and_a_lock(database: Database) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    now_of(send(store, ann, bob, "hello"))
    result_of(store.close())
    assert sorted(entry.name for entry in database.path.parent.iterdir()) == [
        "chatd.db",
        "chatd.db.lock",
    ]
    assert database.sql("SELECT text FROM message") == [("hello",)]


def test_closing_twice_or_before_opening_is_no_fault(database: Database) -> None:
    store = database.store()
    result_of(store.close())
    result_of(store.open())
    result_of(store.close())
    result_of(store.close())


def test_a_store_is_closed_on_a_full_disk_too(database: Database) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    now_of(fill(store, ann, bob, 500))
    fill_up(store)
    result_of(store.close())
    store = database.open()
    assert len(now_of(inbox(store, bob))) == 500


def test_closing_needs_no_healthy_disk(database: Database) -> None:
    store = database.store()
    result_of(store.open())
    breaking = Breaking(store._write_db)
    store._write_db = breaking  # type: ignore[assignment]
    breaking.fail = {"PRAGMA optimize": sqlite3.OperationalError("disk I/O error")}
    result_of(store.close())
    database.open()


def test_the_location_is_the_file_itself(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(database.path.parent)
    store = SqliteStore(
        "chatd.db", clock=database.clock, now=database.now, worker=lambda _: InlineExecutor()
    )
    assert store.location == "sqlite:chatd.db"
    result_of(store.open())
    monkeypatch.chdir("/")
    assert store.location == f"sqlite:{database.path.resolve()}"
    assert result_of(store.account(1)) is None
    result_of(store.close())


def test_a_link_and_its_target_are_one_database(database: Database) -> None:
    database.open()
    link = database.path.parent / "link.db"
    link.symlink_to(database.path)
    database.path = link
    assert "is open in another chatd" in database.refused()


# What cannot be opened


def test_a_second_daemon_is_refused_and_told_which_process_has_the_database(
    database: Database,
) -> None:
    code = (
        "import sys, time\n"
        "from chatd.store.sqlite.file import open_writer\n"
        "from chatd.store.migrations import migrations\n"
        "opened = open_writer(sys.argv[1], migrations('sqlite'))\n"
        "print('open', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(database.path)], stdout=subprocess.PIPE, cwd=ROOT
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"open\n"
            line = database.refused()
            assert line.endswith(f"is open in another chatd, process {other.pid}")
            assert str(database.path) in line
        finally:
            other.kill()
    # The kernel has released the lock: nothing has to be cleaned up by hand.
    database.open()


def test_a_holder_that_has_not_written_its_name_is_called_unknown(database: Database) -> None:
    database.open()
    (database.path.parent / "chatd.db.lock").write_bytes(b"")
    assert database.refused().endswith("process ?")


def test_a_refused_second_store_does_not_disturb_the_first(database: Database) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    database.refused()
    database.refused()
    now_of(send(store, ann, bob, "hello"))
    database.refused()


def test_a_file_that_is_no_database_is_refused_and_left_alone(database: Database) -> None:
    content = b"Dear diary, " * 1000
    database.path.write_bytes(content)
    assert "was not made by chatd" in database.refused()
    assert database.path.read_bytes() == content


def test_a_database_of_another_program_is_refused_and_left_alone(database: Database) -> None:
    database.sql("CREATE TABLE diary (entry TEXT)")
    content = database.path.read_bytes()
    assert database.refused() == f"the database {database.path} was not made by chatd"
    assert database.path.read_bytes() == content


def test_a_database_with_another_programs_mark_is_refused(database: Database) -> None:
    database.sql("PRAGMA application_id = 4711")
    database.sql("PRAGMA user_version = 9")
    database.sql("CREATE TABLE diary (entry TEXT)")
    assert "was not made by chatd" in database.refused()


def test_a_database_of_a_newer_chatd_is_refused_and_left_alone(database: Database) -> None:
    result_of(database.open().close())
    database.opened.clear()
    newer = len(migrations("sqlite")) + 1
    database.sql(f"PRAGMA user_version = {newer}")
    content = database.path.read_bytes()
    assert f"has schema version {newer}" in database.refused()
    assert database.path.read_bytes() == content


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    database = Database(tmp_path / "missing")
    line = database.refused()
    assert str(database.path) in line
    assert "No such file or directory" in line


def test_a_folder_in_place_of_the_file_is_told(database: Database) -> None:
    database.path.mkdir()
    assert "not a file" in database.refused()


def test_a_folder_that_cannot_be_written_to_is_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is read-only to root, who may run the tests.
    real = os.open

    def refuse(path: str, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT and not Path(path).exists():
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    assert database.refused().endswith("Permission denied")
    os.close(real(f"{database.path}.lock", os.O_CREAT))
    assert database.refused().endswith("Permission denied")


def test_whoever_was_refused_may_try_again(database: Database) -> None:
    database.path.write_bytes(b"nonsense" * 1000)
    database.refused()
    database.path.unlink()
    database.open()


# Migrations

PRESENT = len(migrations("sqlite"))

NEXT = Migration(
    PRESENT + 1,
    "next_mood.sql",
    "ALTER TABLE account ADD COLUMN mood TEXT;\nCREATE INDEX m ON account (mood);",
)
WRONG = Migration(
    PRESENT + 2, "wrong.sql", "CREATE TABLE third (x);\nALTER TABLE nowhere ADD COLUMN y;"
)


def known(*more: Migration) -> list[Migration]:
    """The migrations there are and others."""
    return [*migrations("sqlite"), *more]


def backups(database: Database) -> list[Path]:
    """The copies that lie beside the database."""
    return sorted(database.path.parent.glob("*.backup*"))


def test_a_new_database_has_the_newest_schema_and_chatds_mark(database: Database) -> None:
    database.open()
    assert database.sql("PRAGMA user_version") == [(PRESENT,)]
    assert database.sql("PRAGMA application_id") == [(APPLICATION_ID,)]
    assert backups(database) == []


def test_a_migration_keeps_the_data_and_makes_a_copy_first(database: Database) -> None:
    store = database.open(known())
    ann, bob = now_of(people(store, "ann", "bob"))
    sent = now_of(fill(store, ann, bob, 20))
    epoch = store.epoch
    result_of(store.close())
    store = database.open(known(NEXT))
    assert now_of(inbox(store, bob)) == sent
    assert store.epoch == epoch
    assert database.sql("SELECT mood FROM account") == [(None,), (None,)]
    assert database.sql("PRAGMA user_version") == [(PRESENT + 1,)]
    [copy] = backups(database)
    assert copy.name.startswith(f"chatd.db.v{PRESENT}.")
    assert copy.stat().st_mode & 0o777 == 0o600
    result_of(store.close())
    # The copy is the database as it was, good for the chatd that made it.
    database.path = copy
    store = database.open(known())
    assert now_of(inbox(store, bob)) == sent
    assert store.epoch != epoch


def test_an_up_to_date_database_is_not_copied(database: Database) -> None:
    for _ in range(3):
        result_of(database.open(known(NEXT)).close())
    assert backups(database) == []


def test_a_failing_migration_leaves_the_old_version_intact(database: Database) -> None:
    store = database.open(known())
    ann, bob = now_of(people(store, "ann", "bob"))
    now_of(fill(store, ann, bob, 20))
    result_of(store.close())
    wrong = Migration(PRESENT + 1, "wrong.sql", WRONG.sql)
    assert "no such table: nowhere" in database.refused(known(wrong))
    assert database.sql("PRAGMA user_version") == [(PRESENT,)]
    assert database.sql("SELECT count(*) FROM sqlite_schema WHERE name = 'third'") == [(0,)]
    assert len(backups(database)) == 1
    store = database.open(known())
    assert len(now_of(inbox(store, bob))) == 20


def test_migrations_before_a_failing_one_stay_done(database: Database) -> None:
    result_of(database.open(known()).close())
    database.refused(known(NEXT, WRONG))
    assert database.sql("PRAGMA user_version") == [(PRESENT + 1,)]
    database.open(known(NEXT))


def test_a_new_database_whose_migration_fails_can_be_opened_later(database: Database) -> None:
    wrong = Migration(1, "001_wrong.sql", WRONG.sql)
    database.refused([wrong])
    database.open()


def test_the_last_statement_of_a_migration_may_lack_its_semicolon(database: Database) -> None:
    database.open(
        known(Migration(PRESENT + 1, "next.sql", "CREATE TABLE a (x);\nCREATE TABLE b (x)\n"))
    )
    assert database.sql("SELECT name FROM sqlite_schema WHERE name IN ('a', 'b')") == [
        ("a",),
        ("b",),
    ]


def test_conversations_survive_the_change_of_their_index(database: Database) -> None:
    texts = [str(number) for number in range(300)]
    known_then = migrations("sqlite")[:2]
    old = sqlite3.connect(database.path)
    for migration in known_then:
        old.executescript(migration.sql)
    old.executescript(f"PRAGMA user_version = 2; PRAGMA application_id = {APPLICATION_ID}")
    for user_id, name in enumerate(("ann", "bob", "cat"), 1):
        old.execute(
            "INSERT INTO account (id, username, username_folded, date_joined) VALUES (?, ?, ?, 0)",
            (user_id, name, name),
        )
    old.execute("INSERT INTO inbox VALUES (1, 0, 0), (2, ?, ?), (3, 0, 0)", (len(texts),) * 2)
    old.executemany(
        "INSERT INTO message VALUES (2, ?, ?, ?, ?)",
        [(seq, 1 + seq % 2 * 2, seq, text) for seq, text in enumerate(texts, 1)],
    )
    old.commit()
    old.close()
    store = database.open()
    found = now_of(talk(store, 2, 3, 100))
    assert [message.text for message in found] == texts[::2][::-1]


# The index of conversations


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


# Backups and the epoch


def test_a_copy_holds_everything_and_begins_a_new_history(database: Database) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    sent = now_of(fill(store, ann, bob, 20))
    target = database.path.parent / "copy.db"
    (database.path.parent / "copy.db.part").write_bytes(b"of an attempt that was killed")
    backup(store._write_db, str(target))
    assert target.stat().st_mode & 0o777 == 0o600
    assert not (database.path.parent / "copy.db.part").exists()
    now_of(send(store, ann, bob, "after the copy"))
    epoch = store.epoch
    database.path = target
    copy = database.open()
    assert copy.epoch != epoch
    assert now_of(inbox(copy, bob)) == sent
    result_of(copy.close())
    again = database.open()
    assert again.epoch == copy.epoch


def test_every_new_database_has_its_own_epoch(tmp_path: Path) -> None:
    epochs = set()
    for number in range(5):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        store = Database(folder).open()
        epochs.add(store.epoch)
        result_of(store.close())
    assert len(epochs) == 5


# Time


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


# Purging


def test_a_large_deleted_inbox_is_emptied_in_steps(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_accounts, "PURGE_STEP", 200)
    store = database.open_stepped()
    writer, reader = database.workers["writer"], database.workers["reader"]
    while writer.step():
        pass
    store_now(writer, store.add_account("ann", "a@x", "h"))
    store_now(writer, store.add_account("bob", "b@x", "h"))
    store_now(writer, store.append([Draft(1, 2, "x")] * 700))
    deletion = store.delete_account(2)
    writer.step()
    assert result_of(deletion) is True
    found = store.read([ReadAfter(2, 0, 100)])
    reader.step()
    assert result_of(found) == [None]
    left = [message_count(database)]
    # What others want gets its turn between the steps.
    while writer.asked:
        sent = store.append([Draft(2, 1, "x")])
        writer.step()
        left.append(message_count(database))
        writer.step()
        assert isinstance(result_of(sent)[0], Appended)
    assert left[0] == 700
    assert all(before - after <= 200 for before, after in pairwise(left))
    assert count(database, "SELECT count(*) FROM message WHERE received_by = 2") == 0
    assert count(database, "SELECT count(*) FROM purge") == 0
    closing_store = store.close()
    while writer.step() or reader.step():
        pass
    result_of(closing_store)


def test_emptying_is_resumed_after_a_restart(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_accounts, "PURGE_STEP", 200)
    store = database.open_stepped()
    writer, reader = database.workers["writer"], database.workers["reader"]
    while writer.step():
        pass
    store_now(writer, store.add_account("ann", "a@x", "h"))
    store_now(writer, store.append([Draft(1, 1, "x")] * 1000))
    store.delete_account(1)
    writer.step()
    writer.step()
    assert message_count(database) == 800
    closed = store.close()
    while writer.step() or reader.step():
        pass
    result_of(closed)
    assert 0 < message_count(database) <= 800
    database.open()
    assert message_count(database) == 0
    assert count(database, "SELECT count(*) FROM purge") == 0


def test_the_writer_closes_last_and_alone_so_that_one_file_is_left(database: Database) -> None:
    store = database.open_stepped()
    writer, reader = database.workers["writer"], database.workers["reader"]
    while writer.step():
        pass
    store_now(writer, store.add_account("ann", "a@x", "h"))
    closed = store.close()
    assert (reader.asked, writer.asked) == (1, 0)
    assert reader.step()
    assert (reader.asked, writer.asked) == (0, 1)
    assert writer.step()
    result_of(closed)
    assert sorted(path.name for path in database.path.parent.iterdir()) == [
        "chatd.db",
        "chatd.db.lock",
    ]


def test_a_deletion_that_ends_after_close_was_called_asks_for_nothing_more(
    database: Database,
) -> None:
    store = database.open_stepped()
    writer, reader = database.workers["writer"], database.workers["reader"]
    while writer.step():
        pass
    store_now(writer, store.add_account("ann", "a@x", "h"))
    deletion = store.delete_account(1)
    closed = store.close()
    while writer.step() or reader.step():
        pass
    assert result_of(deletion) is True
    result_of(closed)
    assert writer.stopped
    assert reader.stopped
    assert not writer.asked


def store_now(worker: SteppedExecutor, asked: Deferred[T]) -> T:
    """Step the worker until what was asked is there."""
    while not asked.called:
        assert worker.step()
    return result_of(asked)


def message_count(database: Database) -> int:
    return count(database, "SELECT count(*) FROM message")


def count(database: Database, statement: str) -> int:
    [(value,)] = database.sql(statement)
    assert isinstance(value, int)
    return value


# Idempotency keys


def test_keys_are_kept_for_48_hours_and_then_forgotten(database: Database) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    first = now_of(send(store, ann, bob, "once", "key"))
    # In steps, so that housekeeping runs as often as it would.
    for _ in range(48):
        database.clock.pump([HOUSEKEEPING_SECONDS] * 60)
        if database.clock.seconds() < KEY_SECONDS:
            [outcome] = result_of(store.append([draft(ann, bob, "once", "key")]))
            assert outcome == Appended(first, True)
    database.clock.pump([HOUSEKEEPING_SECONDS] * 2)
    [outcome] = result_of(store.append([draft(ann, bob, "once", "key")]))
    assert appended(outcome).seq == 2
    assert count(database, "SELECT count(*) FROM idempotency") == 1


def test_many_old_keys_are_forgotten_as_fast_as_they_come(database: Database) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    for start in range(0, 5000, 500):
        result_of(
            store.append([draft(ann, bob, "x", f"{start + number}") for number in range(500)])
        )
    database.clock.advance(KEY_SECONDS + 2 * HOUSEKEEPING_SECONDS)
    assert count(database, "SELECT count(*) FROM idempotency") == 0
    assert message_count(database) == 5000


def test_a_failure_of_housekeeping_is_logged(
    database: Database, logged_failures: LoggedFailures
) -> None:
    store = database.open()
    store._write_db.execute("PRAGMA query_only = ON")
    database.clock.advance(HOUSEKEEPING_SECONDS)
    # Nothing is old: not even a write is tried where nothing is to be done.
    now = database.now
    store._write_db.execute("PRAGMA query_only = OFF")
    ann, bob = now_of(people(store, "ann", "bob"))
    now_of(send(store, ann, bob, "x", "key"))
    logged_failures.flush(StoreUnavailable)
    now.offset = (KEY_SECONDS + 1) * 1_000_000
    store._write_db.execute("PRAGMA query_only = ON")
    database.clock.advance(HOUSEKEEPING_SECONDS)
    [failure] = logged_failures.flush(StoreUnavailable)
    assert "the database cannot do this now" in failure.getErrorMessage()
    store._write_db.execute("PRAGMA query_only = OFF")
    database.clock.advance(HOUSEKEEPING_SECONDS)
    assert count(database, "SELECT count(*) FROM idempotency") == 0


# Faults of the disk


def fill_up(store: SqliteStore) -> None:
    """The disk has no room for another page of the database."""
    [pages] = store._write_db.execute("PRAGMA page_count").fetchone()
    store._write_db.execute(f"PRAGMA max_page_count = {pages}")


def make_room(store: SqliteStore) -> None:
    """The disk has room again."""
    store._write_db.execute("PRAGMA max_page_count = 1000000")


def test_a_full_disk_refuses_a_whole_batch_and_nothing_is_half_written(
    database: Database,
) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    sent = now_of(fill(store, ann, bob, 3))
    fill_up(store)
    batch = [
        draft(ann, each, "x" * 10_000, f"{number}{each}")
        for number in range(50)
        for each in (ann, bob)
    ]
    with pytest.raises(StoreUnavailable) as refusal:
        result_of(store.append(batch))
    assert refusal.value.retry_after > 0
    assert now_of(inbox(store, bob)) == sent
    assert now_of(inbox(store, ann)) == []
    make_room(store)
    outcomes = [appended(outcome) for outcome in result_of(store.append(batch))]
    assert [each.seq for each in outcomes if each.received_by == bob] == list(range(4, 54))
    assert [each.seq for each in outcomes if each.received_by == ann] == list(range(1, 51))


def test_reading_goes_on_while_the_disk_is_full(database: Database) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    sent = now_of(fill(store, ann, bob, 25))
    fill_up(store)
    with pytest.raises(StoreUnavailable):
        result_of(store.append([Draft(ann, bob, "x" * 16_000)] * 10))
    [page] = result_of(store.read([ReadPage(bob, 1, 10)]))
    assert page == InboxSlice(25, page_of(sent, 1, 10))
    assert result_of(store.check()) is None


class Breaking:
    """A connection that fails at the statements that the test names, as a broken disk would."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.fail: dict[str, Exception] = {}

    def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
        for beginning, problem in self.fail.items():
            if statement.startswith(beginning):
                raise problem
        return self._db.execute(statement, *arguments)

    def __getattr__(self, name: str) -> object:
        return getattr(self._db, name)


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


def test_a_commit_that_fails_leaves_nothing_behind(database: Database) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    breaking = Breaking(store._write_db)
    store._write_db = breaking  # type: ignore[assignment]
    breaking.fail = {"COMMIT": sqlite3.OperationalError("disk I/O error")}
    with pytest.raises(StoreUnavailable, match="cannot do this now"):
        result_of(store.append([draft(ann, bob, "x", "key")]))
    assert result_of(store.last_seqs([bob])) == {bob: 0}
    breaking.fail = {}
    [outcome] = result_of(store.append([draft(ann, bob, "x", "key")]))
    assert appended(outcome).seq == 1


def test_a_commit_that_fails_after_all_is_found_by_the_next_read(database: Database) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    now_of(inbox(store, bob))

    class Uncertain(Breaking):
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
    [outcome] = result_of(store.append([draft(ann, bob, "x", "key")]))
    assert outcome == Appended(found.messages[0], replayed=True)


def test_an_error_after_which_sqlite_has_rolled_back_itself_is_told_as_it_is(
    database: Database,
) -> None:
    store = database.open()
    ann, bob = now_of(people(store, "ann", "bob"))
    db = store._write_db

    class AtCommit(Breaking):
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


def test_a_fault_while_reading_is_told_and_leaves_no_transaction(database: Database) -> None:
    store = database.open()
    [ann] = now_of(people(store, "ann"))
    breaking = Breaking(store._read_db)
    store._read_db = breaking  # type: ignore[assignment]
    breaking.fail = {"SELECT last_seq": sqlite3.OperationalError("disk I/O error")}
    with pytest.raises(StoreUnavailable, match="cannot do this now"):
        result_of(store.read([ReadAfter(ann, 0, 10)]))
    breaking.fail = {"SELECT 1": sqlite3.OperationalError("disk I/O error")}
    with pytest.raises(StoreUnavailable, match="cannot do this now"):
        result_of(store.check())
    breaking.fail = {}
    assert result_of(store.read([ReadAfter(ann, 0, 10)])) == [InboxSlice(0, ())]


def test_a_fault_of_the_program_is_not_taken_for_the_disk(database: Database) -> None:
    store = database.open()
    [ann] = now_of(people(store, "ann"))
    with pytest.raises(OverflowError):
        result_of(store.append([Draft(ann, 2**70, "x")]))
    assert isinstance(result_of(store.append([Draft(ann, 4711, "x")]))[0], UserNotFound)


def test_a_damaged_schema_is_told_at_the_start(database: Database) -> None:
    result_of(database.open().close())
    database.opened.clear()
    database.sql("DROP TABLE history")
    assert "no such table: history" in database.refused()


# Power

WRITER = """
import os, sys
from chatd.model import Draft
from chatd.store.migrations import migrations
from chatd.store.sqlite import accounts as sqlite_accounts
from chatd.store.sqlite import chats as sqlite_chats
from chatd.store.sqlite.file import open_writer
from tests.contracts import draft

lock, db, epoch = open_writer(sys.argv[1], migrations("sqlite"))
start = int(sys.argv[2])
if start == 0:
    for name in ("ann", "bob", "cat"):
        sqlite_accounts.add_account(db, name, "a@example.org", "hash", 1)
number = start
while True:
    drafts = []
    for _ in range(1 + number % 40):
        number += 1
        drafts.append(draft(1, 1 + number % 3, f"{number}", f"key {number}"))
    for outcome in sqlite_chats.append(db, drafts, 1 + number):
        message = outcome.message
        os.write(1, b"%d %d %s\\n" % (message.received_by, message.seq, message.text.encode()))
"""


def test_what_was_acknowledged_survives_kill_9(database: Database) -> None:
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
            # At some moment of some commit.
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
            for message in now_of(inbox(store, user_id)):
                held[user_id, message.seq] = message.text
        assert held.items() >= acknowledged.items()
        assert len(set(held.values())) == len(held)
        # The keys came with their messages: a repeated send is recognised.
        (user_id, seq), text = max(acknowledged.items(), key=lambda item: int(item[1]))
        [outcome] = result_of(store.append([draft(1, user_id, text, f"key {text}")]))
        assert isinstance(outcome, Appended)
        assert (outcome.replayed, outcome.message.seq) == (True, seq)
        result_of(store.close())
    assert len(acknowledged) > 100


@ensureDeferred
async def test_the_threads_end_with_the_store(open_store: OpenStore) -> None:
    store = await open_store()
    await store.check()
    names = {thread.name for thread in threading.enumerate()}
    assert {"chatd-writer-0", "chatd-reader-0"} <= names
    await store.close()
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"chatd-writer-0", "chatd-reader-0"}


@ensureDeferred
async def test_tokens_are_stored_as_digests_only(open_store: OpenStore, tmp_path: Path) -> None:
    store = await open_store()
    [ann] = await people(store, "ann")
    await store.add_token(ann, digest("secret"))
    await store.close()
    content = (tmp_path / "chatd.db").read_bytes()
    assert digest("secret") in content


def test_a_disk_that_takes_no_writes_is_not_ready_until_it_does(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    for level in ("info", "error"):
        monkeypatch.setattr(
            f"chatd.store.sqlite.store._log.{level}",
            lambda text, **values: events.append(text.format(**values)),
        )
    store = database.open()
    [ann] = now_of(people(store, "ann"))
    result_of(store.check())
    breaking = Breaking(store._write_db)
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
    # Each said once, however many clients are told.
    assert events[1:] == ["the database can be written to again"]


def test_a_refused_file_gets_no_lock_beside_it(database: Database, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    Path(database.path).write_bytes(b"something else")
    database.refused()
    assert set(tmp_path.iterdir()) - before == {Path(database.path)}
