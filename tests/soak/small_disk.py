"""A file system of its own for a database, so that it can be full."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

SIZE_MIB: Final = 512
TRIES: Final = 20


class SmallDisk:
    """A `tmpfs` that is mounted on a folder; only root may do that."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mount(self) -> bool:
        """Mount it; False if that is not permitted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(self._folder))

    def fill(self) -> None:
        """There is no room any more."""
        for _ in range(TRIES):
            found = os.statvfs(self._folder)
            used = (found.f_blocks - found.f_bfree) * found.f_frsize
            # Fails if more has been written meanwhile.
            if self._resize(f"{used}"):
                return
        raise OSError(f"{self._folder} cannot be made smaller")

    def free(self) -> None:
        """There is room again."""
        if not self._resize(f"{SIZE_MIB}m"):
            raise OSError(f"{self._folder} cannot be made larger")

    def _resize(self, size: str) -> bool:
        return _run("mount", "-o", f"remount,size={size}", str(self._folder))

    def unmount(self) -> None:
        """Remove it and what is in it."""
        _run("umount", "--lazy", str(self._folder))


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
