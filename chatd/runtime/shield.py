"""Let work go on when the one who asked for it goes away.

Klein cancels what a handler awaits when its client disconnects. Work that must complete or fail
as a whole (architecture, invariant 6) is run apart from the Deferred that the handler awaits.
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
    """See `work` to its end; cancelling the returned Deferred leaves it running.

    After a cancellation the result is dropped. A failure nobody waits for any more is logged,
    unless it is a `DomainError`: that is an answer, not a fault.
    """
    outer: Deferred[T] = Deferred()

    def done(result: T) -> None:
        outer.callback(result)

    def failed(failure: Failure) -> None:
        if outer.called and not failure.check(DomainError):
            _log.failure("failed after its client had gone", failure)
        outer.errback(failure)

    # A cancelled Deferred swallows the one late result, so both may fire `outer` blindly.
    inner = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    inner.addCallbacks(done, failed)
    return outer
