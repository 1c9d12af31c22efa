"""Work on many items in several turns of the reactor, so that everything else has its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime

from chatd.runtime.turn import turn_of

T = TypeVar("T")

SLICE_SECONDS: Final = 0.002
"""For how long items are handled in one turn."""


def in_slices(clock: IReactorTime, items: Iterator[T], handle: Callable[[T], object]) -> None:
    """Call `handle`, which must not raise, for the items: for some milliseconds now, and for the
    rest in later turns."""
    until = turn_of(clock).until(clock.seconds(), SLICE_SECONDS)
    for item in items:
        handle(item)
        if clock.seconds() >= until:
            clock.callLater(0, in_slices, clock, items, handle)
            return
