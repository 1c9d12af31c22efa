"""A wall clock that is set."""

from __future__ import annotations

from twisted.internet.task import Clock

from chatd.runtime.clock_jumps import DAY_SECONDS, ClockJumps
from tests.doubles import logged

DAY = int(DAY_SECONDS) * 1_000_000


def test_a_clock_that_was_set_forward_is_doubted_for_a_day() -> None:
    clock = Clock()
    jumps = ClockJumps(clock.seconds)
    assert not jumps.doubts(0)
    clock.advance(DAY_SECONDS * 3)
    assert not jumps.doubts(3 * DAY)
    # By an hour, as in a time zone, and by a year.
    assert not jumps.doubts(3 * DAY + DAY // 24)
    lines = logged(lambda: jumps.doubts(368 * DAY))
    assert len(lines) == 1
    assert "set forward by 365 days" in lines[0]
    clock.advance(DAY_SECONDS - 1)
    assert jumps.doubts(369 * DAY)
    clock.advance(1)
    assert not jumps.doubts(369 * DAY)


def test_a_clock_that_is_set_right_again_is_believed() -> None:
    clock = Clock()
    jumps = ClockJumps(clock.seconds)
    jumps.doubts(0)
    assert jumps.doubts(365 * DAY)
    clock.advance(60)
    assert jumps.doubts(365 * DAY)
    assert not jumps.doubts(60_000_000)
