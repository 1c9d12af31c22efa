"""Ends polls and streams when the tokens that they were opened with expire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from chatd.model import Session
from chatd.runtime.deadlines import TOLERANCE, Deadlines, Entry


class Revocable(Protocol):
    """A poll or stream."""

    session: Session

    def revoke(self) -> None:
        """End it as unauthorized."""
        ...


class _Expiry:
    """A `chatd.runtime.deadlines.DeadlineListener` that ends a poll or stream."""

    __slots__ = ("_expiry", "_waiter")

    def __init__(self, waiter: Revocable, expiry: SessionExpiry) -> None:
        self._waiter = waiter
        self._expiry = expiry

    def on_deadline(self) -> None:
        self._expiry.end_or_watch(self._waiter)


class SessionExpiry:
    """The polls and streams whose sessions expire; `now` returns microseconds since the epoch."""

    def __init__(self, clock: IReactorTime, now: Callable[[], int]) -> None:
        self._clock = clock
        self._now = now
        self._deadlines = Deadlines(clock)
        self._entries: dict[Revocable, Entry] = {}

    def watch(self, waiter: Revocable) -> None:
        """End the waiter when its session expires."""
        if waiter.session.expires_at is not None:
            due = self._clock.seconds() + waiter.session.seconds_left(self._now())
            self._entries[waiter] = self._deadlines.add(due, _Expiry(waiter, self))

    def end_or_watch(self, waiter: Revocable) -> None:
        """End a waiter that is due, unless the wall clock was set back meanwhile."""
        if waiter.session.seconds_left(self._now()) > TOLERANCE:
            self.watch(waiter)
        else:
            waiter.revoke()

    def unwatch(self, waiter: Revocable) -> None:
        """Forget a waiter that has ended."""
        entry = self._entries.pop(waiter, None)
        if entry is not None:
            self._deadlines.cancel(entry)
