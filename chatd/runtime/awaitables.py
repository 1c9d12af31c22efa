"""Awaitables as Deferreds."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred

T = TypeVar("T")


def as_deferred(work: Awaitable[T]) -> Deferred[T]:
    """The work itself if it is a Deferred; a coroutine is started."""
    if isinstance(work, Deferred):
        return work
    return Deferred.fromCoroutine(cast(Coroutine[Deferred[Any], Any, T], work))
