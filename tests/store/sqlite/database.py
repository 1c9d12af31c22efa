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
    """A database file, with stores whose threads and clock the test controls."""

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
        """Make a store that is not open."""
        return SqliteStore(
            str(self.path), clock=self.clock, now=self.now, worker=worker, known=known
        )

    def open(self, known: list[Migration] | None = None) -> SqliteStore:
        """Open a store whose calls finish synchronously."""
        store = self.store(known)
        result_of(store.open())
        self.opened.append(store)
        return store

    def open_stepped(self) -> SqliteStore:
        """Open a store whose threads the test steps with `workers`."""

        def worker(name: str) -> SteppedExecutor:
            self.workers[name] = SteppedExecutor()
            return self.workers[name]

        store = self.store(worker=worker)
        result_of(store.open())
        return store

    def refused(self, known: list[Migration] | None = None) -> str:
        """Fail to open a store and return the error, which must be one line."""
        timers = self.clock.getDelayedCalls()
        with pytest.raises(StartError) as refusal:
            result_of(self.store(known).open())
        line = str(refusal.value)
        assert "\n" not in line
        assert self.clock.getDelayedCalls() == timers
        return line

    def sql(self, statement: str, *arguments: object) -> list[tuple[object, ...]]:
        """Run a statement on a separate connection."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            return db.execute(statement, arguments).fetchall()


def run_now(work: Coroutine[Deferred[Any], Any, T]) -> T:
    """Run a coroutine that finishes synchronously and return its result."""
    return result_of(Deferred.fromCoroutine(work))


def step_until(worker: SteppedExecutor, deferred: Deferred[T]) -> T:
    """Step the worker until the Deferred fires and return its result."""
    while not deferred.called:
        assert worker.step()
    return result_of(deferred)


def message_count(database: Database) -> int:
    return count(database, "SELECT count(*) FROM message")


def count(database: Database, statement: str) -> int:
    [(value,)] = database.sql(statement)
    assert isinstance(value, int)
    return value


def fill_up(store: SqliteStore) -> None:
    """Let the database have no space for another page."""
    [pages] = store._write_db.execute("PRAGMA page_count").fetchone()
    store._write_db.execute(f"PRAGMA max_page_count = {pages}")


def restore_space(store: SqliteStore) -> None:
    """Let the database grow again."""
    store._write_db.execute("PRAGMA max_page_count = 1000000")


class FailingConnection:
    """A connection wrapper whose `fail` maps the beginnings of statements to their errors."""

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
