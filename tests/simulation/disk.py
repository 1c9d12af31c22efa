"""The database's folder: what a crash leaves of it, and copies to be put back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from tests.doubles import new_database
from tests.simulation.tape import Tape

_PAGE = 4096


class Files(NamedTuple):
    """The contents of the database and of its write-ahead log."""

    database: bytes
    log: bytes


class Disk:
    """Each start of a daemon has a folder of its own, so that a crashed one changes nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._starts = 0
        self._next = Files(new_database(), b"")

    def mount(self) -> Path:
        """The path of the database for a daemon that starts."""
        self._starts += 1
        folder = self._folder / str(self._starts)
        folder.mkdir()
        self.path = folder / "chatd.db"
        self.path.write_bytes(self._next.database)
        if self._next.log:
            self._log.write_bytes(self._next.log)
        return self.path

    @property
    def _log(self) -> Path:
        return self.path.with_name("chatd.db-wal")

    def read(self) -> Files:
        """What has been written."""
        log = self._log.read_bytes() if self._log.exists() else b""
        return Files(self.path.read_bytes(), log)

    def leave(self, files: Files) -> None:
        """What the next daemon will find."""
        self._next = files

    def remove(self) -> None:
        """Remove the folder of a daemon that has gone."""
        shutil.rmtree(self.path.parent)


def torn(before: Files, after: Files, tape: Tape) -> Files:
    """What a crash leaves of the writes between two states.

    The log is written in order, and cut at any byte of what is new. Only when it is complete is
    the database written, its pages in any order.
    """
    pairs = zip(before.log, after.log, strict=False)
    shortest = min(len(before.log), len(after.log))
    start = next((at for at, (old, new) in enumerate(pairs) if old != new), shortest)
    if len(after.log) < len(before.log):
        # It was begun again: what is behind the new part is still the old one.
        new = after.log + before.log[len(after.log) :]
    else:
        new = after.log
    if before.database == after.database:
        end = start + tape.below(len(new) - start + 1)
        return Files(before.database, new[:end] + before.log[end:])
    if len(after.log) < len(before.log):
        return after
    pages = []
    for at in range(0, len(after.database), _PAGE):
        old, written = before.database[at : at + _PAGE], after.database[at : at + _PAGE]
        pages.append(old if old != written and len(old) == _PAGE and tape.one_in(2) else written)
    return Files(b"".join(pages), after.log)
