"""Deadlines of many connections under one timer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T")

# Seconds between two looks at the deadlines, and how late one may pass.
TICK = 1.0


class Timeouts:
    """Ticks once a second while any `TimeoutQueue` of it has an entry, and not at all otherwise."""

    __slots__ = ("_call", "_clock", "_queues")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._queues: list[TimeoutQueue[object]] = []
        self._call: IDelayedCall | None = None

    def queue(self, seconds: float, passed: Callable[[T], None]) -> TimeoutQueue[T]:
        """A queue whose entries have `seconds`; `passed(entry)` is called for one that did not
        leave in time, after it has been removed."""
        queue = TimeoutQueue(self, self._clock, seconds, passed)
        self._queues.append(queue)  # type: ignore[arg-type]
        return queue

    def start(self) -> None:
        """Tick, from now on."""
        if self._call is None:
            self._call = self._clock.callLater(TICK, self._tick)

    def _tick(self) -> None:
        self._call = None
        now = self._clock.seconds()
        for queue in self._queues:
            queue.expire(now)
        if any(self._queues):
            self.start()

    def stop(self) -> None:
        """Forget the timer; a later entry starts it again."""
        if self._call is not None:
            self._call.cancel()
            self._call = None


class TimeoutQueue(Generic[T]):
    """Entries that have the same time to leave, so that the first in is the first due.

    Entering and leaving are one operation on a dict, without a timer of the entry's own: a
    connection changes its deadline several times a request.
    """

    __slots__ = ("_clock", "_deadlines", "_due", "_passed", "_seconds")

    def __init__(
        self,
        deadlines: Timeouts,
        clock: IReactorTime,
        seconds: float,
        passed: Callable[[T], None],
    ) -> None:
        self._deadlines = deadlines
        self._clock = clock
        self._seconds = seconds
        self._passed = passed
        self._due: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, entry: T) -> bool:
        return entry in self._due

    def enter(self, entry: T) -> None:
        """`entry` has its seconds from now. It must not be in the queue."""
        due = self._due
        if not due:
            self._deadlines.start()
        due[entry] = self._clock.seconds() + self._seconds

    def leave(self, entry: T) -> None:
        """`entry` was in time."""
        self._due.pop(entry, None)

    def expire(self, now: float) -> None:
        """Remove and report the entries that are due at `now`."""
        late = []
        for entry, due in self._due.items():
            if due > now:
                break
            late.append(entry)
        for entry in late:
            # One entry's end may have taken others out, or let them enter anew.
            due = self._due.get(entry, now + 1.0)
            if due <= now:
                del self._due[entry]
                self._passed(entry)
