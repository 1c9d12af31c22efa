"""What signals do: stop, stop at once, reload, reopen the log."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final

from twisted.logger import Logger

REPEAT_SECONDS: Final = 1.0
"""A signal that arrives sooner after the first counts as the same one: systemd and terminals signal
a whole process group, so that a worker gets one from them and another one from its supervisor."""

_Handler = Callable[[int, FrameType | None], Any]

_log = Logger()


class Signals:
    """Handles SIGTERM and SIGINT: the first stops the reactor, later ones call `force_stop`.

    Twisted's own handlers would try to stop the reactor again, and log an error. After SIGTERM they
    would also have the process end by that signal, which is no success to whoever sent it.
    """

    def __init__(self, reactor: Any, force_stop: Callable[[], None]) -> None:
        self._reactor = reactor
        self._force_stop = force_stop
        self._stopping_since: float | None = None

    def install(self) -> None:
        """Install the handlers; to be called once the reactor runs and has installed its own."""
        self._reactor.addSystemEventTrigger("before", "shutdown", self._begin_stop)
        if getattr(self._reactor, "_exitSignal", None) == signal.SIGTERM:
            # It arrived in the moment since the reactor has installed its own handler.
            self._reactor._exitSignal = None
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
            if number == signal.SIGTERM:
                self._reactor.callFromThread(self._stop)
            else:
                # A shell has to learn that its command was interrupted.
                twisted_handler(number, frame)
        elif self._reactor.seconds() - self._stopping_since >= REPEAT_SECONDS:
            self._reactor.callFromThread(self._force_stop)

    def _stop(self) -> None:
        _log.info("told to stop by SIGTERM")
        self._reactor.stop()


def on_signal(reactor: Any, number: signal.Signals, call: Callable[[], None]) -> None:
    """Have the reactor call `call` for each such signal; those that come too early, later."""
    signal.signal(number, lambda *_: reactor.callFromThread(call))
