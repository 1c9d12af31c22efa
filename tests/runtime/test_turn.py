"""The time of a turn that several kinds of work share."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from chatd.runtime.turn import LEAST_SECONDS, WHOLE_SECONDS, Turn, turn_of


def test_what_begins_late_has_what_is_left() -> None:
    turn = Turn()
    turn.begin(10.0)
    most = WHOLE_SECONDS / 2
    assert turn.until(10.0, most) == 10.0 + most
    late = 10.0 + WHOLE_SECONDS - most / 2
    assert turn.until(late, most) == 10.0 + WHOLE_SECONDS
    # Nothing waits for ever behind what comes before it in each turn.
    assert turn.until(11.0, most) == pytest.approx(11.0 + LEAST_SECONDS)
    turn.begin(11.0)
    assert turn.until(11.0, most) == 11.0 + most


def test_without_a_beginning_each_has_its_own_limit() -> None:
    assert Turn().until(1000.0, 0.25) == 1000.25


def test_all_who_share_a_reactor_share_its_turn() -> None:
    one, other = Clock(), Clock()
    assert turn_of(one) is turn_of(one)
    assert turn_of(one) is not turn_of(other)
