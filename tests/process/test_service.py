"""The order in which the daemon starts and stops, and starts that fail."""

from __future__ import annotations

import atexit
import errno
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher

from chatd.errors import StartError
from chatd.process.listeners import Listener
from chatd.process.service import LAG_SECONDS, ChatService
from tests.conftest import LoggedFailures
from tests.doubles import logged, result_of


class Port:
    """A fake listening port."""

    def __init__(self, note: Callable[[str], None], name: str, address: Any) -> None:
        self._note, self._name, self._address = note, name, address

    def getHost(self) -> Any:
        return self._address

    def doRead(self) -> None:
        self._note(f"accept {self._name}")

    def stopListening(self) -> Any:
        self._note(f"close {self._name}")
        return succeed(None)


class Daemon:
    """A `ChatService` of fakes that record the calls made to them, in order."""

    def __init__(self, drain_seconds: float = 10) -> None:
        self.done: list[str] = []
        self.reactor: Any = MemoryReactorClock()
        self.opened: Deferred[None] = succeed(None)
        self.started: Deferred[None] = succeed(None)
        self.sent: Deferred[None] = succeed(None)
        self.listening: dict[str, Deferred[Any]] = {}
        self.clients_gone: Deferred[None] = succeed(None)
        self.lags: list[float] = []
        self.public = self.listener("tcp:80", IPv4Address("TCP", "127.0.0.1", 80))
        self.admin = self.listener("tcp:90", IPv4Address("TCP", "127.0.0.1", 90))
        self.readiness = SimpleNamespace(draining=False)
        self.components = SimpleNamespace(
            store=SimpleNamespace(
                open=lambda: self.note("open store", self.opened),
                close=lambda: self.note("close store", succeed(None)),
                location="sqlite:/data/chatd.db",
                check=lambda: succeed(None),
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
            notifier=SimpleNamespace(drain=self.drain, held=3),
            passwords=SimpleNamespace(stop=lambda: self.note("stop passwords")),
            erasures=SimpleNamespace(
                start=lambda: self.note("start erasures"),
                stop=lambda: self.note("stop erasures", succeed(None)),
            ),
            deliveries=SimpleNamespace(stop=lambda: self.note("stop deliveries", succeed(None))),
            accounts=SimpleNamespace(stop=lambda: self.note("stop accounts", succeed(None))),
            chats=SimpleNamespace(wait_idle=lambda: self.note("sends", self.sent)),
            readiness=self.readiness,
            metrics=SimpleNamespace(observe_lag=self.lags.append),
        )
        self.service = self.make(drain_seconds)

    def make(
        self,
        drain_seconds: float,
        gc_tuner: Any = None,
        manager: Any = None,
        lame_duck_seconds: float = 0,
    ) -> ChatService:
        components: Any = self.components
        return ChatService(
            components,
            self.reactor,
            public=[self.public],
            admin=[self.admin],
            drain_seconds=drain_seconds,
            gc_tuner=gc_tuner,
            manager=manager,
            lame_duck_seconds=lame_duck_seconds,
        )

    def note(self, what: str, result: Any = None) -> Any:
        self.done.append(what)
        return result

    def drain(self) -> None:
        self.note("drain polls, not ready" if self.readiness.draining else "drain polls")

    def listener(self, name: str, address: Any) -> Listener:
        def listen(_: object) -> Any:
            self.note(f"listen {name}")
            return self.listening.get(name) or succeed(Port(self.note, name, address))

        server: Any = SimpleNamespace(
            add_port=lambda port: None,
            wait_closed=lambda: self.clients_gone,
            drain=lambda: self.note(f"drain {name}"),
            abort_all=lambda: self.note(f"abort {name}"),
            connections=5,
        )
        endpoint: Any = SimpleNamespace(listen=listen)
        return Listener(name, endpoint, server)

    def start(self) -> list[str]:
        """Start; returns the lines that were logged."""
        return logged(self.service.startService)

    def stop(self) -> Deferred[None]:
        """Begin to stop; `done` then holds the steps of the stop only."""
        self.done.clear()
        return self.service.stopService()


STARTED = ["open store", "start bus", "listen tcp:80", "listen tcp:90"]
STARTED += ["start sweep", "start erasures"]
STOPPED = [
    *("accept tcp:80", "close tcp:80", "drain polls, not ready", "drain tcp:80", "abort tcp:80"),
    "sends",
    *(
        "stop sweep",
        "stop deliveries",
        "stop accounts",
        "stop erasures",
        "stop passwords",
        "close tcp:90",
        "abort tcp:90",
    ),
    *("stop bus", "close store"),
]


def test_starts_in_order_and_logs_one_line() -> None:
    daemon = Daemon()
    [line] = daemon.start()
    assert daemon.done == STARTED
    assert line.endswith(
        "is listening on http://127.0.0.1:80, http://127.0.0.1:90 (admin),"
        " its data is in sqlite:/data/chatd.db"
    )
    result_of(daemon.stop())


def test_stops_in_order() -> None:
    daemon = Daemon()
    daemon.start()
    result_of(daemon.stop())
    assert daemon.done == STOPPED
    assert daemon.reactor.getDelayedCalls() == []


def test_the_stop_waits_for_connections_until_its_deadline() -> None:
    daemon = Daemon(drain_seconds=3)
    daemon.start()
    daemon.clients_gone = Deferred()
    stopped = daemon.stop()
    daemon.reactor.advance(2.99)
    assert not stopped.called
    assert daemon.done == STOPPED[:4]
    daemon.reactor.advance(0.01)
    result_of(stopped)
    assert daemon.done == STOPPED
    assert daemon.reactor.getDelayedCalls() == []


def test_the_stop_continues_as_soon_as_the_last_connection_is_closed() -> None:
    daemon = Daemon(drain_seconds=3)
    daemon.start()
    daemon.clients_gone = Deferred()
    stopped = daemon.stop()
    daemon.reactor.advance(1)
    daemon.clients_gone.callback(None)
    result_of(stopped)
    assert daemon.done == STOPPED
    assert daemon.reactor.getDelayedCalls() == []


def test_a_forced_stop_waits_for_sends_but_not_for_connections() -> None:
    daemon = Daemon(drain_seconds=60)
    daemon.start()
    daemon.clients_gone = Deferred()
    daemon.sent = Deferred()
    stopped = daemon.stop()
    daemon.reactor.advance(1)
    assert daemon.done == STOPPED[:4]
    assert [len(logged(daemon.service.force_stop)) for _ in range(2)] == [1, 0]
    assert daemon.done == STOPPED[:6]
    assert not stopped.called
    daemon.sent.callback(None)
    result_of(stopped)
    assert daemon.done == STOPPED
    assert daemon.reactor.getDelayedCalls() == []


def test_a_stop_may_be_forced_while_ports_are_being_closed() -> None:
    daemon = Daemon(drain_seconds=60)
    closing: Deferred[None] = Deferred()
    port = Port(daemon.note, "tcp:80", IPv4Address("TCP", "127.0.0.1", 80))
    port.stopListening = lambda: closing  # type: ignore[method-assign]
    daemon.listening["tcp:80"] = succeed(port)
    daemon.start()
    daemon.clients_gone = Deferred()
    stopped = daemon.stop()
    daemon.service.force_stop()
    assert daemon.done == STOPPED[:1]
    closing.callback(None)
    result_of(stopped)
    assert daemon.done == [STOPPED[0], *STOPPED[2:]]


def test_a_lame_duck_accepts_for_some_seconds_more() -> None:
    daemon = Daemon()
    daemon.service = daemon.make(10, lame_duck_seconds=5)
    daemon.start()
    stopped = daemon.stop()
    assert daemon.readiness.draining
    daemon.reactor.advance(4.9)
    assert daemon.done == []
    daemon.reactor.advance(0.1)
    result_of(stopped)
    assert daemon.done == STOPPED
    assert daemon.reactor.getDelayedCalls() == []


def test_a_forced_stop_ends_the_lame_duck_time() -> None:
    daemon = Daemon()
    daemon.service = daemon.make(10, lame_duck_seconds=5)
    daemon.start()
    stopped = daemon.stop()
    daemon.service.force_stop()
    result_of(stopped)
    assert daemon.done == STOPPED
    assert daemon.reactor.getDelayedCalls() == []


def test_the_stop_waits_for_running_sends() -> None:
    daemon = Daemon()
    daemon.start()
    daemon.sent = Deferred()
    stopped = daemon.stop()
    assert daemon.done[-1] == "sends"
    daemon.sent.callback(None)
    result_of(stopped)
    assert daemon.done == STOPPED


@pytest.mark.parametrize("step", ["sweep", "bus"])
def test_a_failing_step_does_not_prevent_the_remaining_ones(
    step: str, logged_failures: LoggedFailures
) -> None:
    daemon = Daemon()
    daemon.start()
    getattr(daemon.components, step).stop = lambda: fail(OSError("no"))
    result_of(daemon.stop())
    assert daemon.done[-1] == "close store"
    assert [str(failure.value) for failure in logged_failures.flush(OSError)] == ["no"]


def test_a_daemon_that_was_never_started_can_be_stopped() -> None:
    daemon = Daemon()
    result_of(daemon.stop())
    assert "close tcp:80" not in daemon.done
    assert daemon.done[-1] == "close store"


def test_a_failing_bind_ends_the_process_with_one_line(logged_failures: LoggedFailures) -> None:
    daemon = Daemon()
    error = OSError(errno.EADDRINUSE, "Address already in use")
    daemon.listening["tcp:80"] = fail(CannotListenError("127.0.0.1", 80, error))
    with pytest.raises(SystemExit) as ended:
        daemon.start()
    assert ended.value.code == 1
    [line] = logged_failures.flush_messages()
    reason = "cannot listen on tcp:80: Address already in use"
    assert line == f"chatd cannot start: {reason}"
    # The parent of a daemonized process prints it.
    assert str(ended.value) == reason


def test_a_failing_store_ends_the_process_with_one_line(
    logged_failures: LoggedFailures,
) -> None:
    daemon = Daemon()
    daemon.opened = fail(StartError("the database is in use"))
    with pytest.raises(SystemExit):
        daemon.start()
    assert daemon.done == ["open store"]
    assert logged_failures.flush_messages() == ["chatd cannot start: the database is in use"]


def test_an_unexpected_error_is_logged_with_its_traceback(
    logged_failures: LoggedFailures,
) -> None:
    daemon = Daemon()
    daemon.started = fail(ZeroDivisionError("oops"))
    with pytest.raises(SystemExit) as ended:
        daemon.start()
    assert ended.value.code == 1
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_the_start_continues_when_the_store_has_opened() -> None:
    daemon = Daemon()
    daemon.opened = Deferred()
    daemon.start()
    assert daemon.done == ["open store"]
    daemon.opened.callback(None)
    assert daemon.done == STARTED
    result_of(daemon.stop())


def test_a_failure_while_the_reactor_runs_ends_the_process(
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


ANYWHERE = IPv4Address("TCP", "0.0.0.0", 80)
WARNING = "passwords and messages can be read on the network: "


def test_plain_http_that_other_machines_can_reach_is_warned_about_in_one_line() -> None:
    daemon = Daemon()
    daemon.service.public = [
        daemon.listener("tcp:80", ANYWHERE),
        daemon.listener("tcp:81:interface=127.0.0.1", IPv4Address("TCP", "127.0.0.1", 81)),
        daemon.listener("tcp:82:interface=192.0.2.1", IPv4Address("TCP", "192.0.2.1", 82)),
    ]
    _, warning = daemon.start()
    assert warning.startswith(f"{WARNING}http://0.0.0.0:80, http://192.0.2.1:82 accepts")
    assert "interface=127.0.0.1" in warning
    assert "ssl:" in warning
    result_of(daemon.stop())


def test_an_exposed_admin_listener_is_not_warned_about() -> None:
    # It serves neither passwords nor messages.
    daemon = Daemon()
    daemon.service.admin = [daemon.listener("tcp:90", ANYWHERE)]
    assert len(daemon.start()) == 1
    result_of(daemon.stop())


def test_the_garbage_collector_is_tuned_while_the_daemon_runs() -> None:
    daemon = Daemon()
    running: list[bool] = []
    collector: Any = SimpleNamespace(
        start=lambda: running.append(True), stop=lambda: running.append(False)
    )
    service = daemon.make(10, collector)
    service.startService()
    assert running == [True]
    result_of(service.stopService())
    assert running == [True, False]


def test_the_lag_of_the_reactor_is_measured() -> None:
    daemon = Daemon()
    daemon.start()
    daemon.reactor.advance(LAG_SECONDS)
    daemon.reactor.advance(LAG_SECONDS + 0.5)
    assert daemon.lags == [0.0, 0.5]
    result_of(daemon.stop())


def test_a_normal_run_logs_at_level_info_only(logged_failures: LoggedFailures) -> None:
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


def test_the_service_manager_is_told_when_it_is_ready_and_when_it_stops() -> None:
    daemon = Daemon()
    told: list[str] = []
    manager: Any = SimpleNamespace(
        watchdog_seconds=3.0,
        ready=lambda status: told.append(f"ready: {status}"),
        stopping=lambda: told.append("stopping"),
        alive=lambda status: told.append(f"alive: {status}"),
    )
    service = daemon.make(10, manager=manager)
    service.startService()
    status = "Serving: 5 connections, 3 polls held"
    assert told == [f"ready: {status}", f"alive: {status}"]
    daemon.reactor.advance(1)
    del told[:-1]
    assert told == [f"alive: {status}"]
    daemon.sent = Deferred()
    stopped = service.stopService()
    daemon.reactor.advance(1)
    assert told[1:] == ["stopping", f"alive: {status}"], "a slow stop is fed, too"
    daemon.sent.callback(None)
    result_of(stopped)
    assert daemon.reactor.getDelayedCalls() == []
