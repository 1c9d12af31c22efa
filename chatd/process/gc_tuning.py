"""Runs Python's cyclic garbage collector less often, because it pauses the process.

Requests rarely create reference cycles, so that reference counting frees nearly everything. With
its default thresholds the collector still traverses all objects created since its last run, which
takes 50 ms and more with thousands of polls coming and going, and now and then all objects that
exist: half a second with 15,000 held polls.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

FREEZE_SECONDS: Final = 1.0
GROWTH_BYTES: Final = 256 << 20
MIN_FULL_SECONDS: Final = 600.0
MAX_FULL_SECONDS: Final = 4 * 3600.0
TRIM_SECONDS: Final = 30.0
"""How often what was freed is given back to the system: a millisecond if there is little, 0.2 s for
the 800 MB that ten thousand TLS handshakes have left behind."""
WORTHWHILE_OBJECTS: Final = 10_000
"""A full collection that frees fewer objects was not worth its pause."""

YOUNG_OBJECTS: Final = 5_000
"""Net allocations within a second that indicate reference cycles, such as the forty objects that
Klein leaves behind for each request that it dispatches itself, and Twisted for each TLS connection
that is reset, with its 24 KB of OpenSSL; or thousands of new polls."""
_THRESHOLD: Final = 50_000
_NEVER: Final = 1_000_000

_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


# Of glibc; other libraries return memory by themselves.
_trim: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def resident_bytes() -> int:
    """The resident memory of this process; 0 on systems without Linux's /proc."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


class GCTuner:
    """Controls Python's garbage collector between `start` and `stop`.

    Every second all objects are frozen, which is cheap; they are still freed when their reference
    count drops to zero. New objects are collected first only if there are many. A full collection
    takes place when memory has grown by half and by at least 256 MB, and otherwise after ten
    minutes; this interval doubles after each collection that freed little, up to four hours. What
    was freed without one is given back to the system, too.
    """

    def __init__(self, clock: IReactorTime, resident: Callable[[], int] = resident_bytes) -> None:
        self._clock = clock
        self._resident = resident
        self._interval = MIN_FULL_SECONDS
        self._next_full = 0.0
        self._next_trim = 0.0
        self._memory_limit = 0
        self._loop = LoopingCall(self._freeze)
        self._loop.clock = clock

    def start(self) -> None:
        """Collect and freeze what exists now, and take control."""
        self._thresholds = gc.get_threshold()
        gc.set_threshold(_THRESHOLD, _NEVER, _NEVER)
        # Without what whoever started the process has frozen.
        self._collect()
        self._next_full = self._clock.seconds() + self._interval
        self._loop.start(FREEZE_SECONDS, now=False)

    def stop(self) -> None:
        """Restore the previous thresholds."""
        self._loop.stop()
        gc.unfreeze()
        gc.set_threshold(*self._thresholds)

    def _freeze(self) -> None:
        if gc.get_count()[0] > YOUNG_OBJECTS:
            gc.collect(0)
        gc.freeze()
        has_grown = self._resident() > self._memory_limit
        if has_grown or self._clock.seconds() >= self._next_full:
            gc.unfreeze()
            was_worthwhile = self._collect() > WORTHWHILE_OBJECTS or has_grown
            self._interval = (
                MIN_FULL_SECONDS if was_worthwhile else min(self._interval * 2, MAX_FULL_SECONDS)
            )
            self._next_full = self._clock.seconds() + self._interval
        elif self._clock.seconds() >= self._next_trim:
            self._give_back()

    def _collect(self) -> int:
        freed = gc.collect()
        gc.freeze()
        self._give_back()
        resident = self._resident()
        self._memory_limit = resident + max(resident // 2, GROWTH_BYTES)
        return freed

    def _give_back(self) -> None:
        """Give what was freed back to the system.

        Otherwise it counts as used, and each limit is higher than the last one.
        """
        self._next_trim = self._clock.seconds() + TRIM_SECONDS
        if _trim is not None:
            _trim(0)
