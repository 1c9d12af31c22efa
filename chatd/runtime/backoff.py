"""Exponential backoff with jitter, for retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_SECONDS: Final = 0.05
LONGEST_SECONDS: Final = 1.5
"""Short enough to recover within seconds of a server; a connection attempt costs it little."""


class Backoff:
    """Delays that double from `first` to `longest` seconds, each reduced at random by up to half.

    `random` returns numbers in [0, 1); the jitter keeps processes from retrying all at once.
    """

    def __init__(
        self,
        random: Callable[[], float],
        *,
        first: float = FIRST_SECONDS,
        longest: float = LONGEST_SECONDS,
    ) -> None:
        self._random = random
        self._first = self._next = first
        self._longest = longest

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        delay, self._next = self._next, min(2 * self._next, self._longest)
        return delay * (0.5 + self._random() / 2)

    def reset(self) -> None:
        """Begin again with the shortest delay, after a success."""
        self._next = self._first
