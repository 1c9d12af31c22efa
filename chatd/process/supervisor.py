"""Several processes that share the port, under one supervisor: `--workers N`.

The supervisor serves nobody itself. It starts the workers, each an ordinary daemon configured by
the environment, starts those again that end, passes their logs on, and ends them when it ends.
"""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionDone, ProcessExitedAlready, ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import FileLogObserver, Logger, formatEventAsClassicLogText
from twisted.python.failure import Failure

from chatd.config import PREFIX, ConfigError, Settings, variables
from chatd.errors import StartError
from chatd.process.service import fail_start
from chatd.runtime.backoff import Backoff

STABLE_SECONDS: Final = 5.0
"""A worker that ends before is one that cannot start."""
KILL_SECONDS: Final = 5.0
"""How much longer than it may drain a worker gets before it is killed."""

_COMMAND: Final = "from chatd.process.supervisor import main; main()"
_SHARED: Final = re.compile(r"(tcp|tcp4|tcp6|ssl):.*", re.DOTALL)
_ADMIN: Final = re.compile(r"((?:tcp|tcp4|tcp6|ssl):(?:port=)?)([0-9]+)(:.*)?", re.DOTALL)

_log = Logger()


def worker_settings(settings: Settings, number: int) -> Settings:
    """The settings of worker `number`, from 1; raises `ConfigError` for what cannot be shared.

    The admin port of the first worker is the one configured, the others have the ports after it.
    """
    for endpoint in settings.listen:
        if _SHARED.fullmatch(endpoint) is None or " " in endpoint:
            raise ConfigError(f"listen: workers cannot share {endpoint!r}, only tcp: and ssl:")
    admin = settings.admin
    if admin is not None:
        match = _ADMIN.fullmatch(admin)
        if match is None:
            raise ConfigError(f"admin: workers need a port each, as from tcp:9100, not {admin!r}")
        port = int(match[2])
        admin = f"{match[1]}{port + number - 1 if port else 0}{match[3] or ''}"
    return attrs.evolve(settings, admin=admin, workers=1)


class Supervisor(Service):
    """The supervisor; `random` gives numbers from 0 up to 1."""

    def __init__(self, settings: Settings, reactor: Any, random: Callable[[], float]) -> None:
        self._reactor = reactor
        self._patience = settings.drain_seconds + KILL_SECONDS
        self._workers = [
            _Worker(self, number, variables(worker_settings(settings, number)), random)
            for number in range(1, settings.workers + 1)
        ]
        self._proved = False
        self._ending = False

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        for worker in self._workers:
            worker.start(self._reactor)
        _log.info("chatd has {count} workers", count=len(self._workers))

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        ended: Deferred[list[None]] = gatherResults(
            [worker.stop(self._patience) for worker in self._workers]
        )
        return ended.addCallback(lambda _: None)

    def force_stop(self) -> None:
        """The workers that still stop are to do so at once."""
        for worker in self._workers:
            worker.force_stop(KILL_SECONDS)

    def ended(self, worker: _Worker, how: str, cannot_start: bool) -> None:
        """A worker ended by itself, perhaps before it had begun to serve."""
        self._proved = self._proved or not cannot_start
        if self._proved:
            _log.error("{worker} {how} and is started again", worker=worker, how=how)
            worker.restart(stable=not cannot_start)
        elif not self._ending:
            # None has ever served: what keeps one from it keeps them all.
            self._ending = True
            fail_start(self._reactor, Failure(StartError(f"{worker} {how}")))


