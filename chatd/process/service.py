"""The running daemon: started in order, drained and stopped in order.

Start: store, bus, listeners, sweep. Stop: not ready any more, no new connections, held polls
answered, what is under way finished, then bus and store.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Awaitable, Sequence
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IStreamServerEndpoint,
)
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd import __version__
from chatd.domain.accounts import Accounts
from chatd.domain.chats import Chats
from chatd.domain.notifier import Notifier
from chatd.domain.passwords import Passwords
from chatd.domain.subscriber import Sweep
from chatd.errors import StartError
from chatd.http.server import Server
from chatd.interfaces import IBus, IStore, ISubscriber
from chatd.metrics import Metrics
from chatd.process.gc_tuning import GCTuner
from chatd.process.readiness import Readiness

BACKLOG: Final = 4096
"""Connections that the kernel may keep until they are accepted; it lowers it to somaxconn."""

LOOK_SECONDS: Final = 0.02
LAG_SECONDS: Final = 1.0

_log = Logger()


@attrs.frozen
class Listener:
    """Where to listen, as it was configured, and who serves there."""

    description: str
    endpoint: IStreamServerEndpoint
    server: Server


@attrs.frozen(kw_only=True)
class Components:
    """Everything that is started and stopped."""

    store: IStore
    bus: IBus
    subscriber: ISubscriber
    sweep: Sweep
    notifier: Notifier
    passwords: Passwords
    accounts: Accounts
    chats: Chats
    readiness: Readiness
    metrics: Metrics
    public: Sequence[Listener]
    admin: Sequence[Listener]


class StartExit(SystemExit, Exception):
    """Exits the process because the daemon could not start.

    Only as an `Exception` does it make twistd remove its pid file and report to the parent of a
    daemonized process; only as a `SystemExit` does it end the interpreter without a traceback.
    """


class ChatService(Service):
    """One process of chatd. A start that fails ends the process with status 1 and one line.

    `collector` is for a process that has nothing else to do.
    """

    def __init__(
        self,
        parts: Components,
        reactor: Any,
        drain_seconds: float,
        collector: GCTuner | None = None,
    ) -> None:
        self._collector = collector
        self._parts = parts
        self._reactor = reactor
        self._drain_seconds = drain_seconds
        self._ports: list[tuple[Listener, IListeningPort]] = []
        self._starting: Deferred[None] | None = None
        self._lag = LoopingCall(self._measure_lag)
        self._lag.clock = reactor
        self._due = 0.0
        self._hurried = False

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._starting = ensureDeferred(self._start())
        if not self._starting.called:
            self._starting.addErrback(self._end)
            return
        # Before the reactor runs; the embedded store always comes this way.
        failures: list[Failure] = []
        self._starting.addErrback(failures.append)
        if failures:
            _report(failures[0])
            raise StartExit(1)

    async def _start(self) -> None:
        parts = self._parts
        await parts.store.open()
        await parts.bus.start(parts.subscriber)
        for listener in (*parts.public, *parts.admin):
            try:
                port = await listener.endpoint.listen(listener.server)
            except CannotListenError as problem:
                raise StartError(
                    f"cannot listen on {listener.description}: {_reason(problem)}"
                ) from None
            except OSError as problem:
                raise StartError(
                    f"cannot listen on {listener.description}: {problem.strerror}"
                ) from None
            except (OverflowError, ValueError) as problem:
                raise StartError(f"cannot listen on {listener.description}: {problem}") from None
            self._ports.append((listener, port))
            _deepen_backlog(port)
        parts.sweep.start()
        self._due = self._reactor.seconds() + LAG_SECONDS
        self._lag.start(LAG_SECONDS, now=False)
        if self._collector is not None:
            self._collector.start()
        _log.info(
            "chatd {version} is listening on {addresses}, its data is in {location}",
            version=__version__,
            addresses=", ".join(self._addresses()),
            location=parts.store.location,
        )

    def _addresses(self) -> list[str]:
        return [
            _url(listener.description, port.getHost())
            + (" (admin)" if listener in self._parts.admin else "")
            for listener, port in self._ports
        ]

    def _end(self, failure: Failure) -> None:
        end(self._reactor, failure)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return ensureDeferred(self._stop())

    def force_stop(self) -> None:
        """The stop is not to wait for clients any longer; what is being stored still is."""
        if not self._hurried:
            self._hurried = True
            _log.info("told to stop again: open connections are cut")

    async def _stop(self) -> None:
        parts = self._parts
        deadline = self._reactor.seconds() + self._drain_seconds
        parts.readiness.draining = True
        public = [port for listener, port in self._ports if listener not in parts.admin]
        for port in public:
            await _settled(port.stopListening())
        parts.notifier.drain()
        for listener in parts.public:
            listener.server.drain()
        while self._open_connections() and not self._hurried and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, LOOK_SECONDS)
        for listener in parts.public:
            listener.server.abort_all()
        await parts.chats.finished()
        await _settled(parts.sweep.stop())
        await _settled(parts.accounts.stop())
        parts.passwords.stop()
        if self._lag.running:
            self._lag.stop()
            if self._collector is not None:
                self._collector.stop()
        for listener, port in self._ports:
            if listener in parts.admin:
                await _settled(port.stopListening())
                listener.server.abort_all()
        await _settled(parts.bus.stop())
        await _settled(parts.store.close())
        _log.info("chatd has stopped")

    def _open_connections(self) -> int:
        return sum(listener.server.connections for listener in self._parts.public)

    def _measure_lag(self) -> None:
        now = self._reactor.seconds()
        self._parts.metrics.lag(max(0.0, now - self._due))
        self._due = now + LAG_SECONDS


def end(reactor: Any, failure: Failure) -> None:
    """Say in one line why the daemon cannot start, and end the process with status 1."""
    _report(failure)
    # twistd takes no exit status from its services. At the exit of the interpreter twistd has
    # removed its pid file, which it has not yet when the reactor's shutdown ends.
    atexit.register(_exit, 1)
    reactor.stop()


async def _settled(step: Awaitable[object] | None) -> None:
    """A step of stopping that fails is logged; the steps after it are still taken."""
    try:
        if step is not None:
            await step
    except Exception:
        _log.failure("while stopping")


def _deepen_backlog(port: object) -> None:
    # Endpoint strings default to 50, which a burst of reconnecting clients overruns.
    # The kernel takes a second listen() on the same socket as a new backlog.
    socket = getattr(port, "socket", None)
    if socket is not None:
        socket.listen(BACKLOG)


def _url(description: str, address: IAddress) -> str:
    scheme = "https" if description.startswith(("ssl:", "tls:")) else "http"
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return description
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _reason(problem: CannotListenError) -> str:
    return getattr(problem.socketError, "strerror", None) or str(problem.socketError)


def _report(failure: Failure) -> None:
    if failure.check(StartError):
        _log.critical("chatd cannot start: {reason}", reason=failure.value)
    else:
        _log.failure("chatd cannot start", failure)


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
