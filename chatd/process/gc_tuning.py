"""Cyclic garbage: looked for seldom, because looking stops the process.

Hardly a request leaves circles behind, so that counting references frees nearly all. Python's
collector cannot know that: now and then it goes through all that were made since the last time,
which with thousands of polls that come and go takes 50 ms and more, and sometimes through all there
are, half a second with 15,000 held polls.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

ASIDE_SECONDS: Final = 1.0
GROWTH_BYTES: Final = 256 << 20
FIRST_SECONDS: Final = 600.0
LONGEST_SECONDS: Final = 4 * 3600.0
FEW: Final = 10_000
"""So many objects in circles are not worth the pause."""

# More made than freed in a second: circles, such as the forty objects that Klein leaves of each
# request that it dispatches itself, or thousands of new polls.
MANY: Final = 30_000
_TOO_MANY: Final = 50_000
_NEVER: Final = 1_000_000

_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """The memory that this process has; 0 where the system does not tell as Linux does."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


class GCTuner:
    """Governs Python's collector from `start` on.

    What lives is put aside every second, which costs nothing; it is still freed when nobody refers
    to it. What is younger is looked through only when there is much of it. Everything is looked
    through when memory has grown by half and at least 256 MB, and after ten minutes, then after
    twice as long each time that there was little, up to four hours.
    """

    def __init__(self, clock: IReactorTime, resident: Callable[[], int] = resident_bytes) -> None:
        self._clock = clock
        self._resident = resident
        self._pause = FIRST_SECONDS
        self._due = 0.0
        self._limit = 0
        self._looping = LoopingCall(self._put_aside)
        self._looping.clock = clock

    def start(self) -> None:
        """Begin; what there is now is the program itself."""
        self._thresholds = gc.get_threshold()
        gc.set_threshold(_TOO_MANY, _NEVER, _NEVER)
        self._collect()
        self._due = self._clock.seconds() + self._pause
        self._looping.start(ASIDE_SECONDS, now=False)

    def stop(self) -> None:
        """Leave it to Python again."""
        self._looping.stop()
        gc.unfreeze()
        gc.set_threshold(*self._thresholds)

    def _put_aside(self) -> None:
        if gc.get_count()[0] > MANY:
            gc.collect(0)
        gc.freeze()
        has_grown = self._resident() > self._limit
        if has_grown or self._clock.seconds() >= self._due:
            is_worth_it = self._collect() > FEW or has_grown
            self._pause = FIRST_SECONDS if is_worth_it else min(self._pause * 2, LONGEST_SECONDS)
            self._due = self._clock.seconds() + self._pause

    def _collect(self) -> int:
        gc.unfreeze()
        found = gc.collect()
        gc.freeze()
        resident = self._resident()
        self._limit = resident + max(resident // 2, GROWTH_BYTES)
        return found
