"""How a single wait begins and ends."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from chatd.domain.notifier import Waiter
from chatd.errors import Unauthorized
from chatd.model import WakeReason
from tests.domain.waiters import ANN, BOB, Waits
from tests.doubles import cancel, result_of


def test_it_implements_the_protocol_of_the_notifier() -> None:
    waiter: Waiter = Waits().add(ANN)
    assert not waiter.held


def test_a_wait_times_out() -> None:
    waits = Waits()
    _, wait = waits.hold(ANN, 30)
    waits.clock.advance(29.999)
    assert not wait.called
    waits.clock.advance(0.001)
    assert result_of(wait) is WakeReason.TIMEOUT
    waits.close_all()


def test_waking_cancels_the_timer() -> None:
    waits = Waits()
    _, wait = waits.hold(ANN)
    waits.notifier.wake([1])
    assert not waits.clock.getDelayedCalls()
    assert result_of(wait) is WakeReason.MESSAGE


def test_a_wake_up_before_the_wait_ends_it_at_once() -> None:
    waits = Waits()
    waiter = waits.add(ANN)
    assert waits.notifier.wake([1]) == 0
    assert waits.notifier.held_by_user() == {}
    assert result_of(waits.wait(waiter)) is WakeReason.MESSAGE
    # Only once: the next wait is held.
    again = waits.wait(waiter)
    assert not again.called
    assert waiter.held
    cancel(again)
    waits.close_all()


def test_a_wake_up_between_two_waits_ends_the_second_at_once() -> None:
    waits = Waits()
    waiter, wait = waits.hold(ANN)
    waits.notifier.wake([1])
    waits.notifier.wake([1])
    assert result_of(wait) is WakeReason.MESSAGE
    assert result_of(waits.wait(waiter)) is WakeReason.MESSAGE
    waits.close_all()


def test_events_before_the_waiter_was_created_do_not_concern_it() -> None:
    waits = Waits()
    waits.notifier.wake([1])
    waits.notifier.revoke(1, None)
    _, wait = waits.hold(ANN)
    assert not wait.called
    cancel(wait)
    waits.close_all()


def test_a_revocation_before_the_wait_overrides_messages() -> None:
    waits = Waits()
    waiter = waits.add(ANN)
    waits.notifier.wake([1])
    waits.notifier.revoke(1, None)
    waits.notifier.wake([1])
    with pytest.raises(Unauthorized):
        result_of(waits.wait(waiter))
    assert waits.notifier.held == 0
    waits.close_all()


def test_a_closed_waiter_is_not_woken() -> None:
    waits = Waits()
    waiter, wait = waits.hold(ANN)
    cancel(wait)
    waiter.close()
    waiter.close()
    assert waits.notifier.wake([1]) == 0
    waits.close_all()


def test_closing_a_waiter_leaves_others_of_the_user_waiting() -> None:
    waits = Waits()
    first, one = waits.hold(ANN)
    _, two = waits.hold(ANN)
    cancel(one)
    first.close()
    assert waits.notifier.wake([1]) == 1
    assert result_of(two) is WakeReason.MESSAGE
    waits.close_all()


def test_closing_a_held_waiter_releases_it_and_its_timer() -> None:
    waits = Waits()
    waiter, wait = waits.hold(ANN)
    waiter.close()
    assert waits.notifier.held == 0
    assert not waits.clock.getDelayedCalls()
    assert not wait.called
    cancel(wait)
    assert waits.notifier.held == 0


def test_cancelling_a_wait_releases_it_and_its_timer() -> None:
    waits = Waits()
    waiter, wait = waits.hold(ANN)
    wait.cancel()
    with pytest.raises(CancelledError):
        result_of(wait)
    assert waits.notifier.held == 0
    assert not waiter.held
    assert not waits.clock.getDelayedCalls()
    assert waits.notifier.wake([1]) == 0
    waits.close_all()


def test_waiters_may_be_closed_while_others_are_woken() -> None:
    waits = Waits()
    ended: list[WakeReason] = []

    def close_all(reason: WakeReason) -> None:
        ended.append(reason)
        for waiter in waits.waiters:
            waiter.close()

    waits.hold(ANN)[1].addCallback(close_all)
    waits.hold(ANN)[1].addCallback(close_all)
    waits.hold(BOB)[1].addCallback(close_all)
    waits.notifier.wake([1, 2])
    assert ended == [WakeReason.MESSAGE]
    waits.close_all()


def test_a_wait_begun_by_a_wake_up_is_held_until_the_next_one() -> None:
    waits = Waits()
    waiter, wait = waits.hold(ANN)
    again: list[Deferred[WakeReason]] = []
    wait.addCallback(lambda _: again.append(waits.wait(waiter)))
    waits.notifier.wake([1])
    assert not again[0].called
    waits.notifier.wake([1])
    assert result_of(again[0]) is WakeReason.MESSAGE
    waits.close_all()
