"""The order of starting and stopping, and what comes of a start that fails."""

from __future__ import annotations

import atexit
import errno
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher

from chatd.errors import StartError
from chatd.process.service import BACKLOG, LAG_SECONDS, LOOK_SECONDS, ChatService, Listener
from tests.conftest import LoggedFailures
from tests.doubles import result_of


class Port:
    """A listening port of the test's."""

    def __init__(self, note: Callable[[str], None], name: str, address: Any) -> None:
        self._note, self._name, self._address = note, name, address
        self.backlogs: list[int] = []
        self.socket = SimpleNamespace(listen=self.backlogs.append)

    def getHost(self) -> Any:
        return self._address

    def stopListening(self) -> Any:
        self._note(f"close {self._name}")
        return succeed(None)


class Daemon:
    """A `ChatService` of fakes that write down what is done to them, in order."""

    def __init__(self, drain_seconds: float = 10) -> None:
        self.done: list[str] = []
        self.reactor: Any = MemoryReactorClock()
        self.opened: Deferred[None] = succeed(None)
        self.started: Deferred[None] = succeed(None)
        self.sent: Deferred[None] = succeed(None)
        self.listening: dict[str, Any] = {}
        self.ports: dict[str, Port] = {}
        self.lags: list[float] = []
        self.public = self.listener("tcp:80", IPv4Address("TCP", "127.0.0.1", 80))
        self.admin = self.listener("tcp:90", IPv4Address("TCP", "127.0.0.1", 90))
        self.readiness = SimpleNamespace(draining=False)
        self.parts = SimpleNamespace(
            store=SimpleNamespace(
                open=lambda: self.note("open store", self.opened),
                close=lambda: self.note("close store", succeed(None)),
                location="sqlite:/data/chatd.db",
            ),
            bus=SimpleNamespace(
                start=lambda _: self.note("start bus", self.started),
                stop=lambda: self.note("stop bus", succeed(None)),
            ),
            subscriber=object(),
            sweep=SimpleNamespace(
                start=lambda: self.note("start sweep"),
                stop=lambda: self.note("stop sweep", succeed(None)),
            ),
            notifier=SimpleNamespace(drain=self.drain),
            passwords=SimpleNamespace(stop=lambda: self.note("stop passwords")),
            accounts=SimpleNamespace(stop=lambda: self.note("stop accounts", succeed(None))),
            chats=SimpleNamespace(finished=lambda: self.note("sends", self.sent)),
            readiness=self.readiness,
            metrics=SimpleNamespace(lag=self.lags.append),
            public=[self.public],
            admin=[self.admin],
        )
        self.service = ChatService(self.parts, self.reactor, drain_seconds)  # type: ignore[arg-type]

    def note(self, what: str, answer: Any = None) -> Any:
        self.done.append(what)
        return answer

    def drain(self) -> None:
        self.note("drain polls, not ready" if self.readiness.draining else "drain polls")

    def listener(self, name: str, address: Any) -> Listener:
        def listen(_: object) -> Any:
            self.note(f"listen {name}")
            if name in self.listening:
                return self.listening[name]
            port = self.ports[name] = Port(self.note, name, address)
            return succeed(port)

        server: Any = SimpleNamespace(
            connections=0,
            drain=lambda: self.note(f"drain {name}"),
            abort_all=lambda: self.note(f"abort {name}"),
        )
        endpoint: Any = SimpleNamespace(listen=listen)
        return Listener(name, endpoint, server)

    def start(self) -> list[str]:
        """Start; returns what was logged."""
        return logged(self.service.startService)

    def stop(self) -> Deferred[None]:
        """Begin to stop."""
        self.done.clear()
        return self.service.stopService()


def logged(call: Callable[[], object]) -> list[str]:
    """The texts logged during a call."""
    texts: list[str] = []

    def observe(event: LogEvent) -> None:
        texts.append(formatEvent(event))

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    try:
        call()
    finally:
        globalLogPublisher.removeObserver(cast(ILogObserver, observe))
    return texts


STARTED = ["open store", "start bus", "listen tcp:80", "listen tcp:90", "start sweep"]
STOPPED = [
    *("close tcp:80", "drain polls, not ready", "drain tcp:80", "abort tcp:80", "sends"),
    *("stop sweep", "stop accounts", "stop passwords", "close tcp:90", "abort tcp:90"),
    *("stop bus", "close store"),
]


