"""Cyclic garbage is collected when memory has grown, or after long."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from chatd.process.gc_tuning import (
    ASIDE_SECONDS,
    FEW,
    FIRST_SECONDS,
    GROWTH_BYTES,
    LONGEST_SECONDS,
    MANY,
    GCTuner,
    resident_bytes,
)


class Circle:
    """What only a collector frees."""

    def __init__(self) -> None:
        self.self = self


class Process:
    """A process with a garbage collector, whose memory is as large as the test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.resident = 100 << 20
        self.collector = GCTuner(self.clock, lambda: self.resident)
        self.collector.start()

    def circle(self) -> weakref.ref[Circle]:
        return weakref.ref(Circle())

    def seconds_until_gone(self, circle: weakref.ref[Circle], most: float) -> float:
        began = self.clock.seconds()
        while circle() is not None and self.clock.seconds() - began <= most:
            self.clock.advance(ASIDE_SECONDS)
        return self.clock.seconds() - began


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.collector.stop()
    assert process.clock.getDelayedCalls() == []
    # As the tests have it.
    gc.collect()
    gc.freeze()


def test_what_has_no_circles_is_freed_at_once(process: Process) -> None:
    held = [Circle() for _ in range(3)]
    refs = [weakref.ref(each) for each in held]
    process.clock.advance(ASIDE_SECONDS)
    while held:
        held.pop().self = None  # type: ignore[assignment]
    assert [ref() for ref in refs] == [None] * 3


def test_what_grows_slowly_is_put_aside_unseen(process: Process) -> None:
    circle = process.circle()
    grown = [[] for _ in range(MANY // 2)]  # type: ignore[var-annotated]
    process.clock.advance(ASIDE_SECONDS)
    assert circle() is not None
    assert len(grown) == MANY // 2


def test_circles_that_come_in_numbers_are_collected_while_they_are_young(process: Process) -> None:
    first = process.circle()
    for _ in range(MANY):
        Circle()
    last = process.circle()
    process.clock.advance(ASIDE_SECONDS)
    assert first() is None
    assert last() is None


def test_everything_is_collected_seldom_and_then_more_seldom(process: Process) -> None:
    waits: list[float] = []
    while len(waits) < 8:
        circle = process.circle()
        waits.append(process.seconds_until_gone(circle, 2 * LONGEST_SECONDS))
    assert waits[:4] == [FIRST_SECONDS * 2**power for power in range(4)]
    assert waits[-1] == LONGEST_SECONDS


def test_it_is_collected_sooner_again_when_it_was_worth_it(process: Process) -> None:
    process.clock.advance(ASIDE_SECONDS)
    process.seconds_until_gone(process.circle(), LONGEST_SECONDS)
    circle = process.circle()
    for _ in range(FEW):
        Circle()
    assert process.seconds_until_gone(circle, LONGEST_SECONDS) == 2 * FIRST_SECONDS
    assert process.seconds_until_gone(process.circle(), LONGEST_SECONDS) == FIRST_SECONDS


def test_garbage_that_fills_the_memory_is_collected_at_once(process: Process) -> None:
    circle = process.circle()
    process.resident += GROWTH_BYTES
    process.clock.advance(ASIDE_SECONDS)
    assert circle() is not None
    process.resident += 1
    process.clock.advance(ASIDE_SECONDS)
    assert circle() is None
    # What has grown for good is the measure from now on.
    process.resident = 10 * GROWTH_BYTES
    process.clock.advance(ASIDE_SECONDS)
    circle = process.circle()
    process.resident = 15 * GROWTH_BYTES
    process.clock.advance(ASIDE_SECONDS)
    assert circle() is not None
    process.resident += 1
    process.clock.advance(ASIDE_SECONDS)
    assert circle() is None


def test_the_memory_of_this_process_is_told() -> None:
    assert 1 << 20 < resident_bytes() < 1 << 40
