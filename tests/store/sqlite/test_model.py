"""Model-based test of the SQLite store."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TypeVar

import pytest
from hypothesis import settings
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.interfaces import IStore
from chatd.store.sqlite import chats as sqlite_chats
from chatd.store.sqlite import store as sqlite_store
from chatd.store.sqlite.store import SqliteStore
from tests.doubles import InlineExecutor, Now, result_of, scratch
from tests.examples import examples
from tests.model_sync import SyncStoreMachine

T = TypeVar("T")


class SqliteMachine(SyncStoreMachine):
    """A new file for each example; calls finish synchronously."""

    def __init__(self) -> None:
        super().__init__()
        self.cleanup = ExitStack()
        self.folder = self.cleanup.enter_context(scratch())
        self.clock = Clock()
        self.now = Now(self.clock)
        # A low step, so that short conversations are partly in the index.
        patch = self.cleanup.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sqlite_chats, "INDEX_STEP", 3)
        # Times that differ by chance always do.
        patch.setattr(sqlite_store, "RANDOM_MICROSECONDS", 2**40)

    def open_store(self, *, known_only: bool = False) -> IStore:
        store = SqliteStore(
            str(self.folder / "chatd.db"),
            clock=self.clock,
            now=self.now,
            worker=lambda _: InlineExecutor(),
            known_only=known_only,
        )
        self.run(store.open())
        # Durability is not part of the model, and this is much faster.
        store._write_db.execute("PRAGMA synchronous = OFF")
        return store

    def run(self, deferred: Deferred[T]) -> T:
        return result_of(deferred)

    def copy_database(self) -> None:
        shutil.copy(self.folder / "chatd.db", self.folder / "copy.db")

    def put_back_database(self) -> None:
        shutil.copy(self.folder / "copy.db", self.folder / "chatd.db")

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(max(seconds, 0))
        self.now.offset += round(min(seconds, 0) * 1_000_000)

    def discard(self) -> None:
        self.cleanup.close()
        assert not self.clock.getDelayedCalls()


TestSqliteModel = SqliteMachine.TestCase
TestSqliteModel.settings = settings(max_examples=examples(12, deep=50), stateful_step_count=40)
