"""Steps in the background, and the pauses between them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.runtime.pace import MAX_PAUSE_SECONDS, PAUSE_FACTOR, Pace
from tests.doubles import result_of


class Steps:
    """Steps that end when the test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pace = Pace(self.clock)
        self.begun: list[Deferred[int]] = []

    def run(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self.pace.run(self._begin))

    def _begin(self) -> Deferred[int]:
        self.begun.append(Deferred())
        return self.begun[-1]


@pytest.fixture
def steps() -> Iterator[Steps]:
    steps = Steps()
    yield steps
    assert not steps.clock.getDelayedCalls()


@pytest.mark.parametrize("seconds", [0.25, 0.5])
def test_the_pause_after_a_step_depends_on_its_time(steps: Steps, seconds: float) -> None:
    first, second = steps.run(), steps.run()
    steps.clock.advance(seconds)
    steps.begun.pop().callback(7)
    assert result_of(first) == 7
    steps.clock.advance(PAUSE_FACTOR * seconds - 0.125)
    assert steps.begun == []
    steps.clock.advance(0.125)
    steps.begun.pop().callback(8)
    assert result_of(second) == 8
    # That one took no time.
    third = steps.run()
    steps.begun.pop().callback(9)
    assert result_of(third) == 9


def test_a_pause_has_an_end(steps: Steps) -> None:
    steps.run()
    steps.clock.advance(1000)
    steps.begun.pop().callback(1)
    second = steps.run()
    assert steps.begun == []
    steps.clock.advance(MAX_PAUSE_SECONDS - 0.125)
    assert steps.begun == []
    steps.clock.advance(0.125)
    steps.begun.pop().callback(2)
    assert result_of(second) == 2


def test_what_is_late_does_not_wait(steps: Steps) -> None:
    steps.run()
    steps.clock.advance(1)
    steps.begun.pop().callback(1)
    steps.clock.advance(PAUSE_FACTOR)
    steps.run()
    steps.begun.pop().callback(2)


def test_after_a_step_that_fails_others_go_on(steps: Steps) -> None:
    first, second = steps.run(), steps.run()
    steps.clock.advance(1)
    steps.begun.pop().errback(ValueError("full"))
    with pytest.raises(ValueError, match="full"):
        result_of(first)
    assert steps.begun == []
    steps.clock.advance(PAUSE_FACTOR)
    steps.begun.pop().callback(2)
    assert result_of(second) == 2


def test_at_the_end_nothing_is_paused(steps: Steps) -> None:
    steps.run()
    second = steps.run()
    steps.clock.advance(1)
    steps.begun.pop().callback(1)
    steps.pace.stop()
    steps.clock.advance(1)
    steps.begun.pop().callback(2)
    assert result_of(second) == 2
    third = steps.run()
    steps.begun.pop().callback(3)
    assert result_of(third) == 3
