"""Maintenance of a SQLite database: status, backup, restore, check, vacuum; see `Maintenance`."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from chatd.errors import StartError
from chatd.maintenance import DatabaseStatus, MaintenanceError
from chatd.runtime.partial_file import sync_folder
from chatd.store.consistency import SQLITE, SQLITE_COUNTS
from chatd.store.migrations import Migration, pending
from chatd.store.sqlite.backup import backup
from chatd.store.sqlite.file import check_application, give_to_owner, pragma
from chatd.store.sqlite.file_lock import FileLock, holder, noted
from chatd.store.sqlite.leftover_log import check_log, mark

BUSY_SECONDS: Final = 30.0


class SqliteMaintenance:
    """A `Maintenance` of the database file `path`, whose schema `known` leads to.

    If it `shrinks`, `vacuum` makes it one that can return free pages while it is used.
    """

    def __init__(self, path: str, known: list[Migration], *, shrinks: bool = False) -> None:
        self._shrinks = shrinks
        self._path = os.path.realpath(path)
        self._known = known

    def status(self) -> DatabaseStatus:
        """See `Maintenance`; only the schema is known if it is not the present one."""
        with self._open() as db:
            schema = pragma(db, "user_version")
            needed = self._known[-1].version
            counts = (None,) * 7
            if schema == needed:
                counts = db.execute(SQLITE_COUNTS).fetchone()
            page = pragma(db, "page_size")
            used_by = holder(self._path + ".lock")
            return DatabaseStatus(
                f"sqlite:{self._path}",
                schema,
                needed,
                None if used_by is None else f"process {used_by}",
                pragma(db, "page_count") * page,
                _size(self._path + "-wal"),
                pragma(db, "freelist_count") * page,
                *counts,
            )

    def backup(self, target: str) -> None:
        """See `Maintenance`."""
        if os.path.exists(target):
            raise MaintenanceError(f"{target} exists already")
        began = time.time_ns() // 1000
        with self._open() as db:
            with _errors(f"cannot write {target}"):
                backup(db, target, paced=True)
            if pragma(db, "user_version") == self._known[-1].version and self._is_writable():
                with _errors(f"the copy is made, but cannot be recorded in {self._path}"):
                    db.execute("PRAGMA query_only = OFF")
                    db.execute("UPDATE history SET backed_up_at = ?", (began,))

    def restore(self, source: str) -> str:
        """See `Maintenance`; the old database is kept in the same folder."""
        copy = SqliteMaintenance(source, self._known)
        with copy._open() as db:
            with _errors(f"cannot restore {source}"):
                pending(self._known, pragma(db, "user_version"), source)
            found = _integrity(db)
            if found:
                raise MaintenanceError(f"cannot restore {source}: {found[0]}")
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            aside = f"{self._path}.{stamp}.replaced"
            with self._locked() as lock, _errors(f"cannot restore {source}"):
                restored = self._path + ".restored"
                backup(db, restored)
                try:
                    give_to_owner(restored, self._path)
                    self._replace(restored, aside)
                    lock.note(mark(self._path))
                except BaseException:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(restored)
                    raise
        return aside

    def check(self) -> list[str]:
        """See `Maintenance`; from one snapshot."""
        with self._open() as db, _errors(f"cannot check {self._path}"):
            found = _integrity(db)
            if found:
                return found
            pending(self._known, pragma(db, "user_version"), self._path, upgrade=False)
            db.execute("BEGIN")
            return [text for statement in SQLITE for (text,) in db.execute(statement)]

    def vacuum(self, *, full: bool = False) -> None:
        """See `Maintenance`; refuses while a daemon uses the database, which would wait long."""
        with self._locked(), self._open() as db, _errors(f"cannot vacuum {self._path}"):
            db.execute("PRAGMA query_only = OFF")
            if self._shrinks:
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection that only reads."""
        if not os.path.isfile(self._path):
            raise MaintenanceError(f"there is no database {self._path}")
        if not _size(self._path) and not _size(self._path + "-wal"):
            raise MaintenanceError(f"{self._path} is empty")
        mode = "rw" if self._is_writable() else "ro"
        opening = f"cannot open the database {self._path}"
        with _errors(opening):
            self._check_files()
            db = sqlite3.connect(
                f"file:{quote(self._path)}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=BUSY_SECONDS,
            )
        folder = os.path.dirname(self._path)
        if not os.access(folder, os.W_OK):
            # Readers make an index of the log, too.
            opening += f", perhaps because {folder} cannot be written to"
        with contextlib.closing(db):
            with _errors(opening):
                check_application(db, self._path)
                db.execute("PRAGMA query_only = ON")
            yield db

    def _check_files(self) -> None:
        """Raise `MaintenanceError` if opening the database could do harm."""
        used_by = holder(self._path + ".lock")
        if used_by in (None, str(os.getpid())):
            check_log(self._path, noted(self._path + ".lock"))
        elif os.path.exists(self._path + "-wal") and not os.path.exists(self._path + "-shm"):
            # With an index of its own, this process would write over what the daemon writes.
            raise MaintenanceError(
                f"{self._path}-shm was removed while chatd, process {used_by}, uses the database:"
                " restart it first"
            )

    def _is_writable(self) -> bool:
        return os.access(self._path, os.W_OK)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[FileLock]:
        """Keep daemons from opening the database."""
        try:
            lock = FileLock(self._path + ".lock")
        except BlockingIOError as held:
            raise MaintenanceError(
                f"chatd, process {held}, uses {self._path}: stop it first"
            ) from None
        except OSError as error:
            raise MaintenanceError(f"cannot lock {self._path}: {error.strerror}") from None
        give_to_owner(self._path + ".lock", self._path)
        try:
            yield lock
        finally:
            lock.release()

    def _replace(self, restored: str, aside: str) -> None:
        """Put `restored` in the place of the database, which is kept as `aside`.

        At any moment there is a whole database of either kind under the name.
        """
        log = self._path + "-wal"
        with contextlib.suppress(FileNotFoundError):
            os.link(log, aside + "-wal")
        if os.path.exists(self._path):
            # A log that is left beside another database would damage it.
            with contextlib.suppress(sqlite3.Error, MaintenanceError), self._open() as old:
                old.execute("PRAGMA query_only = OFF")
                old.execute("PRAGMA journal_mode = DELETE").fetchall()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside + "-wal")
            os.link(self._path, aside)
        # There are any only if the old database is damaged or was moved away.
        for name in (log, self._path + "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        os.rename(restored, self._path)
        sync_folder(self._path)


def _integrity(db: sqlite3.Connection) -> list[str]:
    """What SQLite itself finds to be damaged."""
    found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(5)")]
    return [] if found == ["ok"] else [line for text in found for line in text.splitlines()]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turn errors of the block into `MaintenanceError`."""
    try:
        yield
    except StartError as error:
        raise MaintenanceError(str(error)) from None
    except OSError as error:
        raise MaintenanceError(f"{what}: {error.strerror}") from None
    except sqlite3.Error as error:
        raise MaintenanceError(f"{what}: {error}") from None
