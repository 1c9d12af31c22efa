"""Lock file that keeps two daemons from using one SQLite database."""

from __future__ import annotations

import fcntl
import os
from typing import Final

_MAX_BYTES: Final = 100


def holder(path: str) -> str | None:
    """The process that holds the lock on `path`; None if none does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)[0]
    finally:
        os.close(descriptor)
    return None


def noted(path: str) -> str:
    """What the last holder of the lock on `path` has noted; empty if there is nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return _read(descriptor)[1]
    finally:
        os.close(descriptor)


class FileLock:
    """An exclusive lock on `path`; raises `BlockingIOError` with the process id of the holder.

    The file must not be the database itself: closing any descriptor of that would release SQLite's
    own locks on it. The kernel releases the lock however the process ends. `noted` is what the last
    holder has noted; the file contains it after the process id.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held_by, _ = _read(self._descriptor)
            os.close(self._descriptor)
            raise BlockingIOError(held_by) from None
        except OSError:  # the file system has no locks
            os.close(self._descriptor)
            raise
        self.noted = _read(self._descriptor)[1]
        self.note(self.noted)

    def note(self, text: str) -> None:
        """Leave a word to the next holder of the lock."""
        self.noted = text
        content = f"{os.getpid()}\n{text}\n".encode()
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def _read(descriptor: int) -> tuple[str, str]:
    """The process id in a lock file, and what is noted after it."""
    text = os.pread(descriptor, _MAX_BYTES, 0).decode("ascii", "replace")
    held_by, _, note = text.partition("\n")
    return held_by.strip() or "?", note.strip()