def test_the_start_is_in_order_and_ends_with_one_line() -> None:
    daemon = Daemon()
    [line] = daemon.start()
    assert daemon.done == STARTED
    assert line.endswith(
        "is listening on http://127.0.0.1:80, http://127.0.0.1:90 (admin),"
        " its data is in sqlite:/data/chatd.db"
    )
    result_of(daemon.stop())


def test_a_listener_gets_a_backlog_that_suits_a_server() -> None:
    daemon = Daemon()
    daemon.start()
    assert daemon.ports["tcp:80"].backlogs == [BACKLOG]
    assert BACKLOG >= 1024
    result_of(daemon.stop())


def test_the_stop_is_in_order() -> None:
    daemon = Daemon()
    daemon.start()
    result_of(daemon.stop())
    assert daemon.done == STOPPED
    assert daemon.reactor.getDelayedCalls() == []


def test_the_stop_waits_for_connections_until_its_deadline() -> None:
    daemon = Daemon(drain_seconds=3)
    daemon.start()
    server: Any = daemon.public.server
    server.connections = 2
    stopped = daemon.stop()
    daemon.reactor.pump([0.02] * 140)
    assert not stopped.called
    assert daemon.done == STOPPED[:3]
    daemon.reactor.pump([0.02] * 12)
    result_of(stopped)
    assert daemon.done == STOPPED


def test_a_stop_that_is_hurried_waits_for_no_connection_but_for_sends() -> None:
    daemon = Daemon(drain_seconds=60)
    daemon.start()
    server: Any = daemon.public.server
    server.connections = 2
    daemon.sent = Deferred()
    stopped = daemon.stop()
    daemon.reactor.advance(1)
    assert [len(logged(daemon.service.force_stop)) for _ in range(2)] == [1, 0]
    daemon.reactor.advance(LOOK_SECONDS)
    assert daemon.done == STOPPED[:5]
    assert not stopped.called
    daemon.sent.callback(None)
    result_of(stopped)
    assert daemon.done == STOPPED


def test_the_stop_goes_on_when_the_last_connection_has_gone() -> None:
    daemon = Daemon(drain_seconds=3)
    daemon.start()
    server: Any = daemon.public.server
    server.connections = 1
    stopped = daemon.stop()
    daemon.reactor.advance(1)
    server.connections = 0
    daemon.reactor.advance(0.02)
    result_of(stopped)


def test_the_stop_waits_for_sends_under_way() -> None:
    daemon = Daemon()
    daemon.start()
    daemon.sent = Deferred()
    stopped = daemon.stop()
    assert daemon.done[-1] == "sends"
    daemon.sent.callback(None)
    result_of(stopped)
    assert daemon.done == STOPPED


@pytest.mark.parametrize("step", ["sweep", "bus"])
def test_a_step_of_stopping_that_fails_does_not_keep_the_others(
    step: str, logged_failures: LoggedFailures
) -> None:
    daemon = Daemon()
    daemon.start()
    getattr(daemon.parts, step).stop = lambda: fail(OSError("no"))
    result_of(daemon.stop())
    assert daemon.done[-1] == "close store"
    assert [str(failure.value) for failure in logged_failures.flush(OSError)] == ["no"]


def test_a_daemon_that_never_listened_can_be_stopped() -> None:
    daemon = Daemon()
    result_of(daemon.stop())
    assert "close tcp:80" not in daemon.done
    assert daemon.done[-1] == "close store"