class _Worker:
    """One place among the workers, and the process that fills it."""

    def __init__(
        self,
        workers: Supervisor,
        number: int,
        environment: dict[str, str],
        random: Callable[[], float],
    ) -> None:
        self._workers = workers
        self._number = number
        self._environment = environment
        self._backoff = Backoff(random, first=0.1, longest=10.0)
        self._reactor: Any = None
        self._process: Any = None
        self._since = 0.0
        self._timer: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None

    def __str__(self) -> str:
        return f"worker {self._number}"

    def start(self, reactor: Any) -> None:
        self._reactor = reactor
        self._timer = None
        self._since = reactor.seconds()
        others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self._process = reactor.spawnProcess(
            _Watcher(self),
            sys.executable,
            [sys.executable, "-c", _COMMAND],
            env={**others, **self._environment},
            childFDs={0: "w", 1: "r", 2: "r"},
        )

    def restart(self, stable: bool) -> None:
        if stable:
            self._backoff.reset()
        self._timer = self._reactor.callLater(self._backoff.next(), self.start, self._reactor)

    def stop(self, patience: float) -> Deferred[None]:
        """End the process, first kindly; fires when it has ended."""
        self._stopped = Deferred()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._process is None:
            self._stopped.callback(None)
        else:
            self._signal(signal.SIGTERM)
            self._timer = self._reactor.callLater(patience, self._signal, signal.SIGKILL)
        return self._stopped

    def force_stop(self, patience: float) -> None:
        """End the process that is already told to end, with less patience."""
        if self._process is not None:
            self._signal(signal.SIGTERM)
            if self._timer is not None and self._timer.active():
                self._timer.reset(min(patience, self._timer.getTime() - self._reactor.seconds()))

    def said(self, line: str) -> None:
        _log.info("{worker}: {line}", worker=self, line=line.strip())

    def ended(self, how: str, cannot_start: bool) -> None:
        self._process = None
        if self._stopped is None:
            seconds = self._reactor.seconds() - self._since
            self._workers.ended(self, how, cannot_start and seconds < STABLE_SECONDS)
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._stopped.callback(None)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            try:
                self._process.signalProcess(number)
            except ProcessExitedAlready:
                pass


class _Watcher(ProcessProtocol):
    """Hears what a worker says, line by line, and that it ended."""

    def __init__(self, worker: _Worker) -> None:
        self._worker = worker
        self._rest = {1: b"", 2: b""}

    def childDataReceived(self, descriptor: int, data: bytes) -> None:
        *lines, self._rest[descriptor] = (self._rest[descriptor] + data).split(b"\n")
        for line in lines:
            self._worker.said(line.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:
        for rest in filter(None, self._rest.values()):
            self._worker.said(rest.decode("utf-8", "replace"))
        status: Any = reason.value
        by_signal = f"was ended by {signal.Signals(status.signal).name}" if status.signal else None
        # A signal comes from outside and says nothing of whether the worker could serve.
        self._worker.ended(
            by_signal or f"ended with status {status.exitCode}", cannot_start=not by_signal
        )


def observer() -> FileLogObserver:
    """The log of a worker: the supervisor adds the time."""
    return FileLogObserver(
        io.TextIOWrapper(os.fdopen(os.dup(1), "wb", 0), "utf-8", write_through=True),
        lambda event: formatEventAsClassicLogText(event, formatTime=lambda _: "")
    )  # fmt: skip


class _Leash:
    """The supervisor's end of a pipe: when it is gone, so is the supervisor, however it ended."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def fileno(self) -> int:
        return 0

    def logPrefix(self) -> str:
        return "leash"

    def doRead(self) -> ConnectionDone | None:
        return None if os.read(0, 1024) else ConnectionDone()

    def connectionLost(self, reason: Failure) -> None:
        # Called at the end of every reactor too.
        if self._reactor.running:
            _log.warn("the supervisor is gone")
            try:
                self._reactor.stop()
            except ReactorNotRunning:
                pass  # it drains already


def main() -> None:
    """What the process of a worker runs."""
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    any_reactor: Any = reactor
    any_reactor.callWhenRunning(any_reactor.addReader, _Leash(reactor))
    sys.argv = [
        "twistd", "--nodaemon", "--pidfile=", "--logger=chatd.process.supervisor.observer", "chatd"
    ]  # fmt: skip
    run()
