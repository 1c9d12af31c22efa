"""Being told to stop once, and again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest
from twisted.internet.task import Clock

from chatd.process.signals import AGAIN_SECONDS, Signals

BOTH = (signal.SIGTERM, signal.SIGINT)


class Process(Clock):
    """The reactor of a running process, and what has come of the signals to it."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.shut_down: Callable[[], object]

    def addSystemEventTrigger(self, phase: str, event: str, call: Callable[[], object]) -> None:
        assert (phase, event) == ("before", "shutdown")
        self.shut_down = call

    def callFromThread(self, call: Callable[[], None]) -> None:
        self.callLater(0, call)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """What Twisted has installed."""
        self.done.append(signal.Signals(number).name)

    def force_stop(self) -> None:
        self.done.append("hurry")

    def after(self, seconds: float, number: signal.Signals) -> list[str]:
        """What was done in all once the signal has come."""
        self.advance(seconds)
        signal.raise_signal(number)
        self.advance(0)
        return self.done


@contextmanager
def running() -> Iterator[Process]:
    """A process that handles signals. No fixture: the tests' own reactor may start after those."""
    before = {number: signal.getsignal(number) for number in BOTH}
    process = Process()
    for number in BOTH:
        signal.signal(number, process.stop)
    Signals(process, process.force_stop).handle()
    try:
        yield process
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("second", BOTH)
@pytest.mark.parametrize("first", BOTH)
def test_the_first_stops_it_and_later_ones_hurry_it(
    first: signal.Signals, second: signal.Signals
) -> None:
    with running() as process:
        assert process.after(5, first) == [first.name]
        process.shut_down()
        assert process.after(AGAIN_SECONDS, second) == [first.name, "hurry"]
        assert process.after(0, first) == [first.name, "hurry", "hurry"]


def test_one_that_comes_together_with_the_first_is_the_same() -> None:
    with running() as process:
        process.after(0, signal.SIGINT)
        assert process.after(0, signal.SIGTERM) == ["SIGINT"]
        process.shut_down()
        assert process.after(AGAIN_SECONDS / 2, signal.SIGTERM) == ["SIGINT"]


def test_whatever_stopped_it_no_signal_stops_it_again() -> None:
    with running() as process:
        process.shut_down()
        assert process.after(0, signal.SIGTERM) == []
        assert process.after(AGAIN_SECONDS, signal.SIGTERM) == ["hurry"]


def test_a_signal_that_is_ignored_stays_so() -> None:
    with running() as process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Signals(process, process.force_stop).handle()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
