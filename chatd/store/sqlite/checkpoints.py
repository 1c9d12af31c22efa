"""Writing the write-ahead log back to the database (a checkpoint), while others read and write.

SQLite does that in a commit, which then takes as long as the disk needs for all that the log has:
a second and more, while everybody's sends wait. In a thread and a connection of its own it is in
nobody's way, and a commit finds little left to be done. `synchronous=FULL` is kept: the database is
synchronised before the log is used from its beginning again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from chatd.errors import DomainError
from chatd.runtime.background import BackgroundWork

PAGES: Final = 2000
"""Pages of the log that are not in the database yet, at which a checkpoint begins."""

_log = Logger()


class Checkpoints:
    """Checkpoints of one database, one at a time.

    `run` has the thread run a function of its connection; `pages` is how many pages of the log are
    not in the database yet.
    """

    def __init__(
        self,
        run: Callable[[Callable[[sqlite3.Connection], bool]], Deferred[bool]],
        pages: Callable[[], int],
    ) -> None:
        self._run = run
        self._pages = pages
        self._due = PAGES
        self._background = BackgroundWork(self._checkpoint, _failed)

    def written(self) -> None:
        """The log may have grown."""
        pages = self._pages()
        if pages < PAGES:
            self._due = PAGES
        elif pages >= self._due:
            self._background.start()

    async def _checkpoint(self) -> None:
        is_complete = False
        try:
            is_complete = await self._run(_checkpoint)
        finally:
            # While somebody reads the database as it was some time ago, it gets no further, which
            # it need not find out after every commit.
            self._due = PAGES if is_complete else self._pages() + PAGES

    def stop(self) -> None:
        """Begin no more."""
        self._background.stop()

    async def wait_idle(self) -> None:
        """Return when none is under way."""
        await self._background.wait_idle()


def _checkpoint(db: sqlite3.Connection) -> bool:
    """Write back what can be; False if that is not all that there was when it began."""
    # PASSIVE waits for nobody, and nobody waits for it.
    [(busy, pages, written)] = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return not busy and written == pages


def _failed(error: Exception) -> None:
    # Otherwise the disk is full, for instance: a commit tries it, too.
    if not isinstance(error, DomainError):
        _log.failure("the log of the database could not be written back")
