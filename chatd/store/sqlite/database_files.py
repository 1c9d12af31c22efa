"""Whether the files of a SQLite database are still those that were opened, and nobody else's."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from chatd.errors import StoreUnavailable

RETRY_AFTER: Final = 30

# https://www.sqlite.org/walformat.html#the_wal_index_file_format
_INDEX: Final = struct.Struct("=14xHI12x8s56xI28xI")
_LOG_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24


class _Log(NamedTuple):
    """What the index of the write-ahead log says: `checkpoint` differs after each checkpoint that
    has written to the database, `size` is the least that the log has, in bytes.
    """

    checkpoint: tuple[bytes, int]
    is_being_checkpointed: bool
    size: int


class DatabaseFiles:
    """The files of the database at `path`, which must be open when this is created.

    Once one of them was removed, replaced or overwritten, what is written is lost when the daemon
    is restarted: the file is another one then; without the lock file a second daemon can start;
    without the index of the log other processes write to the log as well. `on_overwritten` is
    called when the database or the log was overwritten: they may not fit together any more.
    """

    def __init__(self, path: str, on_overwritten: Callable[[], object]) -> None:
        self._path = path
        self._log_path = f"{path}-wal"
        self._on_overwritten = on_overwritten
        others = (f"{path}-shm", f"{path}.lock")
        self._opened = [(each, _identity(each)) for each in (path, self._log_path, *others)]
        # It must not be closed before the database is: SQLite would lose its locks on it.
        self._index = os.open(f"{path}-shm", os.O_RDONLY | os.O_CLOEXEC)
        self._problem: str | None = None
        self._checkpoint: tuple[bytes, int] | None = None
        # When the database was last written to, and the size that its log had, as last seen.
        self._written_at = 0
        self._log_size = 0

    def close(self) -> None:
        """To be called when the database is closed."""
        os.close(self._index)

    def check(self) -> None:
        """Raise `StoreUnavailable` if something was done to a file; blocks for microseconds."""
        if self._problem is not None:
            raise StoreUnavailable(self._problem, RETRY_AFTER)
        found = [_stat(path) for path, _ in self._opened]
        for (path, identity), stat in zip(self._opened, found, strict=True):
            if _identity_of(stat) != identity:
                raise StoreUnavailable(
                    f"{os.path.basename(path)} was removed or replaced while it was in use: put it"
                    " back, or restart chatd on what is there now",
                    RETRY_AFTER,
                )
        database, log = found[:2]
        assert database is not None
        assert log is not None
        if database.st_mtime_ns != self._written_at:
            self._check_written()
        if log.st_size < self._log_size:
            self._check_log_size()
        self._log_size = log.st_size

    def log_pages(self) -> int:
        """How many pages of the log are not in the database yet; blocks for a microsecond."""
        _, frames, _, copied, _ = _INDEX.unpack(os.pread(self._index, _INDEX.size, 0))
        return int(frames - copied)

    def _check_written(self) -> None:
        """The database was written to, which only a checkpoint does."""
        before = self._read_index()
        if before.is_being_checkpointed:
            return
        written_at = os.stat(self._path).st_mtime_ns
        if written_at == self._written_at:
            return
        if before.checkpoint != self._checkpoint:
            self._checkpoint = before.checkpoint
            self._written_at = written_at
        elif self._read_index().checkpoint == before.checkpoint:
            self._refuse(self._path)

    def _check_log_size(self) -> None:
        """The log is shorter than it was, because a checkpoint has emptied it."""
        # That another process wrote meanwhile is not seen twice.
        for _ in range(2):
            needed = self._read_index().size
            if os.stat(self._log_path).st_size >= needed:
                return
        self._refuse(self._log_path)

    def _refuse(self, path: str) -> None:
        self._problem = (
            f"{os.path.basename(path)} was overwritten while it was in use: stop chatd, then put a"
            " copy of the database in its place by chatd db restore"
        )
        self._on_overwritten()
        raise StoreUnavailable(self._problem, RETRY_AFTER)

    def _read_index(self) -> _Log:
        index = os.pread(self._index, _INDEX.size, 0)
        page_size, frames, salt, copied, being_copied = _INDEX.unpack(index)
        # 1 stands for 65536, which does not fit.
        frame = _FRAME_HEADER_BYTES + (65536 if page_size == 1 else page_size)
        size = _LOG_HEADER_BYTES + frames * frame if frames else 0
        return _Log((salt, copied), copied != being_copied, size)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _identity_of(stat: os.stat_result | None) -> tuple[int, int] | None:
    return None if stat is None else (stat.st_dev, stat.st_ino)


def _identity(path: str) -> tuple[int, int] | None:
    return _identity_of(_stat(path))
