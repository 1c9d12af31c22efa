"""Background deletion of what SQLite need not keep: keys, tokens, old texts, deleted accounts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.runtime.background import BackgroundWork
from chatd.runtime.clock_jumps import ClockJumps
from chatd.store.sqlite import accounts
from chatd.store.sqlite.transactions import execute
from chatd.store.statements import Statement, delete_old_keys
from chatd.store.token_statements import delete_expired

HOUSEKEEPING_SECONDS: Final = 60.0
RETENTION_SECONDS: Final = 600.0
"""How often old messages are looked for."""
DELETE_STEP: Final = 200
"""Keys or tokens deleted per transaction. Keys are random: each is in a page of its own of the
table, which is overwritten (`secure_delete`), so that 200 take about 5 ms. With the pauses, some
7,000 keys a second are deleted while 5,000 a second come, and 10,000 while none do."""

_log = Logger()


class Housekeeping:
    """Deletes in small transactions, with other writes in between.

    `write(call, *args)` runs `call(connection, *args)` in the writer thread, and `write_paced` does
    so when others have had most of the time; `now` returns microseconds since the Unix epoch. What
    is older than `keep` microseconds, which may be changed, is removed by `remove_old`, see
    `Retention.run`; rows of what was removed are also deleted if that is None.
    """

    def __init__(
        self,
        write: Callable[..., Deferred[Any]],
        write_paced: Callable[..., Coroutine[Deferred[Any], Any, Any]],
        *,
        clock: IReactorTime,
        now: Callable[[], int],
        keep: int | None = None,
        remove_old: Callable[[int | None], Coroutine[Deferred[Any], Any, int]] | None = None,
    ) -> None:
        self._write = write
        self._write_paced = write_paced
        self._now = now
        self._is_running = False
        self._purging = BackgroundWork(self._purge, lambda _: _log_failure())
        self._deleting_keys = self._deletion_by(delete_old_keys)
        self._deleting_tokens = self._deletion_by(delete_expired)
        self._background = (self._purging, self._deleting_keys, self._deleting_tokens)
        self._has_old_texts = False
        self._timer = LoopingCall(self._work)
        self._timer.clock = clock
        self.keep = keep
        self.backed_up_at: int | None = None
        """What the database says of backups, as of the last minute."""
        self._remove_old = remove_old
        self._clock_jumps = ClockJumps(clock.seconds)
        self._removals = LoopingCall(self._remove)
        self._removals.clock = clock

    def start(self) -> None:
        """Purge what an earlier process left behind, then work periodically."""
        self._is_running = True
        self._clock_jumps.doubts(self._now())
        self._timer.start(HOUSEKEEPING_SECONDS, now=False)
        self._removals.start(RETENTION_SECONDS, now=False)
        self.purge()

    def stop(self) -> None:
        """Begin no more transactions."""
        self._is_running = False
        for work in self._background:
            work.stop()
        self._timer.stop()
        self._removals.stop()

    async def wait_idle(self) -> None:
        """Return when nothing is being deleted."""
        for work in self._background:
            await work.wait_idle()

    def purge(self) -> None:
        """Delete the data of deleted accounts, one transaction after the other, however many were
        deleted: those of others would wait behind one of each."""
        if self._is_running:
            self._purging.start()

    async def _purge(self) -> None:
        while not self._purging.is_stopped and await self._write_paced(accounts.purge):
            pass

    def text_removed(self) -> None:
        """Have the write-ahead log emptied, which still contains the text of a revised message."""
        self._has_old_texts = True

    def _remove(self) -> Deferred[None] | None:
        """Remove what is too old; the next time is after that."""
        now = self._now()
        if self._clock_jumps.doubts(now) or self._remove_old is None:
            return None
        before = None if self.keep is None else now - self.keep
        removing = Deferred.fromCoroutine(self._remove_old(before))
        return removing.addCallbacks(lambda _: None, _log_failure)

    def _work(self) -> None:
        if self._has_old_texts:
            self._has_old_texts = False
            self._write(_empty_wal).addCallbacks(self._emptied_wal, _log_failure)
        self.purge()
        self._write(backed_up_at).addCallbacks(self._backed_up, _log_failure)
        if not self._clock_jumps.doubts(self._now()):
            self._deleting_keys.start()
        self._deleting_tokens.start()

    def _backed_up(self, at: int | None) -> None:
        self.backed_up_at = at

    def _emptied_wal(self, emptied: bool) -> None:
        if not emptied:
            self._has_old_texts = True

    def _deletion_by(self, statement: Callable[[int, int], Statement[bool]]) -> BackgroundWork:
        """Runs a deletion until nothing is left that was to be deleted when it began."""

        async def delete() -> None:
            # What the clock says later may be wrong, see `ClockJumps`.
            deletion = statement(self._now(), DELETE_STEP)
            while self._is_running and await self._write_paced(execute, deletion):
                pass

        return BackgroundWork(delete, lambda _: _log_failure())


def backed_up_at(db: sqlite3.Connection) -> int | None:
    """The moment that the newest copy shows, in microseconds; a process that copies notes it."""
    at: int | None
    [[at]] = db.execute("SELECT backed_up_at FROM history").fetchall()
    return at


def _empty_wal(db: sqlite3.Connection) -> bool:
    """Empty the log; False if that was not possible because a reader used it."""
    [(milliseconds,)] = db.execute("PRAGMA busy_timeout").fetchall()
    # A backup or a replicating program reads for long, and writes would wait for it meanwhile.
    db.execute("PRAGMA busy_timeout = 0")
    try:
        [(busy, *_)] = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout = {milliseconds}")
    return not busy


def _log_failure(failure: Failure | None = None) -> None:
    _log.failure("housekeeping of the database failed", failure)
