"""What the service manager is told, and when."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from chatd.process.systemd import WATCHDOG_FEEDS, ServiceManager, Watchdog
from tests.conftest import LoggedFailures


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        yield manager


def received(manager: socket.socket) -> list[str]:
    """The lines of one datagram."""
    return manager.recv(4096).decode().split("\n")


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_states_are_told(tmp_path: Path, is_abstract: bool) -> None:
    path = f"chatd-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": "@" + path if is_abstract else path, "PATH": "/bin"}
    with listening("\0" + path if is_abstract else path) as manager:
        service = ServiceManager(environment, 1)
        service.ready("Serving")
        assert received(manager) == ["READY=1", "STATUS=Serving"]
        service.alive("Serving")
        assert received(manager) == ["WATCHDOG=1"]
        service.alive("Serving more")
        assert received(manager) == ["WATCHDOG=1", "STATUS=Serving more"]
        service.reloading()
        state, since = received(manager)
        assert state == "RELOADING=1"
        assert since.removeprefix("MONOTONIC_USEC=").isdigit()
        service.stopping()
        assert received(manager)[0] == "STOPPING=1"
    assert environment == {"PATH": "/bin"}, "children must not speak for the service"


def test_without_a_service_manager_nothing_is_told() -> None:
    service = ServiceManager({"WATCHDOG_USEC": "1000000"}, 1)
    service.ready("Serving")
    assert service.watchdog_seconds is None


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_that_of_this_process(
    variables: dict[str, str], seconds: float | None
) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/x", **variables}, 7).watchdog_seconds == seconds


def test_a_manager_that_is_gone_is_logged(tmp_path: Path, logged_failures: LoggedFailures) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}, 1).ready("Serving")
    assert logged_failures.flush() == []


class Manager:
    """A service manager whose watchdog waits three seconds."""

    watchdog_seconds: float | None = float(WATCHDOG_FEEDS)

    def __init__(self) -> None:
        self.fed: list[str] = []
        self.alive = self.fed.append


def test_a_check_that_ends_feeds_the_watchdog_and_one_that_hangs_does_not() -> None:
    manager: Any = Manager()
    clock = Clock()
    checks: list[Deferred[None]] = []
    results = iter([succeed(None), fail(OSError("disk full")), Deferred[None](), succeed(None)])

    def check() -> Deferred[None]:
        checks.append(next(results))
        return checks[-1]

    watchdog = Watchdog(manager, check, lambda: "fine", clock)
    watchdog.start()
    assert len(manager.fed) == 1
    clock.advance(1)
    assert len(manager.fed) == 2, "a restart does not empty the disk"
    clock.pump([1] * 10)
    assert (len(manager.fed), len(checks)) == (2, 3)
    checks[-1].callback(None)
    clock.advance(1)
    assert (len(manager.fed), len(checks)) == (4, 4)
    watchdog.stop()
    assert manager.fed[4:] == [""]
    assert clock.getDelayedCalls() == []


def test_a_check_that_ends_after_the_stop_feeds_nothing() -> None:
    manager: Any = Manager()
    checking: Deferred[None] = Deferred()
    watchdog = Watchdog(manager, lambda: checking, lambda: "fine", Clock())
    watchdog.start()
    watchdog.stop()
    checking.callback(None)
    assert manager.fed == [""]


def test_without_a_watchdog_nothing_is_checked() -> None:
    manager: Any = Manager()
    manager.watchdog_seconds = None
    watchdog = Watchdog(manager, lambda: pytest.fail("checked"), str, Clock())
    watchdog.start()
    watchdog.stop()
    assert manager.fed == []
