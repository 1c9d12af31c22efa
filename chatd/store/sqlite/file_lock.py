"""Lock file that keeps two daemons from using one SQLite database."""

from __future__ import annotations

import fcntl
import os


def holder(path: str) -> str | None:
    """The process that holds the lock on `path`; None if none does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(descriptor, 20).decode("ascii", "replace").strip() or "?"
    finally:
        os.close(descriptor)
    return None


class FileLock:
    """An exclusive lock on `path`; raises `BlockingIOError` with the process id of the holder.

    The file must not be the database itself: closing any descriptor of that would release SQLite's
    own locks on it. The kernel releases the lock however the process ends.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 20).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise BlockingIOError(holder or "?") from None
        except OSError:  # the file system has no locks
            os.close(self._descriptor)
            raise
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, b"%d\n" % os.getpid())

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)
