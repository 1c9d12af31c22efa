"""Finding out where inboxes begin, after notices of that may have been missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from chatd.errors import StoreUnavailable
from chatd.runtime.idle import IdleWaiters

LOOK_SECONDS: Final = 10.0
"""At least so long after it has looked, it looks again: that reads all rows of inboxes."""

_log = Logger()


class MissedRemovals:
    """Calls `load`, which reads and applies where inboxes begin, whenever it is asked to, but not
    too often; `pause` waits for some seconds.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[object]],
        pause: Callable[[float], Awaitable[object]],
    ) -> None:
        self._load = load
        self._pause = pause
        self._wanted = False
        self._working = False
        self._stopped = False
        self._idle_waiters = IdleWaiters()

    def look(self) -> None:
        """Look now, or soon if that was done recently."""
        self._wanted = True
        if not (self._working or self._stopped):
            Deferred.fromCoroutine(self._work())

    async def _work(self) -> None:
        self._working = True
        try:
            while self._wanted and not self._stopped:
                self._wanted = False
                try:
                    await self._load()
                except StoreUnavailable:
                    self._wanted = True
                await self._pause(LOOK_SECONDS)
        except Exception:
            _log.failure("where inboxes begin could not be read")
        finally:
            self._working = False
            self._idle_waiters.notify()

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True

    async def wait_idle(self) -> None:
        """Return when nothing is under way."""
        await self._idle_waiters.wait(not self._working)
