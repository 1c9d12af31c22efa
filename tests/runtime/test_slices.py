"""Work in slices."""

from __future__ import annotations

from twisted.internet.task import Clock

from chatd.runtime.slices import SLICE_SECONDS, in_slices


def test_what_a_turn_has_no_time_for_waits_for_the_next_ones() -> None:
    clock = Clock()
    handled: list[int] = []

    def handle(item: int) -> None:
        handled.append(item)
        clock.rightNow += SLICE_SECONDS / 2

    in_slices(clock, iter(range(5)), handle)
    assert handled == [0, 1]
    [call] = clock.getDelayedCalls()
    assert call.getTime() == clock.seconds()
    clock.advance(0)
    assert handled == [0, 1, 2, 3, 4]
    assert clock.getDelayedCalls() == []


def test_what_takes_no_time_is_done_at_once() -> None:
    clock = Clock()
    handled: list[int] = []
    in_slices(clock, iter(range(1000)), handled.append)
    assert handled == list(range(1000))
    assert clock.getDelayedCalls() == []
