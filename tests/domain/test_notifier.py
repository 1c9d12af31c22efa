"""Which waiters are woken, and the limits on how many are held."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from zope.interface import implementer

from chatd.domain.notifier import HELD_PER_USER, Notifier
from chatd.domain.session_expiry import SessionExpiry
from chatd.errors import Unauthorized
from chatd.interfaces import IInterest
from chatd.model import Session, WakeReason
from tests.domain.waiters import ANN, ANN_BASIC, BOB, DeferredWaiter, WaiterHarness
from tests.doubles import Now, cancel, result_of


def test_a_message_wakes_all_waiters_of_its_recipient() -> None:
    harness = WaiterHarness()
    _, ann = harness.hold(ANN)
    _, also_ann = harness.hold(ANN_BASIC)
    _, bob = harness.hold(BOB)
    assert harness.notifier.held == 3
    assert harness.notifier.wake([1]) == 2
    assert result_of(ann) is result_of(also_ann) is WakeReason.MESSAGE
    assert not bob.called
    assert harness.notifier.held == 1
    cancel(bob)
    harness.close_all()


def test_waking_users_without_waiters_does_nothing() -> None:
    harness = WaiterHarness()
    assert harness.notifier.wake([1, 2, 3]) == 0
    assert harness.notifier.wake([]) == 0
    assert harness.notifier.wake_all() == 0
    harness.notifier.revoke(1, None)
    harness.notifier.drain()


def test_all_waiters_can_be_woken() -> None:
    harness = WaiterHarness()
    _, ann = harness.hold(ANN)
    _, bob = harness.hold(BOB)
    assert harness.notifier.wake_all() == 2
    assert result_of(ann) is result_of(bob) is WakeReason.MESSAGE
    harness.close_all()


def test_beyond_the_limit_per_user_the_oldest_waiter_is_superseded() -> None:
    harness = WaiterHarness()
    _, bob = harness.hold(BOB)
    held = [harness.hold(ANN)[1] for _ in range(HELD_PER_USER)]
    assert not any(wait.called for wait in held)
    for number in range(3):
        held.append(harness.hold(ANN)[1])
        assert result_of(held[number]) is WakeReason.SUPERSEDED
        assert sum(wait.called for wait in held) == number + 1
        assert harness.notifier.held == HELD_PER_USER + 1
    assert not bob.called
    assert harness.notifier.wake([1]) == HELD_PER_USER
    cancel(bob)
    harness.close_all()


def test_the_oldest_waiter_is_the_one_created_first_not_the_one_held_longest() -> None:
    harness = WaiterHarness()
    oldest, wait = harness.hold(ANN)
    held = [harness.hold(ANN)[1] for _ in range(HELD_PER_USER - 1)]
    harness.notifier.wake([1])
    assert all(result_of(each) is WakeReason.MESSAGE for each in [wait, *held])
    held = [harness.wait(waiter) for waiter in harness.waiters[1:]]
    again = harness.wait(oldest)
    _, newest = harness.hold(ANN)
    assert result_of(again) is WakeReason.SUPERSEDED
    assert not any(each.called for each in [*held, newest])
    for each in [*held, newest]:
        cancel(each)
    harness.close_all()


def test_waiters_that_are_not_held_do_not_count_towards_the_limit_per_user() -> None:
    harness = WaiterHarness()
    reading = [harness.add(ANN) for _ in range(5)]
    held = [harness.hold(ANN)[1] for _ in range(HELD_PER_USER)]
    assert not any(wait.called for wait in held)
    harness.hold(ANN)
    assert result_of(held[0]) is WakeReason.SUPERSEDED
    # It was created first, so it is the oldest as soon as it waits.
    assert result_of(harness.wait(reading[0])) is WakeReason.SUPERSEDED
    assert harness.notifier.held == HELD_PER_USER
    harness.close_all()


def test_who_has_none_displaces_one_of_a_user_who_has_several() -> None:
    harness = WaiterHarness(max_held=3)
    held = [harness.hold(ANN)[1] for _ in range(3)]
    _, bob = harness.hold(BOB)
    assert [each.called for each in [*held, bob]] == [True, False, False, False]
    assert result_of(held[0]) is WakeReason.OVERLOAD
    _, more = harness.hold(BOB)
    assert result_of(more) is WakeReason.OVERLOAD
    _, cat = harness.hold(Session(3))
    assert result_of(held[1]) is WakeReason.OVERLOAD
    # Everybody has one now.
    _, dan = harness.hold(Session(4))
    assert result_of(dan) is WakeReason.OVERLOAD
    assert harness.notifier.held == 3
    for each in (held[2], bob, cat):
        cancel(each)
    harness.close_all()
    assert not harness.notifier._crowded


def test_beyond_the_limit_of_the_process_a_wait_ends_at_once() -> None:
    harness = WaiterHarness(max_held=2)
    _, ann = harness.hold(ANN)
    _, bob = harness.hold(BOB)
    _, more = harness.hold(BOB)
    assert result_of(more) is WakeReason.OVERLOAD
    assert harness.notifier.held == 2
    assert len(harness.clock.getDelayedCalls()) == 2
    harness.notifier.wake([1])
    assert result_of(ann) is WakeReason.MESSAGE
    _, again = harness.hold(ANN)
    assert not again.called
    cancel(bob)
    cancel(again)
    harness.close_all()


def test_revoking_a_token_ends_only_the_waits_that_use_it() -> None:
    harness = WaiterHarness()
    _, mine = harness.hold(ANN)
    _, basic = harness.hold(ANN_BASIC)
    _, other = harness.hold(Session(1, b"another token"))
    _, bob = harness.hold(BOB)
    harness.notifier.revoke(1, b"ann's token")
    with pytest.raises(Unauthorized):
        result_of(mine)
    assert harness.notifier.held == 3
    assert not any(wait.called for wait in (basic, other, bob))
    for wait in (basic, other, bob):
        cancel(wait)
    harness.close_all()


def test_revoking_an_account_ends_all_its_waits() -> None:
    harness = WaiterHarness()
    mine = [harness.hold(session)[1] for session in (ANN, ANN_BASIC)]
    _, bob = harness.hold(BOB)
    harness.notifier.revoke(1, None)
    for wait in mine:
        with pytest.raises(Unauthorized):
            result_of(wait)
    assert not bob.called
    cancel(bob)
    harness.close_all()


def test_draining_ends_current_and_future_waits() -> None:
    harness = WaiterHarness()
    reading = harness.add(ANN)
    _, ann = harness.hold(ANN)
    _, bob = harness.hold(BOB)
    harness.notifier.drain()
    assert result_of(ann) is result_of(bob) is WakeReason.DRAIN
    assert result_of(harness.wait(reading)) is WakeReason.DRAIN
    assert result_of(harness.hold(BOB)[1]) is WakeReason.DRAIN
    harness.close_all()


def test_a_message_before_the_drain_is_reported_first() -> None:
    harness = WaiterHarness()
    waiter = harness.add(ANN)
    harness.notifier.wake([1])
    harness.notifier.drain()
    assert result_of(harness.wait(waiter)) is WakeReason.MESSAGE
    assert result_of(harness.wait(waiter)) is WakeReason.DRAIN
    harness.close_all()


def test_held_waiters_are_listed_by_user() -> None:
    harness = WaiterHarness()
    first, one = harness.hold(ANN)
    second, two = harness.hold(ANN)
    third, three = harness.hold(BOB)
    harness.add(Session(3))
    assert harness.notifier.held_by_user() == {1: [first, second], 2: [third]}
    cancel(one)
    cancel(three)
    assert harness.notifier.held_by_user() == {1: [second]}
    cancel(two)
    harness.close_all()


def test_sessions_are_listed_once_each() -> None:
    harness = WaiterHarness()
    for session in (ANN, ANN, ANN_BASIC, BOB):
        harness.add(session)
    assert set(harness.notifier.sessions()) == {ANN, ANN_BASIC, BOB}
    assert len(harness.notifier.sessions()) == 3
    assert harness.notifier.sessions([2, 3]) == [BOB]
    harness.close_all()


def test_interest_follows_the_first_and_the_last_waiter_of_a_user() -> None:
    told: list[tuple[str, int]] = []

    @implementer(IInterest)
    class Interest:
        def watch(self, user_id: int) -> None:
            told.append(("watch", user_id))

        def unwatch(self, user_id: int) -> None:
            told.append(("unwatch", user_id))

    clock = Clock()
    expiry = SessionExpiry(clock, Now(clock))
    notifier = Notifier(max_held=10, expiry=expiry, interest=Interest())
    first, second = DeferredWaiter(ANN, notifier), DeferredWaiter(ANN, notifier)
    other = DeferredWaiter(BOB, notifier)
    assert told == [("watch", 1), ("watch", 2)]
    assert list(notifier.waiters_of(1)) == [first, second]
    first.close()
    assert told[2:] == []
    second.close()
    second.close()
    assert told[2:] == [("unwatch", 1)]
    assert list(notifier.waiters_of(1)) == []
    other.close()
