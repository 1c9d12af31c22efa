"""A database that cannot be written to, or whose file was removed or replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from chatd.errors import StoreUnavailable, UsernameTaken
from chatd.model import Draft
from chatd.store.sqlite.store import SqliteStore
from tests.conftest import LoggedFailures
from tests.contracts.helpers import add_accounts, read_inbox, send
from tests.doubles import result_of
from tests.store.sqlite.database import Database, fill_up, restore_space, run_now

LARGE = "x" * 12_000


def two_accounts(store: SqliteStore) -> tuple[int, int]:
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    return ann, bob


def refuse(store: SqliteStore, ids: tuple[int, int], text: str = "x") -> None:
    with pytest.raises(StoreUnavailable):
        result_of(store.append([Draft(*ids, text)]))


def replace(path: Path) -> None:
    shutil.copy(path, f"{path}.copy")
    os.rename(f"{path}.copy", path)


@pytest.mark.parametrize("change", [os.unlink, replace])
@pytest.mark.parametrize("suffix", ["", "-wal"])
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


def test_a_full_disk_is_reported_until_a_message_fits(
    database: Database, logged_failures: LoggedFailures
) -> None:
    store = database.open()
    ids = two_accounts(store)
    run_now(send(store, *ids, "fits"))
    result_of(store.check())
    fill_up(store)
    refuse(store, ids, LARGE)
    # What needs no further page succeeds.
    run_now(send(store, *ids, "fits"))
    result_of(store.record_seen({ids[0]: 7}, {}))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            result_of(store.check())
        refuse(store, ids, LARGE)
    restore_space(store)
    result_of(store.check())
    assert run_now(send(store, *ids, LARGE)).seq == 3
    assert database.sql("SELECT name FROM sqlite_schema WHERE name = 'probe'") == []
    logged_failures.flush_messages()


def test_a_probe_that_was_interrupted_leaves_no_harm(
    database: Database, logged_failures: LoggedFailures
) -> None:
    store = database.open()
    ids = two_accounts(store)
    store._write_db.execute("CREATE TABLE probe (filler BLOB)")
    fill_up(store)
    refuse(store, ids, LARGE)
    restore_space(store)
    result_of(store.check())
    assert database.sql("SELECT name FROM sqlite_schema WHERE name = 'probe'") == []
    logged_failures.flush_messages()


def test_refusals_say_nothing_about_the_database(database: Database) -> None:
    store = database.open()
    run_now(add_accounts(store, "ann"))
    with pytest.raises(UsernameTaken):
        result_of(store.add_account("ann", "a@x", "h"))
    assert not store._health.needs_probe
