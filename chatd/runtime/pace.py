"""Work in the background that leaves most of the time to others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime

from chatd.runtime.delays import Delays

T = TypeVar("T")

PAUSE_FACTOR: Final = 2.0
"""How much longer than a step the pause after it is: steps take a third of the time."""
MAX_PAUSE_SECONDS: Final = 2.0


class Pace:
    """Runs steps one at a time, whoever they are of, with a pause between two."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._delays = Delays(clock)
        self._lock = DeferredLock()
        # When the next step may begin.
        self._free_at = 0.0

    async def run(self, step: Callable[[], Awaitable[T]]) -> T:
        """Run a step in its turn, after the pause; returns its result."""
        await self._lock.acquire()
        try:
            # The clock may have become another one.
            pause = min(self._free_at - self._clock.seconds(), MAX_PAUSE_SECONDS)
            if pause > 0:
                await self._delays.wait(pause)
            began = self._clock.seconds()
            try:
                return await step()
            finally:
                ended = self._clock.seconds()
                self._free_at = ended + PAUSE_FACTOR * (ended - began)
        finally:
            self._lock.release()

    def stop(self) -> None:
        """End the pauses, present and future: a step that waits begins at once."""
        self._delays.stop()
