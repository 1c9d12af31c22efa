"""Supervisor of several worker processes that share the port: `--workers N`.

The supervisor serves no requests itself. It starts the workers, each an ordinary daemon that is
configured by its environment, restarts those that exit, logs their output, and stops them with
itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure

from chatd.config import PREFIX, ConfigError, Settings, to_environment
from chatd.errors import StartError
from chatd.process.logs import event_of
from chatd.process.service import fail_start
from chatd.process.systemd import ServiceManager, Watchdog
from chatd.runtime.backoff import Backoff

STABLE_SECONDS: Final = 5.0
"""A worker that has listened this long is restarted with the shortest delay."""
KILL_SECONDS: Final = 5.0
"""Time that a worker gets in addition to its drain time before it is killed."""

_COMMAND: Final = "from chatd.process.worker import main; main()"
_LISTENING: Final = re.compile(r"chatd \S+ is listening on ")
_SHAREABLE: Final = re.compile(r"(tcp|tcp4|tcp6|ssl):.*", re.DOTALL)
_ADMIN: Final = re.compile(r"((?:tcp|tcp4|tcp6|ssl):(?:port=)?)([0-9]+)(:.*)?", re.DOTALL)

_log = Logger()


def worker_settings(settings: Settings, number: int) -> Settings:
    """The settings of worker `number` (from 1); raises `ConfigError` for what cannot be shared.

    The first worker gets the configured admin port, the others get the ports after it.
    """
    for endpoint in settings.listen:
        if _SHAREABLE.fullmatch(endpoint) is None or " " in endpoint:
            raise ConfigError(f"listen: workers cannot share {endpoint!r}, only tcp: and ssl:")
    admin = settings.admin
    if admin is not None:
        match = _ADMIN.fullmatch(admin)
        if match is None:
            raise ConfigError(f"admin: workers need a port each, as from tcp:9100, not {admin!r}")
        port = int(match[2])
        admin = f"{match[1]}{port + number - 1 if port else 0}{match[3] or ''}"
    # The supervisor reads what workers log, and drops what is below its own level.
    level = "debug" if settings.log_level == "debug" else "info"
    return attrs.evolve(settings, admin=admin, workers=1, log_format="json", log_level=level)


def _stop_seconds(settings: Settings) -> float:
    return settings.lame_duck_seconds + settings.drain_seconds + KILL_SECONDS


class Supervisor(Service):
    """Runs `settings.workers` workers; `random` returns numbers in [0, 1), for their backoff.

    `manager` is told that the service is ready once all workers listen.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        random: Callable[[], float],
        manager: ServiceManager | None = None,
    ) -> None:
        self._reactor = reactor
        self._manager = manager or ServiceManager({}, 0)
        self._watchdog = Watchdog(self._manager, lambda: succeed(None), self.status, reactor)
        self._kill_after = _stop_seconds(settings)
        self._workers = [
            _Worker(
                number,
                to_environment(worker_settings(settings, number)),
                reactor,
                Backoff(random, first=0.1, longest=10.0),
                self._on_exit,
                self._on_listening,
            )
            for number in range(1, settings.workers + 1)
        ]
        self._has_served = False
        self._is_ready = False
        self._failed = False

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        for worker in self._workers:
            worker.start()
        _log.info("chatd has {count} workers", count=len(self._workers))

    def status(self) -> str:
        """One line for the service manager."""
        listening = sum(worker.is_listening for worker in self._workers)
        return f"{listening} of {len(self._workers)} workers serve"

    def reconfigure(self, settings: Settings) -> None:
        """Pass settings on to the workers, which also reload their certificates."""
        self._kill_after = _stop_seconds(settings)
        for number, worker in enumerate(self._workers, 1):
            worker.reconfigure(to_environment(worker_settings(settings, number)))

    def reload_certificates(self) -> None:
        """Nothing: the workers do it when they are reconfigured."""

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        self._manager.stopping()
        stopped: Deferred[list[None]] = gatherResults(
            [worker.stop(self._kill_after) for worker in self._workers]
        )
        return stopped.addCallback(lambda _: self._watchdog.stop())

    def force_stop(self) -> None:
        """Make workers that are still draining stop at once."""
        for worker in self._workers:
            worker.force_stop(KILL_SECONDS)

    def _on_listening(self) -> None:
        if not self._is_ready and all(worker.is_listening for worker in self._workers):
            self._is_ready = True
            self._manager.ready(self.status())
            self._watchdog.start()

    def _on_exit(self, worker: _Worker, how: str, could_not_start: bool) -> None:
        self._has_served = self._has_served or not could_not_start
        if self._has_served:
            _log.error("{worker} {how} and is started again", worker=str(worker), how=how)
            worker.restart()
        elif not self._failed:
            # No worker has ever served: the cause is the same for all of them.
            self._failed = True
            fail_start(self._reactor, Failure(StartError(f"{worker} {how}")))


