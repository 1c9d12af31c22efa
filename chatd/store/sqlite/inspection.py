"""What opening a database would do to it, without doing it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from urllib.parse import quote

from chatd.errors import StartError
from chatd.store.migrations import migrations, pending
from chatd.store.sqlite.file import APPLICATION_ID
from chatd.store.sqlite.file_lock import holder, noted
from chatd.store.sqlite.leftover_log import check_log


def describe(path: str) -> str:
    """One line; raises `StartError` if the database could not be opened.

    The database may be in use.
    """
    where = f"the database {os.path.realpath(path)}"
    known = migrations("sqlite")
    folder = os.path.dirname(os.path.realpath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        reason = "is not writable" if os.path.isdir(folder) else "does not exist"
        raise StartError(f"cannot open {where}: the folder {folder} {reason}")
    path = os.path.realpath(path)
    lock = f"{path}.lock"
    if os.access(lock, os.R_OK) and holder(lock) is None:
        check_log(path, noted(lock))
    if not os.path.exists(path) or not os.path.getsize(path):
        return f"create {where} with schema version {known[-1].version}"
    if not os.access(path, os.R_OK | os.W_OK):
        raise StartError(f"cannot open {where}: it is not writable")
    try:
        address = f"file:{quote(path)}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as db:
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as problem:
        raise StartError(f"cannot open {where}: {problem}") from None
    if application != APPLICATION_ID:
        raise StartError(f"{where} was not made by chatd")
    if missing := pending(known, version, where):
        newest = missing[-1].version
        return f"copy {where}, then upgrade it from schema version {version} to {newest}"
    return f"use {where}, whose schema version is {version}"
