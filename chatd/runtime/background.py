"""Work that a component does in the background, until it is stopped."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from chatd.runtime.idle import IdleWaiters


class BackgroundWork:
    """Runs `work` one at a time. It ends soon after `is_stopped` has become true.

    `failed` is called with an error that `work` raises, while that is being handled.
    """

    def __init__(
        self,
        work: Callable[[], Coroutine[Deferred[Any], Any, object]],
        failed: Callable[[Exception], object],
    ) -> None:
        self._work = work
        self._failed = failed
        self._is_running = False
        self.is_stopped = False
        self._idle_waiters = IdleWaiters()

    def start(self) -> None:
        """Do the work, unless it is under way or this is stopped."""
        if not (self._is_running or self.is_stopped):
            Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        self._is_running = True
        try:
            await self._work()
        except Exception as error:
            self._failed(error)
        finally:
            self._is_running = False
            self._idle_waiters.notify()

    def stop(self) -> None:
        """Begin no more."""
        self.is_stopped = True

    async def wait_idle(self) -> None:
        """Return when none is under way."""
        await self._idle_waiters.wait(not self._is_running)
