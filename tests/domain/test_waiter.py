"""How a single wait begins and ends."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from chatd.domain.notifier import Waiter
from chatd.errors import Unauthorized
from chatd.model import WakeReason
from tests.domain.waiters import ANN, BOB, WaiterHarness
from tests.doubles import cancel, result_of


def test_it_implements_the_protocol_of_the_notifier() -> None:
    waiter: Waiter = WaiterHarness().add(ANN)
    assert not waiter.held


def test_a_wait_times_out() -> None:
    harness = WaiterHarness()
    _, wait = harness.hold(ANN, 30)
    harness.clock.advance(29.999)
    assert not wait.called
    harness.clock.advance(0.001)
    assert result_of(wait) is WakeReason.TIMEOUT
    harness.close_all()


def test_waking_cancels_the_timer() -> None:
    harness = WaiterHarness()
    _, wait = harness.hold(ANN)
    harness.notifier.wake([1])
    assert not harness.clock.getDelayedCalls()
    assert result_of(wait) is WakeReason.MESSAGE


def test_a_wake_up_before_the_wait_ends_it_at_once() -> None:
    harness = WaiterHarness()
    waiter = harness.add(ANN)
    assert harness.notifier.wake([1]) == 0
    assert harness.notifier.held_by_user() == {}
    assert result_of(harness.wait(waiter)) is WakeReason.MESSAGE
    # Only once: the next wait is held.
    again = harness.wait(waiter)
    assert not again.called
    assert waiter.held
    cancel(again)
    harness.close_all()


def test_a_wake_up_between_two_waits_ends_the_second_at_once() -> None:
    harness = WaiterHarness()
    waiter, wait = harness.hold(ANN)
    harness.notifier.wake([1])
    harness.notifier.wake([1])
    assert result_of(wait) is WakeReason.MESSAGE
    assert result_of(harness.wait(waiter)) is WakeReason.MESSAGE
    harness.close_all()


def test_events_before_the_waiter_was_created_do_not_concern_it() -> None:
    harness = WaiterHarness()
    harness.notifier.wake([1])
    harness.notifier.revoke(1, None)
    _, wait = harness.hold(ANN)
    assert not wait.called
    cancel(wait)
    harness.close_all()


def test_a_revocation_before_the_wait_overrides_messages() -> None:
    harness = WaiterHarness()
    waiter = harness.add(ANN)
    harness.notifier.wake([1])
    harness.notifier.revoke(1, None)
    harness.notifier.wake([1])
    with pytest.raises(Unauthorized):
        result_of(harness.wait(waiter))
    assert harness.notifier.held == 0
    harness.close_all()


def test_a_closed_waiter_is_not_woken() -> None:
    harness = WaiterHarness()
    waiter, wait = harness.hold(ANN)
    cancel(wait)
    waiter.close()
    waiter.close()
    assert harness.notifier.wake([1]) == 0
    harness.close_all()


def test_closing_a_waiter_leaves_others_of_the_user_waiting() -> None:
    harness = WaiterHarness()
    first, one = harness.hold(ANN)
    _, two = harness.hold(ANN)
    cancel(one)
    first.close()
    assert harness.notifier.wake([1]) == 1
    assert result_of(two) is WakeReason.MESSAGE
    harness.close_all()


def test_closing_a_held_waiter_releases_it_and_its_timer() -> None:
    harness = WaiterHarness()
    waiter, wait = harness.hold(ANN)
    waiter.close()
    assert harness.notifier.held == 0
    assert not harness.clock.getDelayedCalls()
    assert not wait.called
    cancel(wait)
    assert harness.notifier.held == 0


def test_cancelling_a_wait_releases_it_and_its_timer() -> None:
    harness = WaiterHarness()
    waiter, wait = harness.hold(ANN)
    wait.cancel()
    with pytest.raises(CancelledError):
        result_of(wait)
    assert harness.notifier.held == 0
    assert not waiter.held
    assert not harness.clock.getDelayedCalls()
    assert harness.notifier.wake([1]) == 0
    harness.close_all()


def test_waiters_may_be_closed_while_others_are_woken() -> None:
    harness = WaiterHarness()
    ended: list[WakeReason] = []

    def close_all(reason: WakeReason) -> None:
        ended.append(reason)
        for waiter in harness.waiters:
            waiter.close()

    harness.hold(ANN)[1].addCallback(close_all)
    harness.hold(ANN)[1].addCallback(close_all)
    harness.hold(BOB)[1].addCallback(close_all)
    harness.notifier.wake([1, 2])
    assert ended == [WakeReason.MESSAGE]
    harness.close_all()


def test_a_wait_begun_by_a_wake_up_is_held_until_the_next_one() -> None:
    harness = WaiterHarness()
    waiter, wait = harness.hold(ANN)
    again: list[Deferred[WakeReason]] = []
    wait.addCallback(lambda _: again.append(harness.wait(waiter)))
    harness.notifier.wake([1])
    assert not again[0].called
    harness.notifier.wake([1])
    assert result_of(again[0]) is WakeReason.MESSAGE
    harness.close_all()
