"""Whether a write-ahead log belongs to the database beside it.

SQLite applies whatever log it finds there, also that of another file with the same name: to a copy
that was put in the place of a database whose daemon was killed. That would damage the copy. Beside
a missing or an empty database it deletes the log.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import Final
from urllib.parse import quote

from chatd.errors import StartError

OVERWRITTEN: Final = "overwritten"
"""What is noted in the lock file of a database that was overwritten while it was in use."""


def mark(path: str) -> str:
    """What is noted in the lock file of a database, by which `check_log` recognises the file."""
    return str(os.stat(path).st_ino)


def check_log(path: str, noted: str) -> None:
    """Raise `StartError` if the database must not be opened with the log that is beside it.

    `noted` is in its lock file, empty if there is none.
    """
    log = f"{path}-wal"
    if noted == OVERWRITTEN:
        raise StartError(
            f"the database {path} was overwritten while it was in use, so it may be damaged: put a"
            f" copy in its place by chatd db restore, or remove {path}.lock to use it as it is"
        )
    if not _size(log):
        return
    if not _size(path):
        raise StartError(
            f"the database {path} is missing or empty, but its write-ahead log {log} is there: put"
            " the database back, or move the log away to begin anew"
        )
    if noted and (noted != mark(path) or _is_copy(path)):
        raise StartError(
            f"the database {path} was replaced, but the write-ahead log of the former one is still"
            f" there: move {log} away; or if both were moved here together, remove {path}.lock"
        )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _is_copy(path: str) -> bool:
    """Whether the file without its log is a copy that no daemon has opened yet."""
    # Nothing is locked, and no log is looked for, in what is immutable.
    with contextlib.suppress(sqlite3.Error):
        address = f"file:{quote(path)}?immutable=1"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as db:
            return db.execute("SELECT epoch FROM history").fetchall() == [(None,)]
    return False
