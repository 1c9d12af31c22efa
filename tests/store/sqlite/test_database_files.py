"""Database files that somebody removes, replaces or overwrites while they are in use."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from chatd.errors import StoreUnavailable
from chatd.model import Draft
from chatd.store.migrations import migrations
from chatd.store.sqlite.database_files import DatabaseFiles
from chatd.store.sqlite.maintenance import SqliteMaintenance
from chatd.store.sqlite.store import SqliteStore
from tests.conftest import LoggedFailures
from tests.contracts.helpers import add_accounts, read_inbox, send
from tests.doubles import result_of
from tests.store.sqlite.database import Database, run_now


def two_accounts(store: SqliteStore) -> tuple[int, int]:
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    return ann, bob


def refuse(store: SqliteStore, ids: tuple[int, int], text: str = "x") -> None:
    with pytest.raises(StoreUnavailable):
        result_of(store.append([Draft(*ids, text)]))


def replace(path: Path) -> None:
    shutil.copy(path, f"{path}.copy")
    os.rename(f"{path}.copy", path)


def overwrite(path: Path, content: bytes) -> None:
    """Write over a file as `cp` does, at another time of the file system than before."""
    before = path.stat().st_mtime_ns
    while path.stat().st_mtime_ns == before:
        path.write_bytes(content)


@pytest.mark.parametrize("change", [os.unlink, replace])
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", ".lock"])
def test_nothing_is_acknowledged_once_a_file_is_gone(
    database: Database,
    logged_failures: LoggedFailures,
    change: Callable[[Path], None],
    suffix: str,
) -> None:
    store = database.open()
    ids = two_accounts(store)
    kept = run_now(send(store, *ids, "kept"))
    path = Path(f"{database.path}{suffix}")
    os.link(path, f"{path}.original")
    change(path)
    refuse(store, ids)
    writes: tuple[Callable[[], Deferred[Any]], ...] = (
        lambda: store.add_account("cat", "c@x", "h"),
        lambda: store.block(*ids),
        store.check,
    )
    for write in writes:
        with pytest.raises(StoreUnavailable, match="was removed or replaced") as refusal:
            result_of(write())
        assert refusal.value.retry_after > 1
    # Reading does no harm.
    assert run_now(read_inbox(store, ids[1])) == [kept]
    os.rename(f"{path}.original", path)
    result_of(store.check())
    assert run_now(send(store, *ids, "more")).seq == 2
    logged_failures.flush_messages()


def test_a_file_that_goes_while_a_message_is_stored(
    database: Database, logged_failures: LoggedFailures, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = database.open()
    ids = two_accounts(store)
    append: Any = store._append

    def remove_meanwhile(*arguments: object) -> object:
        result = append(*arguments)
        os.unlink(database.path)
        return result

    monkeypatch.setattr(store, "_append", remove_meanwhile)
    refuse(store, ids)
    logged_failures.flush_messages()


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_file_that_is_written_over(
    database: Database, logged_failures: LoggedFailures, suffix: str
) -> None:
    """As by `cp yesterday.db chatd.db`, or `: >chatd.db-wal` to make room on the disk."""
    store = database.open()
    ids = two_accounts(store)
    kept = run_now(send(store, *ids, "kept"))
    maintenance = SqliteMaintenance(str(database.path), migrations("sqlite"))
    copy = database.path.parent / "copy.db"
    maintenance.backup(str(copy))
    run_now(send(store, *ids, "lost"))
    path = Path(f"{database.path}{suffix}")
    if suffix:
        os.truncate(path, 0)
    else:
        overwrite(path, copy.read_bytes())
    refuse(store, ids)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=f"{path.name} was overwritten"):
            result_of(store.check())
    database.opened.clear()
    result_of(store.close())
    # What is there now is of two databases.
    assert "was overwritten while it was in use" in database.refused()
    maintenance.restore(str(copy))
    assert run_now(read_inbox(database.open(), ids[1])) == [kept]
    logged_failures.flush_messages()


def test_checkpoints_of_this_and_of_other_processes_are_no_harm(database: Database) -> None:
    store = database.open()
    ids = two_accounts(store)
    maintenance = SqliteMaintenance(str(database.path), migrations("sqlite"))
    for number in range(3):
        for mode in ("PASSIVE", "TRUNCATE"):
            run_now(send(store, *ids, "x"))
            store._write_db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
            result_of(store.check())
            run_now(send(store, *ids, "x"))
            database.sql(f"PRAGMA wal_checkpoint({mode})")
            result_of(store.check())
        maintenance.backup(f"{database.path}.{number}")
        result_of(store.check())
    assert len(run_now(read_inbox(store, ids[1]))) == 12


class Files:
    """Files with the index of a log that SQLite has not written."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "chatd.db"
        self.log = folder / "chatd.db-wal"
        self._index = folder / "chatd.db-shm"
        self.overwritten = 0
        for path in (self.path, self.log, folder / "chatd.db.lock"):
            path.touch()
        self.index(frames=0, copied=0, being_copied=0)
        self.files = DatabaseFiles(str(self.path), self._on_overwritten)

    def _on_overwritten(self) -> None:
        self.overwritten += 1

    def index(self, frames: int, copied: int, being_copied: int) -> None:
        header = struct.pack("=14xHI12x8s56x", 4096, frames, b"saltsalt")
        with self._index.open("r+b" if self._index.exists() else "wb") as file:
            file.write(header + struct.pack("=I28xI", copied, being_copied))

    def write(self, at: int) -> None:
        os.utime(self.path, ns=(at, at))


@pytest.fixture
def files(tmp_path: Path) -> Any:
    files = Files(tmp_path)
    yield files
    files.files.close()


def test_a_checkpoint_of_another_process_may_be_under_way(files: Files) -> None:
    files.files.check()
    files.index(frames=9, copied=0, being_copied=9)
    for at in (7, 8):
        files.write(at)
        files.log.write_bytes(b"x" * (32 + 9 * 4120))
        files.files.check()
    files.index(frames=9, copied=9, being_copied=9)
    files.write(9)
    files.files.check()
    files.write(10)
    with pytest.raises(StoreUnavailable, match=r"chatd\.db was overwritten"):
        files.files.check()
    assert files.overwritten == 1


def test_a_log_may_not_be_shorter_than_its_index_says(files: Files) -> None:
    files.index(frames=2, copied=0, being_copied=0)
    files.log.write_bytes(b"x" * (32 + 3 * 4120))
    files.files.check()
    # Shorter than it was, but long enough.
    os.truncate(files.log, 32 + 2 * 4120)
    files.files.check()
    os.truncate(files.log, 32 + 2 * 4120 - 1)
    with pytest.raises(StoreUnavailable, match=r"chatd\.db-wal was overwritten"):
        files.files.check()
    assert files.overwritten == 1
