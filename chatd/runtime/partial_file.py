"""Files that appear under their name once they are complete."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from typing import Final

SUFFIX: Final = ".part"
"""Of the name of a file that is not complete yet."""

_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)
"""What file systems answer that have no locks."""


@contextlib.contextmanager
def partial_file(target: str) -> Iterator[tuple[str, int]]:
    """Make an empty file, given as its path and a descriptor, that becomes `target` in the end.

    Only its owner may read it, whatever the umask. It is synced in the end, and removed if the
    block raises. Of what a killed process has left behind nothing remains. Raises
    `BlockingIOError` while another process makes the same file, and other `OSError`.
    """
    path = target + SUFFIX
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, path)
        try:
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
            yield path, descriptor
            os.fsync(descriptor)
            os.rename(path, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
    finally:
        os.close(descriptor)
    sync_folder(target)


def remove_abandoned(path: str) -> None:
    """Remove the partial file `path` unless a process is still writing it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        with contextlib.suppress(BlockingIOError):
            _lock(descriptor, path)
            os.unlink(path)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BlockingIOError(errno.EAGAIN, "another process is writing it", path) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    # Its former writer may have renamed it before it released the lock.
    try:
        is_same = os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        is_same = False
    if not is_same:
        raise BlockingIOError(errno.EAGAIN, "another process has just written it", path)


def sync_folder(path: str) -> None:
    """Make the name of a file durable."""
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
