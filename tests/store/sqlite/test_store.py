"""The SQLite store: the contract, its threads and how it is closed."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

from chatd.model import EncodedRows, EncodedTokens
from chatd.runtime.thread_pool import ThreadPool
from chatd.store.sqlite.store import SqliteStore
from tests.contracts.helpers import (
    CopyDatabase,
    OpenStore,
    add_accounts,
    digest,
)
from tests.contracts.store import StoreContract
from tests.doubles import InlineExecutor, result_of
from tests.store.sqlite.database import (
    Database,
    step_until,
)


@async_yield_fixture
async def open_store(tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Open stores like that of the daemon, with real threads, reactor and time."""
    from twisted.internet import reactor

    opened: list[SqliteStore] = []

    async def open_one(**options: Any) -> SqliteStore:
        store = SqliteStore(
            str(tmp_path / "chatd.db"),
            clock=IReactorTime(reactor),
            now=lambda: time.time_ns() // 1000,
            worker=lambda name: ThreadPool(name, 1, IReactorFromThreads(reactor).callFromThread),
            **options,
        )
        await store.open()
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
def copy_database(tmp_path: Path) -> CopyDatabase:
    path, copy = tmp_path / "chatd.db", tmp_path / "copy.db"

    async def copy_file() -> Callable[[], Awaitable[None]]:
        shutil.copy(path, copy)

        async def put_back() -> None:
            shutil.copy(copy, path)

        return put_back

    return copy_file


class TestSqliteStore(StoreContract):
    """The contract."""


def test_a_store_can_be_closed_twice_and_before_it_was_opened(database: Database) -> None:
    store = database.store()
    result_of(store.close())
    result_of(store.open())
    result_of(store.close())
    result_of(store.close())


def test_the_location_is_the_resolved_path(
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


def test_the_writer_is_closed_after_the_reader(database: Database) -> None:
    store = database.open_stepped()
    writer, reader = database.workers["writer"], database.workers["reader"]
    while writer.step():
        pass
    step_until(writer, store.add_account("ann", "a@x", "h"))
    closed = store.close()
    assert (reader.pending, writer.pending) == (1, 0)
    assert reader.step()
    assert (reader.pending, writer.pending) == (0, 1)
    assert writer.step()
    result_of(closed)
    assert sorted(path.name for path in database.path.parent.iterdir()) == [
        "chatd.db",
        "chatd.db.lock",
    ]


def test_reads_do_not_wait_for_long_lists(database: Database) -> None:
    store = database.open_stepped()
    reader, lister = database.workers["reader"], database.workers["lists"]
    lists: list[Deferred[Any]] = [store.blocks(1), store.encoded_tokens(1, None)]
    assert step_until(reader, store.account(1)) is None
    assert [each.called for each in lists] == [False, False]
    assert step_until(lister, lists[0]) == EncodedRows(0, "[]")
    assert step_until(lister, lists[1]) == EncodedTokens(0, "[]", [], [])
    closed = store.close()
    while reader.step() or database.workers["writer"].step():
        pass
    result_of(closed)


@ensureDeferred
async def test_the_threads_end_when_the_store_is_closed(open_store: OpenStore) -> None:
    store = await open_store()
    await store.check()
    names = {thread.name for thread in threading.enumerate()}
    assert {"chatd-writer-0", "chatd-reader-0"} <= names
    await store.close()
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"chatd-writer-0", "chatd-reader-0"}


@ensureDeferred
async def test_only_digests_of_tokens_are_stored(open_store: OpenStore, tmp_path: Path) -> None:
    store = await open_store()
    [ann] = await add_accounts(store, "ann")
    await store.add_token(ann, digest("secret"))
    await store.close()
    content = (tmp_path / "chatd.db").read_bytes()
    assert digest("secret") in content
