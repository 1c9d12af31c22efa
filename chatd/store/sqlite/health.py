"""Whether a SQLite database can be written to."""

from __future__ import annotations

import sqlite3
from typing import Final

from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.errors import StoreUnavailable
from chatd.store.sqlite.transactions import transaction

PROBE_BYTES: Final = 128 * 1024
"""More than a message: a nearly full disk still takes small writes."""

DAMAGED: Final = "the database is damaged: see chatd db check, and restore a copy"
DAMAGED_RETRY_AFTER: Final = 60

_log = Logger()


class WriteHealth:
    """What the last writes say about the database; logs when that changes."""

    def __init__(self) -> None:
        self._fails = False
        self.needs_probe = False
        """Whether only `probe` proves that it can be written to: a write has failed since."""
        self.is_damaged = False
        """Whether a page was found that cannot be read, at any time since the start."""

    def on_written(self) -> None:
        """A write has succeeded, perhaps a small one."""
        if self._fails:
            self._fails = False
            _log.info("the database can be written to again")

    def on_failed(self, failure: Failure) -> None:
        """A write has failed, perhaps because of what was asked."""
        if not failure.check(StoreUnavailable):
            return
        self.needs_probe = True
        self.on_read_failed(failure)
        if not self._fails:
            self._fails = True
            why = getattr(failure.value, "__cause__", None) or failure.value
            _log.error("the database cannot be written to: {why}", why=why)

    def on_read_failed(self, failure: Failure) -> None:
        """A read has failed."""
        cause = getattr(failure.value, "__cause__", None)
        if not self.is_damaged and isinstance(cause, sqlite3.Error) and is_damage(cause):
            self.is_damaged = True
            _log.error("{text} ({why})", text=DAMAGED, why=cause)


def is_damage(problem: sqlite3.Error) -> bool:
    """Whether SQLite could make no sense of what it has read."""
    code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def probe(db: sqlite3.Connection) -> None:
    """Write as much as a large message takes, and remove it."""
    with transaction(db):
        # A process that was killed in between has left it behind.
        db.execute("DROP TABLE IF EXISTS probe")
        db.execute("CREATE TABLE probe (filler BLOB)")
        db.execute("INSERT INTO probe VALUES (zeroblob(?))", (PROBE_BYTES,))
    with transaction(db):
        db.execute("DROP TABLE probe")
