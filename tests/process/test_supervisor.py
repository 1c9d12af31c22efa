"""The supervisor of several workers, on a reactor with fake processes."""

from __future__ import annotations

import atexit
import json
import signal
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from chatd.config import ConfigError, Settings, load, to_environment
from chatd.process.logs import json_line, text_line
from chatd.process.service import LISTENING
from chatd.process.supervisor import KILL_SECONDS, STABLE_SECONDS, Supervisor, worker_settings
from tests.conftest import LoggedFailures
from tests.doubles import logged


def settings(**given: Any) -> Settings:
    names = {name.replace("_", "-"): value for name, value in given.items()}
    return load({"db": "postgresql:///d", "workers": 2, **names}, {})[0]


class Process:
    """A process that exits when the test tells it to."""

    def __init__(self, protocol: Any, env: dict[str, str]) -> None:
        self.protocol = protocol
        self.env = env
        self.signals: list[int] = []
        self.written = b""
        self.has_exited = False

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        assert descriptor == 0
        self.written += data

    def signalProcess(self, number: int) -> None:
        if self.has_exited:
            raise ProcessExitedAlready
        self.signals.append(number)

    def listen(self) -> None:
        """Log that it is listening, as a worker does."""
        event = {
            "log_format": LISTENING,
            "log_namespace": "chatd.process.service",
            "log_level": LogLevel.info,
            "version": "1.0",
            "urls": "http://x",
            "location": "y",
        }
        self.protocol.childDataReceived(1, json_line(event).encode())

    def end(self, status: int = 0, by: int | None = None) -> None:
        self.has_exited = True
        ended = ProcessTerminated(status, by) if status or by else ProcessDone(0)
        self.protocol.processEnded(Failure(ended))


