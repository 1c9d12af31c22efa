"""Entry point of a worker process, started by `chatd.process.supervisor`."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from twisted.internet.error import ConnectionDone, ReactorNotRunning
from twisted.logger import FileLogObserver, Logger, formatEventAsClassicLogText
from twisted.python.failure import Failure

_log = Logger()


def log_observer() -> FileLogObserver:
    """Logs to standard output without timestamps, since the supervisor adds them."""
    return FileLogObserver(
        io.TextIOWrapper(os.fdopen(os.dup(1), "wb", 0), "utf-8", write_through=True),
        lambda event: formatEventAsClassicLogText(event, formatTime=lambda _: "")
    )  # fmt: skip


class ParentWatch:
    """Stops the reactor when the supervisor exits, however that happens.

    Reads standard input, a pipe from the supervisor, which is closed when the supervisor exits.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def fileno(self) -> int:
        return 0

    def logPrefix(self) -> str:
        return "parent watch"

    def doRead(self) -> ConnectionDone | None:
        return None if os.read(0, 1024) else ConnectionDone()

    def connectionLost(self, reason: Failure) -> None:
        # Also called at every shutdown of the reactor.
        if self._reactor.running:
            _log.warn("the supervisor is gone")
            try:
                self._reactor.stop()
            except ReactorNotRunning:
                pass  # it is already stopping


def main() -> None:
    """Run the daemon under twistd, configured by the environment."""
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    any_reactor: Any = reactor
    any_reactor.callWhenRunning(any_reactor.addReader, ParentWatch(reactor))
    sys.argv = [
        "twistd", "--nodaemon", "--pidfile=", "--logger=chatd.process.worker.log_observer", "chatd"
    ]  # fmt: skip
    run()