def refuse(code: int) -> CannotListenError:
    return CannotListenError("127.0.0.1", 80, OSError(code, "Address already in use"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (refuse(errno.EADDRINUSE), "Address already in use"),
        (CannotListenError("", 80, "odd"), "odd"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_a_bind_that_fails_ends_the_process_with_one_line(
    error: Exception, reason: str, logged_failures: LoggedFailures
) -> None:
    daemon = Daemon()
    daemon.listening["tcp:80"] = fail(error)
    with pytest.raises(SystemExit) as ended:
        daemon.start()
    assert ended.value.code == 1
    [line] = logged_failures.flush_messages()
    assert line == f"chatd cannot start: cannot listen on tcp:80: {reason}"


def test_a_store_that_fails_ends_the_process_with_one_line(
    logged_failures: LoggedFailures,
) -> None:
    daemon = Daemon()
    daemon.opened = fail(StartError("the database is in use"))
    with pytest.raises(SystemExit):
        daemon.start()
    assert daemon.done == ["open store"]
    assert logged_failures.flush_messages() == ["chatd cannot start: the database is in use"]


def test_a_fault_of_the_program_is_told_with_its_traceback(
    logged_failures: LoggedFailures,
) -> None:
    daemon = Daemon()
    daemon.started = fail(ZeroDivisionError("oops"))
    with pytest.raises(SystemExit) as ended:
        daemon.start()
    assert ended.value.code == 1
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_a_start_may_take_its_time() -> None:
    daemon = Daemon()
    daemon.opened = Deferred()
    daemon.start()
    assert daemon.done == ["open store"]
    daemon.opened.callback(None)
    assert daemon.done == STARTED
    result_of(daemon.stop())


def test_a_failure_under_the_running_reactor_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    daemon = Daemon()
    at_exit: list[Any] = []
    stops: list[int] = []
    monkeypatch.setattr(atexit, "register", lambda *args: at_exit.append(args))
    monkeypatch.setattr(daemon.reactor, "stop", lambda: stops.append(1))
    daemon.opened = Deferred()
    daemon.start()
    daemon.opened.errback(StartError("the database went away"))
    assert logged_failures.flush_messages() == ["chatd cannot start: the database went away"]
    assert stops == [1]
    [(end, *args)] = at_exit
    end(*args)
    assert exits == [1]


@pytest.mark.parametrize(
    ("description", "address", "url"),
    [
        ("tcp:80", IPv4Address("TCP", "0.0.0.0", 80), "http://0.0.0.0:80"),
        ("tcp:80", IPv6Address("TCP", "::1", 80), "http://[::1]:80"),
        ("ssl:443:x", IPv4Address("TCP", "127.0.0.1", 443), "https://127.0.0.1:443"),
        ("tls:443:x", IPv6Address("TCP", "::", 443), "https://[::]:443"),
        ("unix:/run/chatd.sock", UNIXAddress("/run/chatd.sock"), "unix:/run/chatd.sock"),
    ],
)
def test_the_first_line_tells_where(description: str, address: Any, url: str) -> None:
    daemon = Daemon()
    daemon.parts.public[:] = [daemon.listener(description, address)]
    daemon.parts.admin[:] = []
    [line] = daemon.start()
    assert f"is listening on {url}, its data" in line
    result_of(daemon.stop())


def test_a_port_without_a_socket_is_left_alone() -> None:
    daemon = Daemon()
    port = Port(daemon.note, "tcp:80", IPv4Address("TCP", "127.0.0.1", 80))
    del port.socket
    daemon.listening["tcp:80"] = succeed(port)
    daemon.start()
    result_of(daemon.stop())


def test_the_garbage_collector_is_governed_while_the_daemon_serves() -> None:
    daemon = Daemon()
    governed: list[bool] = []
    collector: Any = SimpleNamespace(
        start=lambda: governed.append(True), stop=lambda: governed.append(False)
    )
    service = ChatService(daemon.parts, daemon.reactor, 10, collector)  # type: ignore[arg-type]
    service.startService()
    assert governed == [True]
    result_of(service.stopService())
    assert governed == [True, False]


def test_a_late_timer_is_measured() -> None:
    daemon = Daemon()
    daemon.start()
    daemon.reactor.advance(LAG_SECONDS)
    daemon.reactor.advance(LAG_SECONDS + 0.5)
    assert daemon.lags == [0.0, 0.5]
    result_of(daemon.stop())


def test_only_what_is_critical_is_an_error(logged_failures: LoggedFailures) -> None:
    levels: list[Any] = []

    def observe(event: LogEvent) -> None:
        levels.append(event["log_level"])

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    try:
        daemon = Daemon()
        daemon.start()
        result_of(daemon.stop())
    finally:
        globalLogPublisher.removeObserver(cast(ILogObserver, observe))
    assert set(levels) == {LogLevel.info}
