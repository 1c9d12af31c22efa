"""Entry point of a worker process, started by `chatd.process.supervisor`."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from twisted.internet.error import ConnectionDone, ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()


class ParentWatch:
    """Stops the reactor when the supervisor exits, however that happens.

    Reads standard input, a pipe from the supervisor, which is closed when the supervisor exits.
    Each line that it sends is a JSON object of environment variables, with which the process
    reloads its settings.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._partial_line = b""

    def fileno(self) -> int:
        return 0

    def logPrefix(self) -> str:
        return "parent watch"

    def doRead(self) -> ConnectionDone | None:
        data = os.read(0, 4096)
        if not data:
            return ConnectionDone()
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        for line in lines:
            os.environ.update(json.loads(line))
            signal.raise_signal(signal.SIGHUP)
        return None

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
    sys.argv = ["twistd", "--nodaemon", "--pidfile=", "chatd"]
    run()
