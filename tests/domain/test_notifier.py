"""Which waiters are woken, and the limits on how many are held."""

from __future__ import annotations

import pytest

from chatd.domain.notifier import HELD_PER_USER
from chatd.errors import Unauthorized
from chatd.model import Session, WakeReason
from tests.domain.waiters import ANN, ANN_BASIC, BOB, Waits
from tests.doubles import cancel, result_of


def test_a_message_wakes_all_waiters_of_its_recipient() -> None:
    waits = Waits()
    _, ann = waits.hold(ANN)
    _, also_ann = waits.hold(ANN_BASIC)
    _, bob = waits.hold(BOB)
    assert waits.notifier.held == 3
    assert waits.notifier.wake([1]) == 2
    assert result_of(ann) is result_of(also_ann) is WakeReason.MESSAGE
    assert not bob.called
    assert waits.notifier.held == 1
    cancel(bob)
    waits.close_all()


def test_waking_users_without_waiters_does_nothing() -> None:
    waits = Waits()
    assert waits.notifier.wake([1, 2, 3]) == 0
    assert waits.notifier.wake([]) == 0
    assert waits.notifier.wake_all() == 0
    waits.notifier.revoke(1, None)
    waits.notifier.drain()


def test_all_waiters_can_be_woken() -> None:
    waits = Waits()
    _, ann = waits.hold(ANN)
    _, bob = waits.hold(BOB)
    assert waits.notifier.wake_all() == 2
    assert result_of(ann) is result_of(bob) is WakeReason.MESSAGE
    waits.close_all()


def test_beyond_the_limit_per_user_the_oldest_waiter_is_superseded() -> None:
    waits = Waits()
    _, bob = waits.hold(BOB)
    held = [waits.hold(ANN)[1] for _ in range(HELD_PER_USER)]
    assert not any(wait.called for wait in held)
    for number in range(3):
        held.append(waits.hold(ANN)[1])
        assert result_of(held[number]) is WakeReason.SUPERSEDED
        assert sum(wait.called for wait in held) == number + 1
        assert waits.notifier.held == HELD_PER_USER + 1
    assert not bob.called
    assert waits.notifier.wake([1]) == HELD_PER_USER
    cancel(bob)
    waits.close_all()


def test_the_oldest_waiter_is_the_one_created_first_not_the_one_held_longest() -> None:
    waits = Waits()
    oldest, wait = waits.hold(ANN)
    held = [waits.hold(ANN)[1] for _ in range(HELD_PER_USER - 1)]
    waits.notifier.wake([1])
    assert all(result_of(each) is WakeReason.MESSAGE for each in [wait, *held])
    held = [waits.wait(waiter) for waiter in waits.waiters[1:]]
    again = waits.wait(oldest)
    _, newest = waits.hold(ANN)
    assert result_of(again) is WakeReason.SUPERSEDED
    assert not any(each.called for each in [*held, newest])
    for each in [*held, newest]:
        cancel(each)
    waits.close_all()


def test_waiters_that_are_not_held_do_not_count_towards_the_limit_per_user() -> None:
    waits = Waits()
    reading = [waits.add(ANN) for _ in range(5)]
    held = [waits.hold(ANN)[1] for _ in range(HELD_PER_USER)]
    assert not any(wait.called for wait in held)
    waits.hold(ANN)
    assert result_of(held[0]) is WakeReason.SUPERSEDED
    # It was created first, so it is the oldest as soon as it waits.
    assert result_of(waits.wait(reading[0])) is WakeReason.SUPERSEDED
    assert waits.notifier.held == HELD_PER_USER
    waits.close_all()


def test_beyond_the_limit_of_the_process_a_wait_ends_at_once() -> None:
    waits = Waits(max_held=2)
    _, ann = waits.hold(ANN)
    _, bob = waits.hold(BOB)
    _, more = waits.hold(BOB)
    assert result_of(more) is WakeReason.OVERLOAD
    assert waits.notifier.held == 2
    assert len(waits.clock.getDelayedCalls()) == 2
    waits.notifier.wake([1])
    assert result_of(ann) is WakeReason.MESSAGE
    _, again = waits.hold(ANN)
    assert not again.called
    cancel(bob)
    cancel(again)
    waits.close_all()


def test_revoking_a_token_ends_only_the_waits_that_use_it() -> None:
    waits = Waits()
    _, mine = waits.hold(ANN)
    _, basic = waits.hold(ANN_BASIC)
    _, other = waits.hold(Session(1, b"another token"))
    _, bob = waits.hold(BOB)
    waits.notifier.revoke(1, b"ann's token")
    with pytest.raises(Unauthorized):
        result_of(mine)
    assert waits.notifier.held == 3
    assert not any(wait.called for wait in (basic, other, bob))
    for wait in (basic, other, bob):
        cancel(wait)
    waits.close_all()


def test_revoking_an_account_ends_all_its_waits() -> None:
    waits = Waits()
    mine = [waits.hold(session)[1] for session in (ANN, ANN_BASIC)]
    _, bob = waits.hold(BOB)
    waits.notifier.revoke(1, None)
    for wait in mine:
        with pytest.raises(Unauthorized):
            result_of(wait)
    assert not bob.called
    cancel(bob)
    waits.close_all()


def test_draining_ends_current_and_future_waits() -> None:
    waits = Waits()
    reading = waits.add(ANN)
    _, ann = waits.hold(ANN)
    _, bob = waits.hold(BOB)
    waits.notifier.drain()
    assert result_of(ann) is result_of(bob) is WakeReason.DRAIN
    assert result_of(waits.wait(reading)) is WakeReason.DRAIN
    assert result_of(waits.hold(BOB)[1]) is WakeReason.DRAIN
    waits.close_all()


def test_a_message_before_the_drain_is_reported_first() -> None:
    waits = Waits()
    waiter = waits.add(ANN)
    waits.notifier.wake([1])
    waits.notifier.drain()
    assert result_of(waits.wait(waiter)) is WakeReason.MESSAGE
    assert result_of(waits.wait(waiter)) is WakeReason.DRAIN
    waits.close_all()


def test_held_waiters_are_listed_by_user() -> None:
    waits = Waits()
    first, one = waits.hold(ANN)
    second, two = waits.hold(ANN)
    third, three = waits.hold(BOB)
    waits.add(Session(3))
    assert waits.notifier.held_by_user() == {1: [first, second], 2: [third]}
    cancel(one)
    cancel(three)
    assert waits.notifier.held_by_user() == {1: [second]}
    cancel(two)
    waits.close_all()


def test_tokens_are_listed_once_each() -> None:
    waits = Waits()
    for session in (ANN, ANN, ANN_BASIC, BOB):
        waits.add(session)
    assert sorted(waits.notifier.tokens()) == [(1, b"ann's token"), (2, b"bob's token")]
    waits.close_all()
