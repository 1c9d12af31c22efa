"""How a worker logs, and how it notices that its supervisor has exited."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest
from twisted.internet.error import ConnectionDone, ReactorNotRunning
from twisted.python.failure import Failure

from chatd.process.worker import ParentWatch


def test_standard_input_is_watched_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ParentWatch(SimpleNamespace(running=True))
    assert watch.fileno() == 0
    monkeypatch.setattr(os, "read", lambda descriptor, size: b"")
    assert isinstance(watch.doRead(), ConnectionDone)


def test_a_line_of_variables_has_the_settings_reloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    monkeypatch.setenv("CHATD_MAX_POLLS", "1")
    watch = ParentWatch(SimpleNamespace(running=True))
    received = [b'{"CHATD_MAX', b'_POLLS": "7"}\n{"CHATD_MAX_POLLS": "8"}\n{']
    monkeypatch.setattr(os, "read", lambda descriptor, size: received.pop(0))
    assert watch.doRead() is None
    assert (os.environ["CHATD_MAX_POLLS"], raised) == ("1", [])
    assert watch.doRead() is None
    assert (os.environ["CHATD_MAX_POLLS"], raised) == ("8", [signal.SIGHUP] * 2)


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
