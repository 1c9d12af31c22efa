"""Whether there is room for what is sent, before the disk is full and nothing works any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from chatd.errors import InsufficientStorage

CHECK_SECONDS: Final = 1.0
"""For how long what is known of the disk is used."""
RETRY_SECONDS: Final = 60.0


class DiskSpace:
    """The disk of the database: `free_bytes` returns what is free, and may raise OSError.

    None for a database that is elsewhere. At least `least` bytes have to stay free; it may be
    changed, and 0 is not looked at.
    """

    def __init__(
        self, free_bytes: Callable[[], int] | None, least: int, clock: IReactorTime
    ) -> None:
        self._free_bytes = free_bytes
        self.least = least
        self._clock = clock
        self._checked = float("-inf")
        self._is_enough = True

    def check(self) -> None:
        """Raise `InsufficientStorage` if nothing more should be stored."""
        if self._free_bytes is None or not self.least:
            return
        now = self._clock.seconds()
        if now - self._checked >= CHECK_SECONDS:
            self._checked = now
            try:
                self._is_enough = self._free_bytes() >= self.least
            except OSError:
                # The store will find out what is wrong.
                self._is_enough = True
        if not self._is_enough:
            raise InsufficientStorage("the disk is nearly full", RETRY_SECONDS, "free_disk")
