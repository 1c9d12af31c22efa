"""A SQLite database file for tests, with stores whose threads and time the test controls."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.errors import StartError
from chatd.store.migrations import Migration
from chatd.store.sqlite.store import SqliteStore
from tests.doubles import InlineExecutor, Now, SteppedExecutor, result_of

T = TypeVar("T")


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


def now_of(work: Coroutine[Deferred[Any], Any, T]) -> T:
    """The result of an `async def` that ends at once."""
    return result_of(Deferred.fromCoroutine(work))


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


def fill_up(store: SqliteStore) -> None:
    """The disk has no room for another page of the database."""
    [pages] = store._write_db.execute("PRAGMA page_count").fetchone()
    store._write_db.execute(f"PRAGMA max_page_count = {pages}")


def make_room(store: SqliteStore) -> None:
    """The disk has room again."""
    store._write_db.execute("PRAGMA max_page_count = 1000000")


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
