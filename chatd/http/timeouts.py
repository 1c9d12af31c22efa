"""Timeouts of many connections with one timer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chatd.runtime.slices import in_slices

T = TypeVar("T")

_log = Logger()

# Seconds between two checks, and so how late a timeout may come.
TICK = 1.0


class Timeouts:
    """The timer of several `TimeoutQueue`s: ticks once a second while one of them has entries.

    Thousands of entries may be due at the same time, since thousands may have begun together: those
    for which a turn of the reactor has no time are told in the next ones.
    """

    __slots__ = ("_call", "_clock", "_queues")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._queues: list[TimeoutQueue[object]] = []
        self._call: IDelayedCall | None = None

    def queue(self, seconds: float, on_timeout: Callable[[T], None]) -> TimeoutQueue[T]:
        """Create a queue. An entry not discarded within `seconds` is removed, and
        `on_timeout(entry)` is called."""
        queue = TimeoutQueue(self, self._clock, seconds, on_timeout)
        self._queues.append(queue)  # type: ignore[arg-type]
        return queue

    def start(self) -> None:
        """Start the timer, unless it is running."""
        if self._call is None:
            self._call = self._clock.callLater(TICK, self._tick)

    def _tick(self) -> None:
        self._call = None
        now = self._clock.seconds()
        late = [(queue, entry) for queue in self._queues for entry in queue.late(now)]
        in_slices(self._clock, iter(late), lambda each: each[0].expire(each[1], now))
        if any(self._queues):
            self.start()

    def stop(self) -> None:
        """Stop the timer; the next entry starts it again."""
        if self._call is not None:
            self._call.cancel()
            self._call = None


class TimeoutQueue(Generic[T]):
    """Entries with the same timeout, so that the first one added is the first to expire.

    Adding and discarding an entry is one dict operation, without a delayed call for each entry,
    because a connection changes its deadline several times a request.
    """

    __slots__ = ("_clock", "_due", "_on_timeout", "_seconds", "_timeouts")

    def __init__(
        self,
        timeouts: Timeouts,
        clock: IReactorTime,
        seconds: float,
        on_timeout: Callable[[T], None],
    ) -> None:
        self._timeouts = timeouts
        self._clock = clock
        self._seconds = seconds
        self._on_timeout = on_timeout
        self._due: dict[T, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, entry: T) -> bool:
        return entry in self._due

    def add(self, entry: T) -> None:
        """Start the time of `entry`, which must not be in the queue."""
        due = self._due
        if not due:
            self._timeouts.start()
        due[entry] = self._clock.seconds() + self._seconds

    def discard(self, entry: T) -> None:
        """Remove `entry`, if it is in the queue."""
        self._due.pop(entry, None)

    def since(self, entry: T) -> float | None:
        """When the time of `entry` began, if it is in the queue."""
        due = self._due.get(entry)
        return None if due is None else due - self._seconds

    def late(self, now: float) -> Iterator[T]:
        """The entries that are due at `now`."""
        for entry, due in self._due.items():
            if due > now:
                break
            yield entry

    def expire(self, entry: T, now: float) -> None:
        """Remove `entry` and call `on_timeout`, unless it was removed meanwhile, or added again."""
        if self._due.get(entry, now + 1.0) > now:
            return
        del self._due[entry]
        try:
            self._on_timeout(entry)
        except Exception:
            # The timer has other entries to call, and to go on.
            _log.failure("A timeout could not be handled")
