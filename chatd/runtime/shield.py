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

T = TypeVar("T")

_log = Logger()


def shield(work: Coroutine[Deferred[Any], Any, T] | Deferred[T]) -> Deferred[T]:
    """Run `work` to its end, even if the returned Deferred is cancelled.

    After a cancellation the result is dropped. A failure is then logged, unless it is a
    `DomainError`, which is a regular answer.
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