class FakeReactor(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.stopped = 0

    def spawnProcess(self, protocol: Any, program: str, args: Any, *, env: Any, **_: Any) -> Any:
        self.processes.append(Process(protocol, env))
        return self.processes[-1]

    def addSystemEventTrigger(self, *_: object) -> None:
        """Ignore it: nothing here shuts down."""

    def stop(self) -> None:
        self.stopped += 1


def started(reactor: FakeReactor, **given: Any) -> Supervisor:
    supervisor = Supervisor(settings(**given), reactor, lambda: 0.999999)
    supervisor.startService()
    return supervisor


def test_settings_survive_a_round_trip_through_the_environment() -> None:
    given = settings(
        listen=["tcp:1", "ssl:2"],
        registration="closed",
        rate_limits="off",
        drain_seconds=2.5,
        trusted_proxies="10.0.0.0/8, ::1",
        allowed_hosts="chat.example, .b.example",
        cors_origins="https://app.example, http://localhost:5173",
        access_log="on",
        listen_db="host=x password=y",
        bus="nats://u:s3cret@h",
        directory="on",
        show_email="owner",
    )
    assert load({}, to_environment(given)) == (given, [])


def test_each_worker_has_its_own_admin_port() -> None:
    shared = settings(admin="tcp:9100:interface=::1", listen=["tcp:80"], workers=3)
    found = [worker_settings(shared, number) for number in (1, 2, 3)]
    assert [each.admin for each in found] == [
        f"tcp:{port}:interface=::1" for port in (9100, 9101, 9102)
    ]
    assert {each.listen for each in found} == {("tcp:80",)}
    assert {each.workers for each in found} == {1}
    assert worker_settings(settings(admin="tcp:port=9100"), 2).admin == "tcp:port=9101"
    assert worker_settings(settings(admin="tcp:0"), 2).admin == "tcp:0"
    assert worker_settings(settings(), 2).admin is None


@pytest.mark.parametrize(
    ("given", "culprit"),
    [
        ({"listen": ["unix:x"]}, "listen"),
        ({"listen": ["tcp:1", "systemd:domain=INET:index=0"]}, "listen"),
        ({"listen": ["ssl:1:privateKey=a b.pem"]}, "listen"),
        ({"admin": "unix:x"}, "admin"),
    ],
)
def test_endpoints_that_cannot_be_shared_are_refused(given: dict[str, Any], culprit: str) -> None:
    with pytest.raises(ConfigError, match=f"^{culprit}: "):
        Supervisor(settings(**given), FakeReactor(), lambda: 0.5)


def test_workers_get_the_settings_instead_of_the_variables_of_the_supervisor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHATD_WORKERS", "2")
    monkeypatch.setenv("CHATD_CONFIG", "/somewhere.toml")
    monkeypatch.setenv("OTHER", "kept")
    reactor = FakeReactor()
    supervisor = started(reactor, admin="tcp:9100")
    one, two = (process.env for process in reactor.processes)
    assert one["OTHER"] == "kept"
    assert (one["CHATD_WORKERS"], one["CHATD_DB"]) == ("1", "postgresql:///d")
    assert (one["CHATD_ADMIN"], two["CHATD_ADMIN"]) == ("tcp:9100", "tcp:9101")
    assert "CHATD_CONFIG" not in one
    supervisor.stopService()


def test_a_worker_that_exits_is_restarted_after_a_delay() -> None:
    reactor = FakeReactor()
    started(reactor)
    reactor.processes[0].listen()
    reactor.advance(STABLE_SECONDS)
    reactor.processes[0].end(1)
    assert len(reactor.processes) == 2
    reactor.advance(0.2)
    assert len(reactor.processes) == 3
    # The delay grows for a worker that exits at once.
    delays = []
    for _ in range(9):
        reactor.processes[-1].end(1)
        began, count = reactor.seconds(), len(reactor.processes)
        while len(reactor.processes) == count:
            reactor.advance(0.05)
        delays.append(round(reactor.seconds() - began, 2))
    assert delays == sorted(delays)
    assert 9 < delays[-1] < 11
    # It is short again after a worker that listened for a while, or was killed.
    reactor.processes[-1].listen()
    reactor.advance(STABLE_SECONDS)
    reactor.processes[-1].end(1)
    reactor.advance(0.2)
    assert len(reactor.processes) == 13
    reactor.processes[-1].end(by=signal.SIGKILL)
    reactor.advance(0.2)
    assert len(reactor.processes) == 14
    assert not reactor.stopped


def test_a_worker_that_exits_soon_after_it_listened_is_restarted_ever_later() -> None:
    reactor = FakeReactor()
    started(reactor)
    for _ in range(9):
        reactor.processes[-1].listen()
        reactor.processes[-1].end(1)
        reactor.advance(10)
    count = len(reactor.processes)
    reactor.processes[-1].end(1)
    reactor.advance(9)
    assert len(reactor.processes) == count
    assert not reactor.stopped


@pytest.mark.parametrize("seconds", [0.0, 2 * STABLE_SECONDS])
def test_the_supervisor_fails_if_no_worker_can_start(
    logged_failures: LoggedFailures, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Otherwise it would end this process, too, with that status and before other exit handlers.
    statuses: list[int] = []
    monkeypatch.setattr(atexit, "register", lambda _, status: statuses.append(status))
    reactor = FakeReactor()
    started(reactor)
    # On a busy machine a worker may need long to find that it cannot start.
    reactor.advance(seconds)
    reactor.processes[0].end(1)
    reactor.processes[1].end(1)
    assert reactor.stopped == 1
    assert not reactor.getDelayedCalls()
    assert logged_failures.flush_messages() == ["chatd cannot start: worker 1 ended with status 1"]
    assert statuses == [1]


def test_a_worker_killed_during_its_start_is_restarted() -> None:
    reactor = FakeReactor()
    started(reactor)
    reactor.processes[0].end(by=signal.SIGKILL)
    reactor.advance(0.2)
    assert len(reactor.processes) == 3
    assert not reactor.stopped


def test_stopping_terminates_all_workers_and_kills_slow_ones() -> None:
    reactor = FakeReactor()
    supervisor = started(reactor, drain_seconds=3)
    one, two = reactor.processes
    stopping = supervisor.stopService()
    assert one.signals == two.signals == [signal.SIGTERM]
    one.end()
    assert not fired(stopping)
    reactor.advance(3 + KILL_SECONDS)
    assert two.signals == [signal.SIGTERM, signal.SIGKILL]
    two.end(by=signal.SIGKILL)
    assert fired(stopping)
    assert not reactor.getDelayedCalls()


def test_a_forced_stop_terminates_workers_again_and_kills_them_sooner() -> None:
    reactor = FakeReactor()
    supervisor = started(reactor, drain_seconds=60)
    one, two = reactor.processes
    stopping = supervisor.stopService()
    one.end()
    reactor.advance(2)
    supervisor.force_stop()
    assert one.signals == [signal.SIGTERM]
    assert two.signals == [signal.SIGTERM, signal.SIGTERM]
    reactor.advance(KILL_SECONDS - 1)
    supervisor.force_stop()
    reactor.advance(1)
    assert two.signals == [signal.SIGTERM] * 3 + [signal.SIGKILL]
    supervisor.force_stop()
    two.end(by=signal.SIGKILL)
    assert fired(stopping)
    assert not reactor.getDelayedCalls()


def test_stopping_cancels_pending_restarts() -> None:
    reactor = FakeReactor()
    supervisor = started(reactor)
    one, two = reactor.processes
    one.listen()
    one.end(1)
    two.has_exited = True
    stopping = supervisor.stopService()
    two.end()
    assert fired(stopping)
    assert not reactor.getDelayedCalls()


def fired(deferred: Deferred[Any]) -> bool:
    return bool(deferred.called)


def logged_by(protocol: Any, *received: bytes) -> list[LogEvent]:
    """The events that the supervisor logs when it receives these bytes."""
    events: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        events.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        for data in received:
            protocol.childDataReceived(1, data)
    finally:
        globalLogPublisher.removeObserver(observe)
    return events


def test_a_worker_keeps_its_own_time_and_level() -> None:
    reactor = FakeReactor()
    started(reactor)
    event = {
        "log_format": "{what} {{x}}",
        "what": "trouble",
        "log_namespace": "chatd.store",
        "log_level": LogLevel.warn,
        "log_time": 1_767_225_600.25,
    }
    line = json_line(event).encode()
    [logged] = logged_by(reactor.processes[1].protocol, line[:20], line[20:])
    assert (logged["log_level"], logged["log_time"]) == (LogLevel.warn, 1_767_225_600.25)
    text = text_line(logged)
    assert text is not None
    assert text.endswith("[chatd.store#warn, worker 2] trouble {x}\n")


def test_what_a_worker_prints_is_logged_by_lines() -> None:
    reactor = FakeReactor()
    started(reactor)
    protocol = reactor.processes[1].protocol
    events = logged_by(protocol, b" first\nsec", b"ond {x} \xff\n[1]\n{}\n")
    assert [formatEvent(event) for event in events] == [
        "worker 2: first",
        "worker 2: second {x} \ufffd",
        "worker 2: [1]",
        "worker 2: {}",
    ]
    protocol.childDataReceived(1, b"rest")
    ended = Failure(ProcessTerminated(0, signal.SIGTERM))
    assert logged(lambda: protocol.processEnded(ended)) == [
        "worker 2: rest",
        "worker 2 was ended by SIGTERM and is started again",
    ]


def test_workers_take_new_settings_now_and_when_they_are_started_again() -> None:
    reactor = FakeReactor()
    supervisor = started(reactor)
    supervisor.reconfigure(settings(max_polls=7, log_level="error"))
    for number, process in enumerate(reactor.processes, 1):
        variables = json.loads(process.written)
        assert variables["CHATD_MAX_POLLS"] == "7"
        assert variables["CHATD_LOG_LEVEL"] == "info", "the supervisor has to see that it listens"
        assert variables["CHATD_LOG_FORMAT"] == "json"
        assert process.written.count(b"\n") == 1, number
    one = reactor.processes[0]
    one.listen()
    one.end(by=signal.SIGKILL)
    reactor.advance(10)
    assert reactor.processes[2].env["CHATD_MAX_POLLS"] == "7"


def test_the_service_is_ready_when_all_workers_listen() -> None:
    reactor = FakeReactor()
    told: list[str] = []
    manager: Any = SimpleNamespace(
        watchdog_seconds=3.0,
        ready=told.append,
        stopping=lambda: told.append("stopping"),
        alive=told.append,
    )
    supervisor = Supervisor(settings(), reactor, lambda: 0.5, manager)
    supervisor.startService()
    one, two = reactor.processes
    one.listen()
    assert told == []
    two.listen()
    serving = "2 of 2 workers serve"
    assert told == [serving, serving]
    one.end(by=signal.SIGKILL)
    reactor.advance(1)
    assert told[-1] == "1 of 2 workers serve"
    reactor.processes[2].listen()
    assert len(told) == 3
    stopping = supervisor.stopService()
    assert told[-1] == "stopping"
    two.end()
    reactor.processes[2].end()
    assert fired(stopping)
    assert not reactor.getDelayedCalls()
