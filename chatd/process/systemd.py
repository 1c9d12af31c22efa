"""What systemd is told of a service of Type=notify: sd_notify(3), which is one datagram."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

WATCHDOG_FEEDS: Final = 3
"""How often the watchdog is fed in the time after which it kills the process."""

_log = Logger()


class ServiceManager:
    """Tells the service manager the state of the service; does nothing without one.

    The variables that say how are removed from `environment`, so that children do not use them.
    `watchdog_seconds` is how long the process may be silent, or None.
    """

    def __init__(self, environment: MutableMapping[str, str], pid: int) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        wanted = environment.pop("WATCHDOG_PID", str(pid)) == str(pid)
        self.watchdog_seconds: float | None = None
        if self._address and wanted and microseconds.isdigit():
            self.watchdog_seconds = int(microseconds) / 1_000_000
        self._status = ""

    def ready(self, status: str) -> None:
        """The service has started, or has reloaded its settings."""
        self._status = status
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The service reloads its settings; `ready` follows."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service drains and stops."""
        self._send("STOPPING=1", "STATUS=Draining: finishing requests")

    def alive(self, status: str) -> None:
        """Feed the watchdog, and tell a status that has changed."""
        lines = ["WATCHDOG=1"]
        if status and status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        self._send(*lines)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # An address that begins with @ is in Linux' abstract namespace.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as problem:
            _log.warn("the service manager cannot be told: {why}", why=problem)


class Watchdog:
    """Feeds the watchdog of a `ServiceManager` as long as the reactor runs and `check` ends.

    A check that fails ends, too: a restart would not help. One that hangs has the process killed.
    """

    def __init__(
        self,
        manager: ServiceManager,
        check: Callable[[], Deferred[Any]],
        status: Callable[[], str],
        clock: Any,
    ) -> None:
        self._manager = manager
        self._check = check
        self._status = status
        self._checking = False
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin, if there is a watchdog."""
        seconds = self._manager.watchdog_seconds
        if seconds is not None:
            self._loop.start(seconds / WATCHDOG_FEEDS)

    def stop(self) -> None:
        """Feed it for the last time: from now on `check` is not called."""
        if self._loop.running:
            self._loop.stop()
            self._manager.alive("")

    def _tick(self) -> None:
        if not self._checking:
            self._checking = True
            self._check().addBoth(self._checked)

    def _checked(self, _: object) -> None:
        self._checking = False
        if self._loop.running:
            self._manager.alive(self._status())
