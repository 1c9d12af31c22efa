"""Paths of UNIX sockets, which the kernel limits to about a hundred bytes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

MAX_PATH: Final = 100
"""Longer paths are shortened; Linux takes 107 bytes, others fewer."""


@contextlib.contextmanager
def short_path(path: str) -> Iterator[str]:
    """A path of the same file that may be bound and connected to, valid within the block.

    A long one is named by a descriptor of its folder, which works on Linux.
    """
    if len(os.fsencode(path)) <= MAX_PATH:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
