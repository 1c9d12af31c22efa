"""A write-ahead log that is beside another database than its own, or beside none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from chatd.maintenance import MaintenanceError
from chatd.store.migrations import migrations
from chatd.store.sqlite.maintenance import SqliteMaintenance
from tests.contracts.helpers import add_accounts, read_inbox, send
from tests.doubles import result_of
from tests.store.sqlite.database import Database, run_now

LOG = b"of the daemon that was killed"


def maintenance(path: Path) -> SqliteMaintenance:
    return SqliteMaintenance(str(path), migrations("sqlite"))


@pytest.fixture
def log(database: Database) -> Path:
    """The log that a daemon has left which was killed; beside the database is a copy of it."""
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(send(store, ann, bob, "kept"))
    maintenance(database.path).backup(f"{database.path}.copy")
    run_now(send(store, ann, bob, "lost"))
    result_of(store.close())
    database.opened.clear()
    log = Path(f"{database.path}-wal")
    log.write_bytes(LOG)
    return log


def texts(database: Database) -> list[str]:
    return [message.text for message in run_now(read_inbox(database.open(), 2))]


@pytest.mark.parametrize("empty", [False, True])
def test_a_log_without_its_database_is_kept(database: Database, log: Path, empty: bool) -> None:
    """SQLite would delete it, and with it the messages that are in there only."""
    os.rename(database.path, f"{database.path}.away")
    if empty:
        database.path.touch()
    line = database.refused()
    assert "is missing or empty" in line
    assert str(log) in line
    assert log.read_bytes() == LOG
    os.replace(f"{database.path}.away", database.path)
    assert texts(database) == ["kept", "lost"]


def test_the_log_of_a_database_that_was_replaced(database: Database, log: Path) -> None:
    shutil.copy(database.path, f"{database.path}.other")
    os.rename(f"{database.path}.other", database.path)
    assert f"move {log} away" in database.refused()
    with pytest.raises(MaintenanceError, match="was replaced"):
        maintenance(database.path).status()
    os.unlink(f"{database.path}.lock")
    assert texts(database) == ["kept", "lost"]


def test_the_log_of_a_database_that_a_copy_was_written_over(database: Database, log: Path) -> None:
    shutil.copyfile(f"{database.path}.copy", database.path)
    assert f"move {log} away" in database.refused()
    log.unlink()
    assert texts(database) == ["kept"]


@pytest.mark.parametrize("moved", [False, True])
def test_a_restore_keeps_the_log_aside(database: Database, log: Path, moved: bool) -> None:
    if moved:
        os.rename(database.path, f"{database.path}.away")
    else:
        shutil.copyfile(f"{database.path}.copy", database.path)
    aside = maintenance(database.path).restore(f"{database.path}.copy")
    assert Path(f"{aside}-wal").read_bytes() == LOG
    assert not log.exists()
    assert texts(database) == ["kept"]


def test_no_other_index_of_the_log_is_made_while_a_daemon_runs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process with an index of its own would write over what the daemon writes."""
    database.open()
    index = Path(f"{database.path}-shm")
    os.rename(index, f"{index}.away")
    monkeypatch.setattr("chatd.store.sqlite.maintenance.holder", lambda _: "4711")
    with pytest.raises(MaintenanceError, match="chatd, process 4711"):
        maintenance(database.path).status()
    assert not index.exists()
    os.rename(f"{index}.away", index)
    maintenance(database.path).status()
