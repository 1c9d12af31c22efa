"""Delays that end when their owner stops."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.runtime.delays import Delays


def test_a_delay_lasts_as_long_as_wanted() -> None:
    clock = Clock()
    delay = Deferred.fromCoroutine(Delays(clock).wait(3))
    clock.advance(2.9)
    assert not delay.called
    clock.advance(0.1)
    assert delay.called


def test_all_delays_end_when_the_owner_stops() -> None:
    clock = Clock()
    delays = Delays(clock)
    running = [Deferred.fromCoroutine(delays.wait(seconds)) for seconds in (1, 60)]
    delays.stop()
    later = Deferred.fromCoroutine(delays.wait(60))
    assert all(each.called for each in (*running, later))
    assert clock.getDelayedCalls() == []
