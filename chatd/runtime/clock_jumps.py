"""Whether the wall clock was set forward, so that it is not enough to say that something is old."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

DAY_SECONDS: Final = 86_400.0

_log = Logger()


class ClockJumps:
    """Compares the wall clock with a monotonic one, which `seconds` returns.

    What is old by a clock that was set forward by mistake may be new: for a day after that, the
    clock is not believed, unless it is set back. A process that starts believes it.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._last: tuple[int, float] | None = None
        self._doubted_until = float("-inf")

    def doubts(self, now: int) -> bool:
        """Whether not to believe that it is `now`, in microseconds since the Unix epoch.

        To be asked at least every few hours.
        """
        seconds = self._seconds()
        if self._last is not None:
            wall, at = self._last
            ahead = (now - wall) / 1_000_000 - (seconds - at)
            if ahead > DAY_SECONDS:
                self._doubted_until = seconds + DAY_SECONDS
                _log.error(
                    "the clock was set forward by {days:.0f} days: old messages and keys of sends"
                    " are not deleted before another day has passed, or after a restart",
                    days=ahead / DAY_SECONDS,
                )
            elif ahead < -DAY_SECONDS:
                self._doubted_until = seconds
        self._last = (now, seconds)
        return seconds < self._doubted_until