class _Worker:
    """One of the workers, across restarts of its process.

    `on_exit` is called with the worker, how its process exited ("ended with status 1"), and whether
    it could not start, unless it was told to stop. A worker has started when it logs that it is
    listening.
    """

    def __init__(
        self,
        number: int,
        environment: dict[str, str],
        reactor: Any,
        backoff: Backoff,
        on_exit: Callable[[_Worker, str, bool], None],
        on_listening: Callable[[], None],
    ) -> None:
        self._number = number
        self._environment = environment
        self._reactor = reactor
        self._backoff = backoff
        self._notify_exit = on_exit
        self._notify_listening = on_listening
        self._process: Any = None
        self._listening_since: float | None = None
        self._timer: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None

    def __str__(self) -> str:
        return f"worker {self._number}"

    @property
    def is_listening(self) -> bool:
        """Whether its process has started."""
        return self._listening_since is not None

    def reconfigure(self, environment: dict[str, str]) -> None:
        """Use this environment from now on, in a running process, too."""
        self._environment = environment
        if self._process is not None:
            self._process.writeToChild(0, json.dumps(environment).encode() + b"\n")

    def start(self) -> None:
        self._timer = None
        self._listening_since = None
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(PREFIX)
        }
        self._process = self._reactor.spawnProcess(
            _WorkerProtocol(self._on_line, self._on_exit),
            sys.executable,
            [sys.executable, "-c", _COMMAND],
            env={**inherited, **self._environment},
            childFDs={0: "w", 1: "r", 2: "r"},
        )

    def restart(self) -> None:
        """Start a new process after a delay."""
        self._timer = self._reactor.callLater(self._backoff.next(), self.start)

    def stop(self, kill_after: float) -> Deferred[None]:
        """Terminate the process, kill it after some seconds; fires when it has exited."""
        self._stopped = Deferred()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._process is None:
            self._stopped.callback(None)
        else:
            self._signal(signal.SIGTERM)
            self._timer = self._reactor.callLater(kill_after, self._signal, signal.SIGKILL)
        return self._stopped

    def force_stop(self, kill_after: float) -> None:
        """After `stop`: terminate the process again, which forces its stop, and kill it sooner."""
        if self._process is not None:
            self._signal(signal.SIGTERM)
            if self._timer is not None and self._timer.active():
                self._timer.reset(min(kill_after, self._timer.getTime() - self._reactor.seconds()))

    def _on_line(self, line: str) -> None:
        event = event_of(line, self._number)
        if event is None:
            # Not of its log, such as a traceback of the interpreter.
            _log.warn(
                "{worker}: {line}",
                worker=str(self),
                line=line.strip(),
                log_worker=self._number,
            )
            return
        globalLogPublisher(event)
        if self._listening_since is None and _LISTENING.match(event["log_text"]):
            self._listening_since = self._reactor.seconds()
            self._notify_listening()

    def _on_exit(self, how: str, by_signal: bool) -> None:
        self._process = None
        if self._stopped is None:
            # A signal comes from outside: it does not mean that the worker could not start.
            could_not_start = self._listening_since is None and not by_signal
            if by_signal or self._listening_seconds() >= STABLE_SECONDS:
                self._backoff.reset()
            self._listening_since = None
            self._notify_exit(self, how, could_not_start)
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._stopped.callback(None)

    def _listening_seconds(self) -> float:
        if self._listening_since is None:
            return 0.0
        elapsed: float = self._reactor.seconds() - self._listening_since
        return elapsed

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            try:
                self._process.signalProcess(number)
            except ProcessExitedAlready:
                pass


class _WorkerProtocol(ProcessProtocol):
    """Reports a worker's output by lines, then how it exited and whether that was by a signal."""

    def __init__(
        self, on_line: Callable[[str], None], on_exit: Callable[[str, bool], None]
    ) -> None:
        self._on_line = on_line
        self._on_exit = on_exit
        self._partial_lines = {1: b"", 2: b""}

    def childDataReceived(self, descriptor: int, data: bytes) -> None:
        *lines, self._partial_lines[descriptor] = (self._partial_lines[descriptor] + data).split(
            b"\n"
        )
        for line in lines:
            self._on_line(line.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:
        for line in filter(None, self._partial_lines.values()):
            self._on_line(line.decode("utf-8", "replace"))
        status: Any = reason.value
        if status.signal:
            self._on_exit(f"was ended by {signal.Signals(status.signal).name}", True)
        else:
            self._on_exit(f"ended with status {status.exitCode}", False)
