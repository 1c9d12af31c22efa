"""Writing the log back in a thread of its own: when, and who waits for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from chatd.model import Draft
from chatd.store.sqlite import checkpoints
from chatd.store.sqlite.store import SqliteStore
from tests.conftest import LoggedFailures
from tests.doubles import SteppedExecutor, fired, result_of
from tests.store.sqlite.database import Database, count, step_until

PAGES = 40
TEXT = "x" * 16_000


class Stepped:
    """A store with an account, whose threads the test steps."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store: SqliteStore = database.open_stepped()
        self.writer = database.workers["writer"]
        self.checkpointer: SteppedExecutor = database.workers["checkpointer"]
        while self.writer.step():
            pass
        self.user = step_until(self.writer, self.store.add_account("ann", "a@b", "h")).id

    def send(self, messages: int = 1) -> None:
        """Four pages each, and some more."""
        drafts = [Draft(self.user, self.user, TEXT)] * messages
        step_until(self.writer, self.store.append(drafts))

    def pages(self) -> int:
        """Those of the log that are not in the database yet."""
        return self.store._files.log_pages()

    def close(self) -> None:
        closing_store = self.store.close()
        while not fired(closing_store):
            assert any(worker.step() for worker in self.database.workers.values())


@pytest.fixture
def stepped(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stepped]:
    monkeypatch.setattr(checkpoints, "PAGES", PAGES)
    stepped = Stepped(database)
    # What making the database has written.
    stepped.store._write_db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    stepped.send()
    yield stepped
    stepped.close()


def test_a_log_that_has_grown_is_written_back_while_others_write(stepped: Stepped) -> None:
    while not stepped.checkpointer.pending:
        assert stepped.pages() < PAGES
        stepped.send()
    assert PAGES <= stepped.pages() < 2 * PAGES
    stepped.send(20)
    assert stepped.checkpointer.pending == 1
    stepped.checkpointer.step()
    assert stepped.pages() == 0
    assert not stepped.checkpointer.pending
    stepped.send(20)
    # The log was used from its beginning again.
    assert 80 < stepped.pages() < 100
    assert stepped.checkpointer.step()


def test_while_somebody_reads_it_is_not_tried_after_every_commit(stepped: Stepped) -> None:
    with closing(sqlite3.connect(stepped.database.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM message").fetchall()
        stepped.send(20)
        assert stepped.checkpointer.step()
        left = stepped.pages()
        assert left > PAGES
        while not stepped.checkpointer.pending:
            assert stepped.pages() < left + PAGES
            stepped.send()
        assert stepped.pages() >= left + PAGES
    stepped.checkpointer.step()
    assert stepped.pages() == 0


def test_one_that_fails_is_tried_again_later(
    stepped: Stepped, logged_failures: LoggedFailures
) -> None:
    stepped.send(20)
    stepped.checkpointer.fail(sqlite3.ProgrammingError("closed"))
    assert len(logged_failures.flush(sqlite3.ProgrammingError)) == 1
    stepped.send()
    assert not stepped.checkpointer.pending
    stepped.send(20)
    stepped.checkpointer.step()
    assert stepped.pages() == 0


def test_deleting_waits_for_it_and_sends_do_not(stepped: Stepped) -> None:
    stepped.send(200)
    assert stepped.checkpointer.pending
    removal = stepped.store.remove_oldest(stepped.user, 150)
    while not removal.called:
        assert stepped.writer.step()
    stepped.send()
    assert not stepped.writer.pending
    counted = "SELECT count(*) FROM message"
    assert count(stepped.database, counted) == 202
    while stepped.checkpointer.step() or stepped.writer.step():
        pass
    assert count(stepped.database, counted) == 202 - stepped.store.removed[stepped.user] < 202
    assert result_of(removal) is not None


def test_the_end_waits_for_one_that_is_under_way(stepped: Stepped) -> None:
    stepped.send(20)
    ending = stepped.store.close()
    while stepped.writer.step() or stepped.database.workers["reader"].step():
        pass
    assert not fired(ending)
    assert stepped.checkpointer.step()
