"""Delivered positions: a cursor that comes back proves that everything up to it was delivered.

They are kept in memory and written in batches, so that a poll costs no write: what a crash forgets
is proved again by the next cursor.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chatd.errors import DomainError
from chatd.interfaces import IBus, IStore
from chatd.runtime.idle import IdleWaiters

FLUSH_SECONDS: Final = 1.0
"""At least so much time passes between two writes."""
MAX_KNOWN: Final = 200_000

_log = Logger()


class Deliveries:
    """Notes and writes delivered positions, and announces the changes that follow."""

    def __init__(self, store: IStore, bus: IBus, clock: IReactorTime) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._known: dict[int, int] = {}
        self._pending: dict[int, int] = {}
        self._timer: IDelayedCall | None = None
        self._writing = False
        self._next_flush = 0.0
        self._idle_waiters = IdleWaiters()

    def note(self, user_id: int, seq: int) -> None:
        """A cursor at `seq` of the user's inbox came back; it must be one of this inbox."""
        if self._known.get(user_id, 0) < seq:
            self._known[user_id] = seq
            self._pending[user_id] = seq
            if self._timer is None and not self._writing:
                self._schedule()

    def forget(self) -> None:
        """Note positions again that were noted before, since the database may have lost them."""
        self._known.clear()

    async def stop(self) -> None:
        """Write what is pending; call when no poll notes anything more."""
        await self._idle_waiters.wait(not self._writing)
        if self._timer is not None:
            self._timer.cancel()
            await self._flush()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _schedule(self) -> None:
        delay = max(0.0, self._next_flush - self._clock.seconds())
        self._timer = self._clock.callLater(delay, self._start_flush)

    def _start_flush(self) -> None:
        Deferred.fromCoroutine(self._flush())

    async def _flush(self) -> None:
        self._timer = None
        self._next_flush = self._clock.seconds() + FLUSH_SECONDS
        pending, self._pending = self._pending, {}
        removed = self._store.removed
        if removed:
            # A poll of the beginning starts after what is removed, which was not delivered.
            pending = {
                user_id: seq for user_id, seq in pending.items() if seq > removed.get(user_id, 0)
            }
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        self._writing = True
        try:
            told = await self._store.sync.record_delivered(pending)
        except Exception as error:
            if not isinstance(error, DomainError):
                _log.failure("delivered positions could not be written")
            self._pending = {**pending, **self._pending}
        else:
            self._bus.publish_changes(told)
        finally:
            self._writing = False
            if self._pending:
                self._schedule()
            self._idle_waiters.notify()
