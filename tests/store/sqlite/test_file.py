"""Opening, refusing and copying the database file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from chatd.store.sqlite.backup import backup
from tests.contracts.helpers import (
    add_accounts,
    read_inbox,
    send,
    send_many,
)
from tests.doubles import result_of
from tests.store.sqlite.database import (
    Database,
    run_now,
)

ROOT = Path(__file__).resolve().parents[3]


def test_only_the_owner_can_read_the_database(database: Database) -> None:
    before = os.umask(0)
    try:
        store = database.open()
        run_now(add_accounts(store, "ann"))
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


def test_a_closed_database_is_one_file_besides_the_lock(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(send(store, ann, bob, "hello"))
    result_of(store.close())
    assert sorted(entry.name for entry in database.path.parent.iterdir()) == [
        "chatd.db",
        "chatd.db.lock",
    ]
    assert database.sql("SELECT text FROM message") == [("hello",)]


def test_a_symbolic_link_opens_its_target(database: Database) -> None:
    database.open()
    link = database.path.parent / "link.db"
    link.symlink_to(database.path)
    database.path = link
    assert "is open in another chatd" in database.refused()


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(
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
    # The kernel has released the lock, so the stale lock file does not matter.
    database.open()


def test_the_pid_is_unknown_if_the_lock_file_is_empty(database: Database) -> None:
    database.open()
    (database.path.parent / "chatd.db.lock").write_bytes(b"")
    assert database.refused().endswith("process ?")


def test_a_refused_second_store_does_not_affect_the_first(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    database.refused()
    database.refused()
    run_now(send(store, ann, bob, "hello"))
    database.refused()


def test_a_file_that_is_not_a_database_is_refused_and_not_changed(database: Database) -> None:
    content = b"Dear diary, " * 1000
    database.path.write_bytes(content)
    assert "was not made by chatd" in database.refused()
    assert database.path.read_bytes() == content


def test_no_lock_file_is_created_for_a_refused_file(database: Database, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    Path(database.path).write_bytes(b"something else")
    database.refused()
    assert set(tmp_path.iterdir()) - before == {Path(database.path)}


def test_a_database_of_another_program_is_refused_and_not_changed(database: Database) -> None:
    database.sql("CREATE TABLE diary (entry TEXT)")
    content = database.path.read_bytes()
    assert database.refused() == f"the database {database.path} was not made by chatd"
    assert database.path.read_bytes() == content


def test_a_database_with_another_application_id_is_refused(database: Database) -> None:
    database.sql("PRAGMA application_id = 4711")
    database.sql("PRAGMA user_version = 9")
    database.sql("CREATE TABLE diary (entry TEXT)")
    assert "was not made by chatd" in database.refused()


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    database = Database(tmp_path / "missing")
    line = database.refused()
    assert str(database.path) in line
    assert "No such file or directory" in line


def test_a_folder_in_place_of_the_file_is_reported(database: Database) -> None:
    database.path.mkdir()
    assert "not a file" in database.refused()


def test_a_read_only_folder_is_reported(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Simulated, because the tests may be run by root, for whom nothing is read-only.
    real = os.open

    def refuse(path: str, flags: int, *mode: int) -> int:
        if flags & os.O_CREAT and not Path(path).exists():
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    assert database.refused().endswith("Permission denied")
    os.close(real(f"{database.path}.lock", os.O_CREAT))
    assert database.refused().endswith("Permission denied")


def test_opening_can_be_retried_after_a_refusal(database: Database) -> None:
    database.path.write_bytes(b"nonsense" * 1000)
    database.refused()
    database.path.unlink()
    database.open()


def test_a_damaged_schema_is_reported_at_startup(database: Database) -> None:
    result_of(database.open().close())
    database.opened.clear()
    database.sql("DROP TABLE history")
    assert "no such table: history" in database.refused()


def test_a_backup_is_complete_and_gets_a_new_epoch(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    sent = run_now(send_many(store, ann, bob, 20))
    target = database.path.parent / "copy.db"
    (database.path.parent / "copy.db.part").write_bytes(b"of an attempt that was killed")
    backup(store._write_db, str(target))
    assert target.stat().st_mode & 0o777 == 0o600
    assert not (database.path.parent / "copy.db.part").exists()
    run_now(send(store, ann, bob, "after the copy"))
    epoch = store.epoch
    database.path = target
    copy = database.open()
    assert copy.epoch != epoch
    assert run_now(read_inbox(copy, bob)) == sent
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


def test_what_root_creates_belongs_to_the_owner_of_the_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    result_of(database.open().close())
    owner = database.path.stat()
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda *arguments: given.append(arguments))
    path = database.path.resolve()
    database.open()
    assert given == [(f"{path}.lock", owner.st_uid, owner.st_gid)]


def test_what_root_creates_first_belongs_to_the_owner_of_the_folder(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `chatd db upgrade` before the daemon's first start."""
    owner = database.path.parent.stat()
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda *arguments: given.append(arguments))
    path = database.path.resolve()
    database.open()
    expected = [
        (f"{path}.lock", owner.st_uid, owner.st_gid),
        (str(path), owner.st_uid, owner.st_gid),
    ]
    assert given == expected


def test_the_file_that_cannot_be_opened_is_named(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Path(f"{database.path.resolve()}.lock")
    lock.mkdir()
    assert database.refused().endswith(f"Is a directory: {lock}")
    lock.rmdir()
    result_of(database.open().close())
    database.opened.clear()
    log = Path(f"{database.path.resolve()}-wal")
    log.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path != str(log))
    assert database.refused().endswith(f": {log} belongs to another user")
