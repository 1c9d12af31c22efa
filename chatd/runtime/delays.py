"""Delays of coroutines that run in the background until their owner stops."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater


class Delays:
    """The delays of one owner, which end when it stops."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._running: set[Deferred[None]] = set()
        self._stopped = False

    async def wait(self, seconds: float) -> None:
        """Return after some seconds, or at once if `stop` is or was called."""
        if self._stopped:
            return
        delay: Deferred[None] = deferLater(self._clock, seconds)
        self._running.add(delay)
        # `stop` cancels it.
        delay.addErrback(lambda _: None)
        try:
            await delay
        finally:
            self._running.discard(delay)

    def stop(self) -> None:
        """End all delays, present and future."""
        self._stopped = True
        for delay in tuple(self._running):
            delay.cancel()
