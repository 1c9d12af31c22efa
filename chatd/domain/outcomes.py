"""Telling others what calls of the store have done, also where that is unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from chatd.errors import DomainError, StoreUnavailable

T = TypeVar("T")


def announced(
    call: Deferred[T],
    announce: Callable[[], None],
    concerns: Callable[[T], bool] = lambda result: True,
) -> Deferred[T]:
    """A call of the store, after which `announce` is called if its result `concerns` others.

    Also if it has failed and may have been committed nevertheless, but not if it was refused.
    """

    def succeeded(result: T) -> T:
        if concerns(result):
            announce()
        return result

    def failed(failure: Failure) -> Failure:
        if failure.check(StoreUnavailable) or not failure.check(DomainError):
            announce()
        return failure

    return call.addCallbacks(succeeded, failed)
