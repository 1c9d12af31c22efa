"""The first signal stops the process, a later one forces the stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
from twisted.internet.task import Clock

from chatd.process.signals import REPEAT_SECONDS, Signals, on_signal

BOTH = (signal.SIGTERM, signal.SIGINT)


class Process(Clock):
    """The reactor of a running process; records what its signals caused."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.shut_down: Callable[[], object]
        # As a reactor of Twisted: the signal that it ends the process with.
        self._exitSignal: int | None = None

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> None:
        assert (phase, event) == ("before", "shutdown")
        self.shut_down = call

    def callFromThread(self, call: Callable[[], None]) -> None:
        self.callLater(0, call)

    def stop(self) -> None:
        self.done.append("SIGTERM")

    def twisted_handler(self, number: int, frame: FrameType | None) -> None:
        """The handler that Twisted has installed, which has the process end by the signal."""
        assert number == signal.SIGINT
        self.done.append(signal.Signals(number).name)

    def force_stop(self) -> None:
        self.done.append("force")

    def after(self, seconds: float, number: signal.Signals) -> list[str]:
        """Send the signal after some seconds; returns all that was done so far."""
        self.advance(seconds)
        signal.raise_signal(number)
        self.advance(0)
        return self.done


@contextmanager
def running() -> Iterator[Process]:
    """A process that handles signals. Not a fixture: the real reactor may start after fixtures."""
    before = {number: signal.getsignal(number) for number in BOTH}
    process = Process()
    for number in BOTH:
        signal.signal(number, process.twisted_handler)
    Signals(process, process.force_stop).install()
    try:
        yield process
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("second", BOTH)
@pytest.mark.parametrize("first", BOTH)
def test_the_first_signal_stops_and_later_ones_force_the_stop(
    first: signal.Signals, second: signal.Signals
) -> None:
    with running() as process:
        assert process.after(5, first) == [first.name]
        process.shut_down()
        assert process.after(REPEAT_SECONDS, second) == [first.name, "force"]
        assert process.after(0, first) == [first.name, "force", "force"]


def test_a_signal_shortly_after_the_first_is_ignored() -> None:
    with running() as process:
        process.after(0, signal.SIGINT)
        assert process.after(0, signal.SIGTERM) == ["SIGINT"]
        process.shut_down()
        assert process.after(REPEAT_SECONDS / 2, signal.SIGTERM) == ["SIGINT"]


def test_a_signal_during_a_shutdown_without_signal_forces_the_stop() -> None:
    with running() as process:
        process.shut_down()
        assert process.after(0, signal.SIGTERM) == []
        assert process.after(REPEAT_SECONDS, signal.SIGTERM) == ["force"]


def test_a_signal_before_the_handlers_are_installed_ends_the_process_with_status_0() -> None:
    with running() as process:
        process._exitSignal = signal.SIGTERM
        Signals(process, process.force_stop).install()
        assert process._exitSignal is None


def test_an_ignored_signal_stays_ignored() -> None:
    with running() as process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Signals(process, process.force_stop).install()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_signals_are_handled_in_the_reactor_even_before_it_runs() -> None:
    before = signal.getsignal(signal.SIGHUP)
    process = Process()
    try:
        on_signal(process, signal.SIGHUP, lambda: process.done.append("reload"))
        signal.raise_signal(signal.SIGHUP)
        assert process.done == []
        process.advance(0)
        assert process.done == ["reload"]
    finally:
        signal.signal(signal.SIGHUP, before)
