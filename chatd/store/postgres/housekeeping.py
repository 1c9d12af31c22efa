"""Background deletion of old keys, batch results, tokens and accounts' data on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.runtime.clock_jumps import ClockJumps
from chatd.store.postgres.layout import Layout

HOUSEKEEPING_SECONDS: Final = 60.0
RETENTION_SECONDS: Final = 600.0
"""How often old messages are looked for."""

_log = Logger()


class Housekeeping:
    """Deletes in small transactions, every `seconds`; several processes may do so concurrently.

    Also finds out how large the database is.

    `layout` returns that of the store, which is open while this works. `now` returns microseconds
    since the Unix epoch. What is older than `keep` microseconds, which may be changed, is removed
    by `remove_old`, see `Retention.run`; rows of what was removed are also deleted if that is None.
    """

    def __init__(
        self,
        layout: Callable[[], Layout],
        reactor: Any,
        seconds: float,
        now: Callable[[], int],
        keep: int | None = None,
        remove_old: Callable[[int | None], Coroutine[Deferred[Any], Any, int]] | None = None,
    ) -> None:
        self.keep = keep
        self._remove_old = remove_old
        self._next_removal = reactor.seconds() + RETENTION_SECONDS
        self._seconds_now = reactor.seconds
        self._now = now
        self._clock_jumps = ClockJumps(reactor.seconds)
        self._layout = layout
        self._seconds = seconds
        self._timer = LoopingCall(lambda: Deferred.fromCoroutine(self._run()))
        self._timer.clock = reactor
        self._stopped: Deferred[LoopingCall] | None = None
        # Whether there is something to purge, and whether that is under way.
        self._has_deleted = False
        self._is_purging = False
        self.database_bytes = 0
        """The size of the database at the last time of work; 0 before."""
        self.backed_up_at: int | None = None
        """The moment that the newest backup shows, in microseconds, at that time."""

    def start(self) -> None:
        """Work periodically."""
        self._clock_jumps.doubts(self._now())
        self._stopped = self._timer.start(self._seconds, now=False)

    async def stop(self) -> None:
        """Begin no more transactions, and wait for the periodic work to end."""
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            self._timer.stop()
            await stopped

    def purge(self) -> None:
        """Start deleting the data of deleted accounts."""
        Deferred.fromCoroutine(self._purge()).addErrback(_log_purge_failure)

    async def _run(self) -> None:
        try:
            # If the clock of this machine is fast, what is old is what is old to the server.
            now = min(self._now(), await self._layout().now())
            doubtful = self._clock_jumps.doubts(now)
            await self._layout().delete_expired(now)
            if not doubtful:
                await self._layout().delete_old(now)
            await self._purge()
            if not doubtful:
                await self._remove(now)
            self.backed_up_at = await self._layout().backed_up_at()
            self.database_bytes = await self._layout().database_bytes()
        except Exception:
            _log.failure("housekeeping of the database failed")

    async def _remove(self, now: int) -> None:
        """Remove what is too old, if that has not been done recently."""
        if self._remove_old is None or not self._is_removal_due():
            return
        self._next_removal = self._seconds_now() + RETENTION_SECONDS
        await self._remove_old(None if self.keep is None else now - self.keep)

    def _is_removal_due(self) -> bool:
        return bool(self._seconds_now() >= self._next_removal)

    async def _purge(self) -> None:
        """Purge one transaction after the other, however many accounts were deleted: each has one
        of the few connections."""
        self._has_deleted = True
        if self._is_purging:
            return
        self._is_purging = True
        try:
            while self._has_deleted and self._stopped is not None:
                # An account may be deleted during the step.
                self._has_deleted = False
                if await self._layout().purge_step():
                    self._has_deleted = True
        finally:
            self._is_purging = False


def _log_purge_failure(failure: Failure) -> None:
    _log.failure("purging the inbox of a deleted account failed", failure)
