"""Reference cycles are collected when memory has grown, or after a long time."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from chatd.process import gc_tuning
from chatd.process.gc_tuning import (
    FREEZE_SECONDS,
    GROWTH_BYTES,
    TRIM_SECONDS,
    WORTHWHILE_OBJECTS,
    YOUNG_OBJECTS,
    GCTuner,
    resident_bytes,
)

MIN_FULL_SECONDS = gc_tuning.MIN_FULL_SECONDS / 10
MAX_FULL_SECONDS = gc_tuning.MAX_FULL_SECONDS / 10
"""Fewer seconds to be counted than in the daemon."""


class Cycle:
    """An object that only the garbage collector frees."""

    def __init__(self) -> None:
        self.self = self


class Process:
    """A process with a tuned garbage collector, whose memory size the test sets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.resident = 100 << 20
        self.gc_tuner = GCTuner(self.clock, lambda: self.resident)
        self.gc_tuner.start()

    def cycle(self) -> weakref.ref[Cycle]:
        return weakref.ref(Cycle())

    def seconds_until_gone(self, cycle: weakref.ref[Cycle], most: float) -> float:
        began = self.clock.seconds()
        while cycle() is not None and self.clock.seconds() - began <= most:
            self.clock.advance(FREEZE_SECONDS)
        return self.clock.seconds() - began


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setattr(gc_tuning, "MIN_FULL_SECONDS", MIN_FULL_SECONDS)
    monkeypatch.setattr(gc_tuning, "MAX_FULL_SECONDS", MAX_FULL_SECONDS)
    # What earlier tests have left in frozen cycles would make the first collection worthwhile.
    gc.unfreeze()
    gc.collect()
    process = Process()
    yield process
    process.gc_tuner.stop()
    assert process.clock.getDelayedCalls() == []
    # As conftest does.
    gc.collect()
    gc.freeze()


def test_objects_without_cycles_are_freed_at_once(process: Process) -> None:
    held = [Cycle() for _ in range(3)]
    refs = [weakref.ref(each) for each in held]
    process.clock.advance(FREEZE_SECONDS)
    while held:
        held.pop().self = None  # type: ignore[assignment]
    assert [ref() for ref in refs] == [None] * 3


def test_few_new_objects_are_frozen_without_a_collection(process: Process) -> None:
    cycle = process.cycle()
    grown = [[] for _ in range(YOUNG_OBJECTS // 2)]  # type: ignore[var-annotated]
    process.clock.advance(FREEZE_SECONDS)
    assert cycle() is not None
    assert len(grown) == YOUNG_OBJECTS // 2


def test_many_new_objects_are_collected_before_they_are_frozen(process: Process) -> None:
    first = process.cycle()
    for _ in range(YOUNG_OBJECTS):
        Cycle()
    last = process.cycle()
    process.clock.advance(FREEZE_SECONDS)
    assert first() is None
    assert last() is None


def test_the_interval_of_full_collections_doubles_while_they_free_little(process: Process) -> None:
    waits: list[float] = []
    # Each looks at all that pytest holds.
    while len(waits) < 6:
        cycle = process.cycle()
        waits.append(process.seconds_until_gone(cycle, 2 * MAX_FULL_SECONDS))
    assert waits[:4] == [MIN_FULL_SECONDS * 2**power for power in range(4)]
    assert waits[-1] == MAX_FULL_SECONDS


def test_the_interval_is_reset_by_a_worthwhile_collection(process: Process) -> None:
    process.clock.advance(FREEZE_SECONDS)
    process.seconds_until_gone(process.cycle(), MAX_FULL_SECONDS)
    cycle = process.cycle()
    began = process.clock.seconds()
    for number in range(WORTHWHILE_OBJECTS):
        Cycle()
        # So few in a second are not collected.
        if number % (YOUNG_OBJECTS // 4) == 0:
            process.clock.advance(FREEZE_SECONDS)
    passed = process.clock.seconds() - began
    assert process.seconds_until_gone(cycle, MAX_FULL_SECONDS) == 2 * MIN_FULL_SECONDS - passed
    assert process.seconds_until_gone(process.cycle(), MAX_FULL_SECONDS) == MIN_FULL_SECONDS


def test_a_full_collection_takes_place_when_memory_has_grown(process: Process) -> None:
    cycle = process.cycle()
    process.resident += GROWTH_BYTES
    process.clock.advance(FREEZE_SECONDS)
    assert cycle() is not None
    process.resident += 1
    process.clock.advance(FREEZE_SECONDS)
    assert cycle() is None
    # Growth that the collection could not undo raises the limit.
    process.resident = 10 * GROWTH_BYTES
    process.clock.advance(FREEZE_SECONDS)
    cycle = process.cycle()
    process.resident = 15 * GROWTH_BYTES
    process.clock.advance(FREEZE_SECONDS)
    assert cycle() is not None
    process.resident += 1
    process.clock.advance(FREEZE_SECONDS)
    assert cycle() is None


def test_the_resident_memory_of_this_process_is_read() -> None:
    assert 1 << 20 < resident_bytes() < 1 << 40


@pytest.mark.parametrize(
    ("growth", "seconds"), [(GROWTH_BYTES + 1, FREEZE_SECONDS), (0, TRIM_SECONDS)]
)
def test_memory_that_was_freed_is_given_back(process: Process, growth: int, seconds: float) -> None:
    """After a full collection, and regularly."""
    # Small pieces, which malloc keeps, between others that stay.
    pieces = [ctypes.create_string_buffer(2000) for _ in range(20_000)]
    kept = pieces[::50]
    before = resident_bytes()
    del pieces
    process.resident += growth
    while process.clock.seconds() < seconds:
        assert before - resident_bytes() < 20 << 20
        process.clock.advance(FREEZE_SECONDS)
    assert before - resident_bytes() > 20 << 20
    assert len(kept) == 400
