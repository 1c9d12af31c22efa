"""Opening and migrating the SQLite database file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from typing import Final

from chatd.errors import DatabaseInUse, StartError
from chatd.store.epoch import new_epoch
from chatd.store.migrations import UPGRADE, Migration, pending
from chatd.store.sqlite.backup import backup
from chatd.store.sqlite.file_lock import FileLock
from chatd.store.sqlite.leftover_log import check_log, mark
from chatd.store.sqlite.transactions import transaction

APPLICATION_ID: Final = 0x63686174  # "chat", in the file's header


def open_writer(
    path: str, known: list[Migration], *, upgrade: bool = True, shrinks: bool = False
) -> tuple[FileLock, sqlite3.Connection, str]:
    """Lock the database at `path`, create or migrate it, and return it with its epoch.

    An existing database is copied to the same folder before it is migrated. Raises `StartError` if
    the folder is missing or not writable, if the database is in use (`DatabaseInUse`), if it was
    made by another program or a newer chatd, or if it is missing or old and `upgrade` is False.
    A new database that `shrinks` can give its free pages back to the disk.
    """
    try:
        _check_file(path)
        if not upgrade and not os.path.exists(path):
            raise StartError(f"there is no database {path}: {UPGRADE}")
        lock = FileLock(path + ".lock")
        give_to_owner(path + ".lock", path)
    except BlockingIOError as held:
        raise DatabaseInUse(
            f"the database {path} is open in another chatd, process {held}"
        ) from None
    except OSError as problem:
        raise cannot_open(path, problem) from None
    try:
        check_log(path, lock.noted)
        is_new = not os.path.exists(path)
        # The file has password hashes, so only its owner may read it, whatever the umask.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if is_new:
            give_to_owner(path, os.path.dirname(path))
        lock.note(mark(path))
        db = _connect(path)
        try:
            check_application(db, path)
            if shrinks and not pragma(db, "page_count"):
                # Has no effect once there is a page.
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _tune(db)
            _migrate(db, path, known, upgrade)
            return lock, db, _epoch(db)
        except BaseException:
            db.close()
            raise
    except OSError as problem:
        lock.release()
        raise cannot_open(path, problem) from None
    except sqlite3.Error as problem:
        lock.release()
        raise StartError(f"cannot open the database {path}: {problem}{_hint(path)}") from None
    except BaseException:
        lock.release()
        raise


def cannot_open(path: str, problem: OSError) -> StartError:
    """The error for a database that the system does not let chatd open."""
    reason = problem.strerror
    if problem.filename not in (None, path):
        reason = f"{reason}: {problem.filename}"
    return StartError(f"cannot open the database {path}: {reason}")


def _hint(path: str) -> str:
    """Which file of a database SQLite may not open, which it does not say; empty if none."""
    for name in (f"{path}-wal", f"{path}-shm"):
        if os.path.exists(name) and not os.access(name, os.R_OK | os.W_OK):
            return f": {name} belongs to another user"
    return ""


def give_to_owner(created: str, path: str) -> None:
    """Give what root has created to the owner of the database, who could not open it otherwise.

    While there is no database, that is the owner of its folder.
    """
    if os.geteuid() == 0:
        try:
            owner = os.stat(path)
        except FileNotFoundError:
            owner = os.stat(os.path.dirname(path))
        os.chown(created, owner.st_uid, owner.st_gid)


def _check_file(path: str) -> None:
    # Checked before the lock file is made, which is only for databases of chatd.
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise StartError(f"cannot open the database {path}: not a file")
        with open(path, "rb") as file:
            if file.read(16) not in (b"", b"SQLite format 3\0"):
                raise StartError(f"the database {path} was not made by chatd")


def open_reader(path: str) -> sqlite3.Connection:
    """Open a read-only connection to a database that `open_writer` has opened."""
    db = _connect(path)
    _tune(db)
    db.execute("PRAGMA query_only = ON")
    return db


def _connect(path: str) -> sqlite3.Connection:
    # It is opened in the reactor's thread and then used by one other thread only.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)


def check_application(db: sqlite3.Connection, path: str) -> None:
    """Raise `StartError` unless the database is chatd's, or empty."""
    # Checked before any write: another program's database must not be changed.
    foreign = pragma(db, "application_id") != APPLICATION_ID
    if foreign and db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise StartError(f"the database {path} was not made by chatd")


def _tune(db: sqlite3.Connection) -> None:
    [mode] = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError(
            f"WAL is not supported by the file system (journal mode {mode})"
        )
    db.execute("PRAGMA synchronous = FULL")
    # `Checkpoints` writes the log back. From 32 MB on, commits try it as well: they find little
    # left, and as nobody writes meanwhile, the next one can use the log from its beginning.
    db.execute("PRAGMA wal_autocheckpoint = 8000")
    db.execute("PRAGMA cache_size = -65536")
    db.execute("PRAGMA temp_store = MEMORY")
    # What is deleted is overwritten with zeros. Always, because pages that are split leave copies
    # behind. Some distributions compile SQLite with this as the default, others do not.
    db.execute("PRAGMA secure_delete = ON")


def _migrate(db: sqlite3.Connection, path: str, known: list[Migration], upgrade: bool) -> None:
    version = pragma(db, "user_version")
    missing = pending(known, version, f"the database {path}", upgrade=upgrade)
    if version and missing:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        backup(db, f"{path}.v{version}.{stamp}.backup")
    for migration in missing:
        with transaction(db):
            for statement in _statements(migration.sql):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {migration.version}")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _epoch(db: sqlite3.Connection) -> str:
    epoch: str | None
    (epoch,) = db.execute("SELECT epoch FROM history").fetchone()
    if epoch is None:
        epoch = new_epoch()
        db.execute("UPDATE history SET epoch = ?", (epoch,))
        # Now the file itself has it: a log beside a file without one is another's, see `check_log`.
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return epoch


def pragma(db: sqlite3.Connection, name: str) -> int:
    """The value of a pragma that is a number."""
    value: int = db.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _statements(sql: str) -> list[str]:
    """Split a script into statements; `executescript` would commit the transaction."""
    statements, statement = [], ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            statements.append(statement)
            statement = ""
    if statement.strip():  # the last one may have no semicolon
        statements.append(statement)
    return statements
