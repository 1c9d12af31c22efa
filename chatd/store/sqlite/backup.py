"""Copying a SQLite database that is in use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import Final

from chatd.runtime.partial_file import partial_file
from chatd.store.sqlite.transactions import snapshot

STEP_PAGES: Final = 16
"""64 KB with pages of the usual size: a commit that meets a step waits for that."""
RESTS: Final = 3
"""How many times as long as a step took the pause after it is."""


def backup(db: sqlite3.Connection, target: str, *, paced: bool = False) -> None:
    """Copy the database to `target`, as it is when this is called; it may be in use.

    Writers go on meanwhile, only the write-ahead log grows until the copy is complete. `paced`
    pauses after each step, and writes it to the disk before, so that the commits of others wait for
    little; in the end it writes back what the log has gathered, which the next commit would do
    otherwise. If it fails, nothing is left behind. Raises `OSError` and `sqlite3.Error`.

    The copy has no epoch, so the daemon that opens it creates a new one. Cursors of the original
    are then answered with 410 instead of skipping messages that the copy lacks.
    """
    with partial_file(target) as (temporary, descriptor):
        _remove_side_files(temporary)
        try:
            _copy(db, temporary, descriptor, paced)
        finally:
            _remove_side_files(temporary)
    if paced:
        # Writers go on meanwhile.
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _remove_side_files(path: str) -> None:
    for suffix in ("wal", "shm", "journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}-{suffix}")


def _copy(db: sqlite3.Connection, temporary: str, descriptor: int, paced: bool) -> None:
    began = time.monotonic()

    def rest(*_: int) -> None:
        nonlocal began
        if paced:
            os.fdatasync(descriptor)
            time.sleep(RESTS * (time.monotonic() - began))
            began = time.monotonic()

    with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
        # It is synced and renamed when it is complete, so it needs no journal of its own.
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = 64"):
            copy.execute(f"PRAGMA {setting}")
        # Without it, every commit of another process would begin the copy anew.
        with snapshot(db):
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            db.backup(copy, pages=STEP_PAGES, progress=rest)
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("UPDATE history SET epoch = NULL")
