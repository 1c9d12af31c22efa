"""Finding out where inboxes begin, after notices of that may have been missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.logger import Logger

from chatd.errors import StoreUnavailable
from chatd.runtime.background import BackgroundWork

LOOK_SECONDS: Final = 10.0
"""At least so long after it has looked, it looks again: that reads all rows of inboxes."""

_log = Logger()


class MissedRemovals:
    """Calls `load`, which reads and applies where inboxes begin, whenever it is asked to, but not
    too often; `pause` waits for some seconds.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[object]],
        pause: Callable[[float], Awaitable[object]],
    ) -> None:
        self._load = load
        self._pause = pause
        self._wanted = False
        self._background = BackgroundWork(
            self._work, lambda error: _log.failure("where inboxes begin could not be read")
        )

    def look(self) -> None:
        """Look now, or soon if that was done recently."""
        self._wanted = True
        self._background.start()

    async def _work(self) -> None:
        while self._wanted and not self._background.is_stopped:
            self._wanted = False
            try:
                await self._load()
            except StoreUnavailable:
                self._wanted = True
            await self._pause(LOOK_SECONDS)

    def stop(self) -> None:
        """Look no more."""
        self._background.stop()

    async def wait_idle(self) -> None:
        """Return when nothing is under way."""
        await self._background.wait_idle()
