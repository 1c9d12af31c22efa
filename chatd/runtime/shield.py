"""Protects work from cancellation, as `asyncio.shield` does.

Klein cancels what a handler awaits when its client disconnects. Work that must complete or fail as
a whole (architecture, invariant 6) is shielded from that.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.errors import DomainError
from chatd.runtime.idle import IdleWaiters

T = TypeVar("T")

_log = Logger()


def shield(work: Coroutine[Deferred[Any], Any, T] | Deferred[T]) -> Deferred[T]:
    """Run `work` to its end, even if the returned Deferred is cancelled.

    After a cancellation the result is dropped. A failure is then logged, unless it is a
    `DomainError`, which is a regular result.
    """
    outer: Deferred[T] = Deferred()

    def succeeded(result: T) -> None:
        outer.callback(result)

    def failed(failure: Failure) -> None:
        if outer.called and not failure.check(DomainError):
            _log.failure("failed after its client had disconnected", failure)
        outer.errback(failure)

    # A cancelled Deferred ignores one late result, so that both may fire `outer` unconditionally.
    inner = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    inner.addCallbacks(succeeded, failed)
    return outer


class ShieldedTasks:
    """Shielded work whose end can be waited for, at shutdown."""

    def __init__(self) -> None:
        self._running = 0
        self._idle_waiters = IdleWaiters()

    def run(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Run `work` as `shield` does."""
        return shield(self._count(work))

    def wait_idle(self) -> Deferred[None]:
        """Fires when no work is running."""
        return self._idle_waiters.wait(not self._running)

    async def _count(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        self._running += 1
        try:
            return await work
        finally:
            self._running -= 1
            if not self._running:
                self._idle_waiters.notify()
