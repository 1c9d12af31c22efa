"""The service of one process: starts its components in order, drains and stops them.

Start: store, bus, listeners, background work. Stop: report not ready, accept no more connections
(later, with a lame-duck time), answer held polls, finish running requests, then stop the bus and
the store.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Awaitable, Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    TimeoutError,
    ensureDeferred,
)
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd import __version__
from chatd.config import Settings
from chatd.errors import StartError
from chatd.process.admin_socket import AdminSocket
from chatd.process.components import Components
from chatd.process.gc_tuning import GCTuner
from chatd.process.listeners import Listener, accept_waiting
from chatd.process.reloading import http_limits, reconfigure
from chatd.process.systemd import ServiceManager, Watchdog

LISTENING: Final = "chatd {version} is listening on {urls}, its data is in {location}"
"""Logged when the daemon has started; the supervisor recognizes it."""
LAG_SECONDS: Final = 1.0
"""How often the lag of the reactor is measured."""

_log = Logger()


class StartExit(SystemExit, Exception):
    """Exits the process because the daemon could not start.

    Only as an `Exception` does it make twistd remove its pid file and report to the parent of a
    daemonized process; only as a `SystemExit` does it end the interpreter without a traceback.
    """

    def __init__(self, reason: object) -> None:
        super().__init__(1)
        self._reason = reason

    def __str__(self) -> str:
        # The parent of a daemonized process prints this.
        return str(self._reason)


class ChatService(Service):
    """The daemon as a Twisted service. If it cannot start, the process exits with status 1.

    `gc_tuner` is started and stopped with it, in a process that runs nothing else. `manager` is
    told its state.
    """

    def __init__(
        self,
        components: Components,
        reactor: Any,
        *,
        public: Sequence[Listener],
        admin: Sequence[Listener],
        drain_seconds: float,
        lame_duck_seconds: float = 0,
        admin_socket: AdminSocket | None = None,
        gc_tuner: GCTuner | None = None,
        manager: ServiceManager | None = None,
    ) -> None:
        self.components = components
        self.public = public
        self.admin = admin
        self._admin_socket = admin_socket
        self._gc_tuner = gc_tuner
        self._reactor = reactor
        self._drain_seconds = drain_seconds
        self._lame_duck_seconds = lame_duck_seconds
        self._manager = manager or ServiceManager({}, 0)
        self._watchdog = Watchdog(self._manager, components.store.check, self.status, reactor)
        self._ports: list[tuple[Listener, IListeningPort]] = []
        self._starting: Deferred[None] | None = None
        self._lag_loop = LoopingCall(self._measure_lag)
        self._lag_loop.clock = reactor
        self._lag_due = 0.0
        self._force_stopped = False
        # What the stop waits for and `force_stop` ends.
        self._waiting: Deferred[Any] | None = None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._starting = ensureDeferred(self._start())
        if not self._starting.called:
            self._starting.addErrback(self._fail)
            return
        # The reactor does not run yet; with SQLite this is always the case.
        failures: list[Failure] = []
        self._starting.addErrback(failures.append)
        if failures:
            _report(failures[0])
            raise StartExit(failures[0].value)

    async def _start(self) -> None:
        components = self.components
        await components.store.open()
        await components.bus.start(components.subscriber)
        for listener in (*self.public, *self.admin):
            self._ports.append((listener, await listener.listen()))
        if self._admin_socket is not None:
            self._admin_socket.start()
        components.sweep.start()
        components.erasures.start()
        self._lag_due = self._reactor.seconds() + LAG_SECONDS
        self._lag_loop.start(LAG_SECONDS, now=False)
        if self._gc_tuner is not None:
            self._gc_tuner.start()
        _log.info(
            LISTENING,
            version=__version__,
            urls=", ".join(
                listener.url(port.getHost()) + (" (admin)" if listener in self.admin else "")
                for listener, port in self._ports
            ),
            location=components.store.location,
        )
        self._warn_if_exposed()
        self._manager.ready(self.status())
        self._watchdog.start()

    def status(self) -> str:
        """One line for the service manager."""
        connections = self.public[0].server.connections if self.public else 0
        return f"Serving: {connections} connections, {self.components.notifier.held} polls held"

    def reconfigure(self, settings: Settings) -> None:
        """Take settings of which only reloadable ones have changed."""
        self._drain_seconds = settings.drain_seconds
        self._lame_duck_seconds = settings.lame_duck_seconds
        for listener in self.public:
            reconfigure(self.components, listener.server, settings)
        for listener in self.admin:
            listener.server.set_limits(http_limits(settings, ()))

    def reload_certificates(self) -> None:
        """Read the certificates of TLS endpoints again."""
        for listener in (*self.public, *self.admin):
            listener.reload_certificate()

    def _warn_if_exposed(self) -> None:
        exposed = [
            listener.url(port.getHost())
            for listener, port in self._ports
            if listener not in self.admin and listener.is_exposed(port.getHost())
        ]
        if exposed:
            _log.warn(
                "passwords and messages can be read on the network: {urls} accepts connections"
                " from other machines without TLS; listen on interface=127.0.0.1 behind a proxy"
                " that terminates TLS, or use an ssl: endpoint",
                urls=", ".join(exposed),
            )

    def _fail(self, failure: Failure) -> None:
        fail_start(self._reactor, failure)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return ensureDeferred(self._stop())

    def force_stop(self) -> None:
        """Stop without waiting for clients any longer; sends are still stored."""
        if not self._force_stopped:
            self._force_stopped = True
            _log.info("told to stop again: open connections are cut")
            if self._waiting is not None:
                self._waiting.cancel()

    async def _stop(self) -> None:
        components = self.components
        self._manager.stopping()
        components.readiness.draining = True
        if self._lame_duck_seconds and self._ports:
            _log.info("not ready any more; accepting for {s:g} s", s=self._lame_duck_seconds)
            await self._wait(Deferred(), self._lame_duck_seconds)
        deadline = self._reactor.seconds() + self._drain_seconds
        for listener, port in self._ports:
            if listener not in self.admin:
                accept_waiting(listener.server, port)
                await _log_errors(port.stopListening())
        components.notifier.drain()
        for listener in self.public:
            listener.server.drain()
        await self._wait_for_clients(deadline)
        for listener in self.public:
            listener.server.abort_all()
        await components.chats.wait_idle()
        if self._admin_socket is not None:
            await _log_errors(self._admin_socket.stop())
        await _log_errors(components.sweep.stop())
        await _log_errors(components.deliveries.stop())
        await _log_errors(components.accounts.stop())
        await _log_errors(components.erasures.stop())
        components.passwords.stop()
        if self._lag_loop.running:
            self._lag_loop.stop()
            if self._gc_tuner is not None:
                self._gc_tuner.stop()
        for listener, port in self._ports:
            if listener in self.admin:
                await _log_errors(port.stopListening())
                listener.server.abort_all()
        await _log_errors(components.bus.stop())
        self._watchdog.stop()
        await _log_errors(components.store.close())
        _log.info("chatd has stopped")

    async def _wait_for_clients(self, deadline: float) -> None:
        """Wait until all public connections are closed, `deadline`, or `force_stop`."""
        # When it is cancelled, by its timeout too, the list fires with what it has.
        clients = DeferredList(
            [listener.server.wait_closed() for listener in self.public], consumeErrors=True
        )
        await self._wait(clients, max(0.0, deadline - self._reactor.seconds()))

    async def _wait(self, event: Deferred[Any], seconds: float) -> None:
        """Wait for an event, some seconds at most, or until `force_stop`."""
        self._waiting = event
        if self._force_stopped:
            event.cancel()
        try:
            await event.addTimeout(seconds, self._reactor)
        except (TimeoutError, CancelledError):
            pass

    def _measure_lag(self) -> None:
        now = self._reactor.seconds()
        self.components.metrics.observe_lag(max(0.0, now - self._lag_due))
        self._lag_due = now + LAG_SECONDS


def fail_start(reactor: Any, failure: Failure) -> None:
    """Log in one line why the daemon cannot start, and end the process with status 1."""
    _report(failure)
    # twistd takes no exit status from its services. When the interpreter exits, twistd has
    # removed its pid file, which it has not yet when the reactor's shutdown ends.
    atexit.register(_exit, 1)
    reactor.stop()


async def _log_errors(step: Awaitable[object] | None) -> None:
    """Await a step of stopping; if it fails, log that and continue."""
    try:
        if step is not None:
            await step
    except Exception:
        _log.failure("while stopping")


def _report(failure: Failure) -> None:
    if failure.check(StartError):
        _log.critical("chatd cannot start: {reason}", reason=failure.value)
    else:
        _log.failure("chatd cannot start", failure)


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
