"""How a worker logs, and how it notices that its supervisor has exited."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ReactorNotRunning
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure

from chatd.process.worker import ParentWatch, log_observer


def test_lines_are_logged_to_standard_output_without_time(
    capfd: pytest.CaptureFixture[str],
) -> None:
    observer: Any = log_observer()
    globalLogPublisher.addObserver(observer)
    try:
        Logger(namespace="test").info("hello {name}", name="ünï")
    finally:
        globalLogPublisher.removeObserver(observer)
        observer._outFile.close()
    assert capfd.readouterr().out.strip() == "[test#info] hello ünï"


def test_standard_input_is_watched_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ParentWatch(SimpleNamespace(running=True))
    assert watch.fileno() == 0
    received = [b"ignored", b""]
    monkeypatch.setattr(os, "read", lambda descriptor, size: received.pop(0))
    assert watch.doRead() is None
    assert isinstance(watch.doRead(), ConnectionDone)


@pytest.mark.parametrize("running", [True, False])
def test_the_end_of_the_supervisor_stops_a_running_reactor(running: bool) -> None:
    stops: list[str] = []
    reactor = SimpleNamespace(running=running, stop=lambda: stops.append("stop"))
    ParentWatch(reactor).connectionLost(Failure(ConnectionDone()))
    assert stops == ["stop"] * running


def test_a_reactor_that_is_already_stopping_is_left_alone() -> None:
    def stop() -> None:
        raise ReactorNotRunning

    ParentWatch(SimpleNamespace(running=True, stop=stop)).connectionLost(Failure(ConnectionDone()))
