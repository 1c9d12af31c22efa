"""Deadlines of many objects with one delayed call of the reactor."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chatd.runtime.slices import in_slices

TOLERANCE: Final = 1e-6
"""Seconds by which a deadline may be early: sums of floats are not exact."""

MIN_CANCELLED: Final = 64
"""Below this number, cancelled entries are not removed early."""


class DeadlineListener(Protocol):
    """What `Deadlines.add` is given."""

    def on_deadline(self) -> None:
        """The time has come. Must not raise."""
        ...


Entry = list[Any]
"""A pending deadline, for `Deadlines.cancel`."""


class Deadlines:
    """A heap of deadlines.

    An entry takes a quarter of the memory of a delayed call. A cancelled one stays in the heap,
    without its listener, until it is due or half of all entries are cancelled. Of many that are due
    at the same time, some are called in later turns of the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._heap: list[Entry] = []
        self._cancelled = 0
        # Entries of the same time need an order.
        self._numbers = count()
        self._call: IDelayedCall | None = None
        self._call_due = 0.0

    def __len__(self) -> int:
        """The number of pending deadlines."""
        return len(self._heap) - self._cancelled

    def add(self, due: float, listener: DeadlineListener) -> Entry:
        """Call `listener.on_deadline()` at `due`, in seconds of the clock."""
        entry: Entry = [due, next(self._numbers), listener]
        heappush(self._heap, entry)
        if self._call is None or due < self._call_due:
            self._schedule()
        return entry

    def cancel(self, entry: Entry) -> None:
        """Withdraw a pending deadline."""
        entry[2] = None
        if entry[1] < 0:
            return  # It is due, and no longer in the heap.
        self._cancelled += 1
        if self._cancelled == len(self._heap):
            self._heap.clear()
            self._cancelled = 0
            self._schedule()
        elif self._cancelled > MIN_CANCELLED and self._cancelled * 2 > len(self._heap):
            self._heap = [each for each in self._heap if each[2] is not None]
            heapify(self._heap)
            self._cancelled = 0

    def _schedule(self) -> None:
        """Have the reactor call at the first deadline."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        if self._heap:
            self._call_due = self._heap[0][0]
            delay = max(0.0, self._call_due - self._clock.seconds())
            self._call = self._clock.callLater(delay, self._expire)

    def _expire(self) -> None:
        self._call = None
        now = self._clock.seconds() + TOLERANCE
        due = []
        # Cancelled ones that are next are removed early: if there are no others, no call remains.
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2] is None):
            entry = heappop(self._heap)
            if entry[2] is None:
                self._cancelled -= 1
            else:
                entry[1] = -1
                due.append(entry)
        # First, since listeners add and cancel deadlines.
        self._schedule()
        in_slices(self._clock, iter(due), _call)


def _call(entry: Entry) -> None:
    # One of the listeners before may have cancelled it.
    if entry[2] is not None:
        entry[2].on_deadline()
