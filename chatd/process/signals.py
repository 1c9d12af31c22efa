"""Who tells a process to stop again, while it drains, will not wait any longer."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final

AGAIN_SECONDS: Final = 1.0
"""What comes sooner after the first is the same wish: a signal to a whole group of processes, as
systemd and terminals send it, reaches a worker twice, for its supervisor passes its own on."""

_Handler = Callable[[int, FrameType | None], Any]


class Signals:
    """The first SIGTERM or SIGINT stops the reactor, as Twisted has it; later ones hurry the stop.

    Left to itself Twisted would stop the reactor once more, which is an error that it logs.
    """

    def __init__(self, reactor: Any, force_stop: Callable[[], None]) -> None:
        self._reactor = reactor
        self._hurry = force_stop
        self._stopping_since: float | None = None

    def handle(self) -> None:
        """Begin; to be called when the reactor runs, for it has installed its handlers then."""
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stopping)
        for number in (signal.SIGTERM, signal.SIGINT):
            first = signal.getsignal(number)
            # One that is ignored, as SIGINT is in a shell's background, stays so.
            if callable(first):
                signal.signal(number, partial(self._arrived, first))

    def _stopping(self) -> bool:
        """Note that the process stops; false if it was known."""
        if self._stopping_since is None:
            self._stopping_since = self._reactor.seconds()
            return True
        return False

    def _arrived(self, first: _Handler, number: int, frame: FrameType | None) -> None:
        if self._stopping():
            first(number, frame)
            return
        assert self._stopping_since is not None
        if self._reactor.seconds() - self._stopping_since >= AGAIN_SECONDS:
            self._reactor.callFromThread(self._hurry)
