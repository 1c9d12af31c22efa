"""A second SIGTERM or SIGINT during shutdown forces the stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final

REPEAT_SECONDS: Final = 1.0
"""A signal that arrives sooner after the first counts as the same one: systemd and terminals signal
a whole process group, so that a worker gets one from them and another one from its supervisor."""

_Handler = Callable[[int, FrameType | None], Any]


class Signals:
    """Handles SIGTERM and SIGINT: the first stops the reactor, later ones call `force_stop`.

    Twisted's own handlers would try to stop the reactor again, and log an error.
    """

    def __init__(self, reactor: Any, force_stop: Callable[[], None]) -> None:
        self._reactor = reactor
        self._force_stop = force_stop
        self._stopping_since: float | None = None

    def install(self) -> None:
        """Install the handlers; to be called once the reactor runs and has installed its own."""
        self._reactor.addSystemEventTrigger("before", "shutdown", self._begin_stop)
        for number in (signal.SIGTERM, signal.SIGINT):
            twisted_handler = signal.getsignal(number)
            # A signal that is ignored, as SIGINT is for a shell's background jobs, stays ignored.
            if callable(twisted_handler):
                signal.signal(number, partial(self._on_signal, twisted_handler))

    def _begin_stop(self) -> None:
        if self._stopping_since is None:
            self._stopping_since = self._reactor.seconds()

    def _on_signal(self, twisted_handler: _Handler, number: int, frame: FrameType | None) -> None:
        if self._stopping_since is None:
            self._begin_stop()
            twisted_handler(number, frame)
        elif self._reactor.seconds() - self._stopping_since >= REPEAT_SECONDS:
            self._reactor.callFromThread(self._force_stop)
