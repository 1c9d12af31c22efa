"""The service of one process: starts its components in order, drains and stops them.

Start: store, bus, listeners, sweep. Stop: report not ready, accept no more connections, answer held
polls, finish running requests, then stop the bus and the store.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Awaitable, Sequence
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd import __version__
from chatd.domain.account_changes import AccountChanges
from chatd.domain.accounts import Accounts
from chatd.domain.blocks import Blocks
from chatd.domain.chats import Chats
from chatd.domain.conversations import Conversations
from chatd.domain.deliveries import Deliveries
from chatd.domain.notifier import Notifier
from chatd.domain.passwords import Passwords
from chatd.domain.receipts import Receipts
from chatd.domain.revisions import Revisions
from chatd.domain.sweep import Sweep
from chatd.domain.tokens import Tokens
from chatd.errors import StartError
from chatd.interfaces import IBus, IStore, ISubscriber
from chatd.metrics import Metrics
from chatd.process.admin_socket import AdminSocket
from chatd.process.gc_tuning import GCTuner
from chatd.process.listeners import Listener
from chatd.process.readiness import Readiness

LISTENING: Final = "chatd {version} is listening on {urls}, its data is in {location}"
"""Logged when the daemon has started; the supervisor recognizes it."""
LAG_SECONDS: Final = 1.0
"""How often the lag of the reactor is measured."""

_log = Logger()


@attrs.frozen(kw_only=True)
class Components:
    """The components that a `ChatService` starts and stops."""

    store: IStore
    bus: IBus
    subscriber: ISubscriber
    sweep: Sweep
    notifier: Notifier
    passwords: Passwords
    accounts: Accounts
    account_changes: AccountChanges
    tokens: Tokens
    chats: Chats
    conversations: Conversations
    receipts: Receipts
    deliveries: Deliveries
    revisions: Revisions
    blocks: Blocks
    readiness: Readiness
    metrics: Metrics


class StartExit(SystemExit, Exception):
    """Exits the process because the daemon could not start.

    Only as an `Exception` does it make twistd remove its pid file and report to the parent of a
    daemonized process; only as a `SystemExit` does it end the interpreter without a traceback.
    """


class ChatService(Service):
    """The daemon as a Twisted service. If it cannot start, the process exits with status 1.

    `gc_tuner` is started and stopped with it, in a process that runs nothing else.
    """

    def __init__(
        self,
        components: Components,
        reactor: Any,
        *,
        public: Sequence[Listener],
        admin: Sequence[Listener],
        drain_seconds: float,
        admin_socket: AdminSocket | None = None,
        gc_tuner: GCTuner | None = None,
    ) -> None:
        self.components = components
        self.public = public
        self.admin = admin
        self._admin_socket = admin_socket
        self._gc_tuner = gc_tuner
        self._reactor = reactor
        self._drain_seconds = drain_seconds
        self._ports: list[tuple[Listener, IListeningPort]] = []
        self._starting: Deferred[None] | None = None
        self._lag_loop = LoopingCall(self._measure_lag)
        self._lag_loop.clock = reactor
        self._lag_due = 0.0
        self._force_stopped = False
        self._clients: Deferred[Any] | None = None

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
            raise StartExit(1)

    async def _start(self) -> None:
        components = self.components
        await components.store.open()
        await components.bus.start(components.subscriber)
        for listener in (*self.public, *self.admin):
            self._ports.append((listener, await listener.listen()))
        if self._admin_socket is not None:
            self._admin_socket.start()
        components.sweep.start()
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
            if self._clients is not None:
                self._clients.cancel()

    async def _stop(self) -> None:
        components = self.components
        deadline = self._reactor.seconds() + self._drain_seconds
        components.readiness.draining = True
        for listener, port in self._ports:
            if listener not in self.admin:
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
        await _log_errors(components.store.close())
        _log.info("chatd has stopped")

    async def _wait_for_clients(self, deadline: float) -> None:
        """Wait until all public connections are closed, `deadline`, or `force_stop`."""
        # When it is cancelled, by its timeout too, the list fires with what it has.
        self._clients = DeferredList(
            [listener.server.wait_closed() for listener in self.public], consumeErrors=True
        )
        if self._force_stopped:
            self._clients.cancel()
        remaining = max(0.0, deadline - self._reactor.seconds())
        await self._clients.addTimeout(remaining, self._reactor)

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
