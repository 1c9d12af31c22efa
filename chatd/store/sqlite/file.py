"""Opening a SQLite database file: one daemon at a time, migrated, with its history's name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from typing import Final, TypeVar

from chatd.errors import StartError
from chatd.store.epoch import new_epoch
from chatd.store.migrations import Migration, pending
from chatd.store.statements import Statement, sqlite

T = TypeVar("T")

APPLICATION_ID: Final = 0x63686174  # "chat", in the file's header


class FileLock:
    """Keeps a second daemon from writing to the same database.

    The lock is on a file beside the database: closing any descriptor of the database file itself
    would drop the locks that SQLite holds on it. The kernel releases it however the process ends.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 20).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise BlockingIOError(holder or "?") from None
        except OSError:  # a file system without locks
            os.close(self._descriptor)
            raise
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, b"%d\n" % os.getpid())

    def release(self) -> None:
        """Let another daemon in."""
        os.close(self._descriptor)


def open_writer(path: str, known: list[Migration]) -> tuple[FileLock, sqlite3.Connection, str]:
    """Lock the database at `path`, create or migrate it, and return it with its epoch.

    Before an existing database is migrated a copy is made beside it. Fails with `StartError`:
    the folder is missing or not writable, another daemon has the database, it is not one of
    chatd's, or a newer chatd made it.
    """
    try:
        _refuse_other_files(path)
        lock = FileLock(path + ".lock")
    except BlockingIOError as held:
        raise StartError(f"the database {path} is open in another chatd, process {held}") from None
    except OSError as problem:
        raise StartError(f"cannot open the database {path}: {problem.strerror}") from None
    try:
        # The file holds password hashes: only its owner may read it, whatever the umask.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = _connect(path)
        try:
            _refuse_foreign(db, path)
            _tune(db)
            _migrate(db, path, known)
            return lock, db, _epoch(db)
        except BaseException:
            db.close()
            raise
    except OSError as problem:
        lock.release()
        raise StartError(f"cannot open the database {path}: {problem.strerror}") from None
    except sqlite3.Error as problem:
        lock.release()
        raise StartError(f"cannot open the database {path}: {problem}") from None
    except BaseException:
        lock.release()
        raise


def _refuse_other_files(path: str) -> None:
    # Before a lock file is left beside something that is no database.
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise StartError(f"cannot open the database {path}: not a file")
        with open(path, "rb") as file:
            if file.read(16) not in (b"", b"SQLite format 3\0"):
                raise StartError(f"the database {path} was not made by chatd")


def open_reader(path: str) -> sqlite3.Connection:
    """A second connection to a database that `open_writer` has opened; it cannot write."""
    db = _connect(path)
    _tune(db)
    db.execute("PRAGMA query_only = ON")
    return db


def backup(db: sqlite3.Connection, target: str) -> None:
    """Copy the whole database to `target`, also while it is being written to.

    The copy has no epoch: the daemon that opens it begins a new history, and cursors of the old
    one answer 410 instead of skipping what the copy lacks.
    """
    temporary = target + ".part"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
        db.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        copy.execute("UPDATE history SET epoch = NULL")
    os.rename(temporary, target)


def _connect(path: str) -> sqlite3.Connection:
    # Opened in the reactor's thread, then used by one worker thread only.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)


def _refuse_foreign(db: sqlite3.Connection, path: str) -> None:
    # Before anything is written: a database of another program is left as it is.
    foreign = _pragma(db, "application_id") != APPLICATION_ID
    if foreign and db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise StartError(f"the database {path} was not made by chatd")


def _tune(db: sqlite3.Connection) -> None:
    [mode] = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.OperationalError(f"its file system cannot keep a WAL (journal mode {mode})")
    db.execute("PRAGMA synchronous = FULL")
    # 32 MB: in a busy WAL the same pages come again and again, and each needs to be written back
    # only once. With SQLite's 4 MB that cost a sixth of the writer's time.
    db.execute("PRAGMA wal_autocheckpoint = 8000")
    db.execute("PRAGMA cache_size = -65536")
    db.execute("PRAGMA temp_store = MEMORY")


def _migrate(db: sqlite3.Connection, path: str, known: list[Migration]) -> None:
    version = _pragma(db, "user_version")
    missing = pending(known, version, f"the database {path}")
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
    return epoch


def _pragma(db: sqlite3.Connection, name: str) -> int:
    value: int = db.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _statements(sql: str) -> list[str]:
    """Split a script; `executescript` would commit the migration's transaction."""
    statements, statement = [], ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            statements.append(statement)
            statement = ""
    if statement.strip():  # the last one may lack its semicolon
        statements.append(statement)
    return statements


def ask(db: sqlite3.Connection, statement: Statement[T]) -> T:
    """Run a statement that is the same in both databases; all its rows are taken, so it is done."""
    rows = db.execute(sqlite(statement.sql), statement.parameters).fetchall()
    return statement.result(rows)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """`BEGIN IMMEDIATE` around a block of writes: all of it is committed, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite has rolled back by itself after some errors
            db.execute("ROLLBACK")
        raise
