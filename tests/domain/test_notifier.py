"""Who is waiting, and what ends a wait."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from chatd.domain.notifier import HELD_PER_USER, Notifier, Waiter
from chatd.errors import Unauthorized
from chatd.model import Session, WakeReason
from tests.doubles import cancel, result_of

ANN = Session(1, b"ann's token")
ANN_BASIC = Session(1)
BOB = Session(2, b"bob's token")


class Waits:
    """A notifier and the waits that a test holds."""

    def __init__(self, max_held: int = 100) -> None:
        self.clock = Clock()
        self.notifier = Notifier(self.clock, max_held=max_held)
        self.waiters: list[Waiter] = []

    def hold(self, session: Session, seconds: float = 30) -> tuple[Waiter, Deferred[WakeReason]]:
        waiter = self.notifier.listen(session)
        self.waiters.append(waiter)
        return waiter, waiter.wait(seconds)

    def nothing_left(self) -> bool:
        """Close what is open, then see."""
        for waiter in self.waiters:
            waiter.close()
        return (
            self.notifier.held == 0
            and not self.notifier.waiting()
            and not self.notifier._waiters
            and not self.clock.getDelayedCalls()
        )


def test_a_message_ends_the_waits_of_its_recipient() -> None:
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
    assert waits.nothing_left()


def test_waking_those_who_do_not_wait_is_no_fault() -> None:
    waits = Waits()
    assert waits.notifier.wake([1, 2, 3]) == 0
    assert waits.notifier.wake([]) == 0
    assert waits.notifier.wake_all() == 0
    waits.notifier.revoke(1, None)
    waits.notifier.drain()


def test_everyone_may_be_woken() -> None:
    waits = Waits()
    _, ann = waits.hold(ANN)
    _, bob = waits.hold(BOB)
    assert waits.notifier.wake_all() == 2
    assert result_of(ann) is result_of(bob) is WakeReason.MESSAGE
    assert waits.nothing_left()


def test_a_wait_ends_when_its_time_is_over() -> None:
    waits = Waits()
    _, wait = waits.hold(ANN, 30)
    waits.clock.advance(29.999)
    assert not wait.called
    waits.clock.advance(0.001)
    assert result_of(wait) is WakeReason.TIMEOUT
    assert waits.nothing_left()


def test_a_woken_wait_leaves_no_timer() -> None:
    waits = Waits()
    _, wait = waits.hold(ANN)
    waits.notifier.wake([1])
    assert not waits.clock.getDelayedCalls()
    assert result_of(wait) is WakeReason.MESSAGE


def test_what_happens_between_listening_and_waiting_ends_the_wait_at_once() -> None:
    waits = Waits()
    waiter = waits.notifier.listen(ANN)
    assert waits.notifier.wake([1]) == 0
    assert waits.notifier.waiting() == {}
    assert result_of(waiter.wait(30)) is WakeReason.MESSAGE
    # It was told once: the next wait waits.
    again = waiter.wait(30)
    assert not again.called
    assert waiter.held
    cancel(again)
    waiter.close()
    assert waits.nothing_left()


def test_what_happens_between_two_waits_ends_the_second_at_once() -> None:
    waits = Waits()
    waiter, wait = waits.hold(ANN)
    waits.notifier.wake([1])
    waits.notifier.wake([1])
    assert result_of(wait) is WakeReason.MESSAGE
    assert result_of(waiter.wait(30)) is WakeReason.MESSAGE
    assert waits.nothing_left()


def test_what_happened_before_listening_is_not_told() -> None:
    waits = Waits()
    waits.notifier.wake([1])
    waits.notifier.revoke(1, None)
    _, wait = waits.hold(ANN)
    assert not wait.called
    cancel(wait)
    assert waits.nothing_left()


def test_a_closed_waiter_is_told_nothing() -> None:
    waits = Waits()
    waiter, wait = waits.hold(ANN)
    cancel(wait)
    waiter.close()
    waiter.close()
    assert waits.notifier.wake([1]) == 0
    assert waits.nothing_left()


def test_closing_one_leaves_the_others() -> None:
    waits = Waits()
    first, one = waits.hold(ANN)
    _, two = waits.hold(ANN)
    cancel(one)
    first.close()
    assert waits.notifier.wake([1]) == 1
    assert result_of(two) is WakeReason.MESSAGE
    assert waits.nothing_left()


def test_closing_a_held_waiter_leaves_no_timer_and_no_count() -> None:
    waits = Waits()
    waiter, wait = waits.hold(ANN)
    waiter.close()
    assert waits.notifier.held == 0
    assert not waits.clock.getDelayedCalls()
    assert not wait.called


def test_cancelling_a_wait_leaves_no_timer_and_no_count() -> None:
    waits = Waits()
    waiter, wait = waits.hold(ANN)
    wait.cancel()
    with pytest.raises(CancelledError):
        result_of(wait)
    assert waits.notifier.held == 0
    assert not waiter.held
    assert not waits.clock.getDelayedCalls()
    assert waits.notifier.wake([1]) == 0
    assert waits.nothing_left()


def test_beyond_the_most_per_user_the_oldest_wait_is_superseded() -> None:
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
    assert waits.nothing_left()


def test_the_oldest_is_the_one_that_came_first_not_the_one_that_waits_longest() -> None:
    waits = Waits()
    oldest, wait = waits.hold(ANN)
    held = [waits.hold(ANN)[1] for _ in range(HELD_PER_USER - 1)]
    waits.notifier.wake([1])
    assert all(result_of(each) is WakeReason.MESSAGE for each in [wait, *held])
    held = [waiter.wait(30) for waiter in waits.waiters[1:]]
    again = oldest.wait(30)
    _, newest = waits.hold(ANN)
    assert result_of(again) is WakeReason.SUPERSEDED
    assert not any(each.called for each in [*held, newest])
    for each in [*held, newest]:
        cancel(each)
    assert waits.nothing_left()


def test_those_that_read_just_now_are_not_superseded() -> None:
    waits = Waits()
    reading = [waits.notifier.listen(ANN) for _ in range(5)]
    held = [waits.hold(ANN)[1] for _ in range(HELD_PER_USER)]
    assert not any(wait.called for wait in held)
    waits.hold(ANN)
    assert result_of(held[0]) is WakeReason.SUPERSEDED
    late = reading[0].wait(30)
    # It came first, so it is the oldest of those that wait now.
    assert result_of(late) is WakeReason.SUPERSEDED
    waits.waiters += reading
    assert waits.nothing_left()


def test_beyond_the_most_of_a_process_a_wait_ends_at_once() -> None:
    waits = Waits(max_held=2)
    _, ann = waits.hold(ANN)
    _, bob = waits.hold(BOB)
    _, more = waits.hold(BOB)
    assert result_of(more) is WakeReason.OVERLOAD
    assert waits.notifier.held == 2
    waits.notifier.wake([1])
    assert result_of(ann) is WakeReason.MESSAGE
    _, again = waits.hold(ANN)
    assert not again.called
    cancel(bob)
    cancel(again)
    assert waits.nothing_left()


def test_a_revoked_token_ends_its_own_waits() -> None:
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
    assert waits.nothing_left()


def test_a_deleted_account_ends_all_its_waits() -> None:
    waits = Waits()
    mine = [waits.hold(session)[1] for session in (ANN, ANN_BASIC)]
    _, bob = waits.hold(BOB)
    waits.notifier.revoke(1, None)
    for wait in mine:
        with pytest.raises(Unauthorized):
            result_of(wait)
    assert not bob.called
    cancel(bob)
    assert waits.nothing_left()


def test_a_revocation_before_the_wait_ends_it_and_outweighs_messages() -> None:
    waits = Waits()
    waiter = waits.notifier.listen(ANN)
    waits.notifier.wake([1])
    waits.notifier.revoke(1, None)
    waits.notifier.wake([1])
    with pytest.raises(Unauthorized):
        result_of(waiter.wait(30))
    assert waits.notifier.held == 0
    waiter.close()
    assert waits.nothing_left()


def test_draining_ends_every_wait_now_and_from_now_on() -> None:
    waits = Waits()
    reading = waits.notifier.listen(ANN)
    _, ann = waits.hold(ANN)
    _, bob = waits.hold(BOB)
    waits.notifier.drain()
    assert result_of(ann) is result_of(bob) is WakeReason.DRAIN
    assert result_of(reading.wait(30)) is WakeReason.DRAIN
    assert result_of(waits.hold(BOB)[1]) is WakeReason.DRAIN
    reading.close()
    assert waits.nothing_left()


def test_a_message_from_before_the_drain_is_told_first() -> None:
    waits = Waits()
    waiter = waits.notifier.listen(ANN)
    waits.notifier.wake([1])
    waits.notifier.drain()
    assert result_of(waiter.wait(30)) is WakeReason.MESSAGE
    assert result_of(waiter.wait(30)) is WakeReason.DRAIN
    waiter.close()
    assert waits.nothing_left()


def test_what_a_woken_one_does_at_once_disturbs_nobody() -> None:
    waits = Waits()
    ended: list[int] = []

    def close_everyone(why: WakeReason) -> None:
        ended.append(len(ended))
        for waiter in waits.waiters:
            waiter.close()

    waits.hold(ANN)[1].addCallback(close_everyone)
    waits.hold(ANN)[1].addCallback(close_everyone)
    waits.hold(BOB)[1].addCallback(close_everyone)
    waits.notifier.wake([1, 2])
    assert ended == [0]
    assert waits.nothing_left()


def test_one_who_waits_again_at_once_waits_for_the_next_message() -> None:
    waits = Waits()
    waiter, wait = waits.hold(ANN)
    again: list[Deferred[WakeReason]] = []
    wait.addCallback(lambda _: again.append(waiter.wait(30)))
    waits.notifier.wake([1])
    assert not again[0].called
    waits.notifier.wake([1])
    assert result_of(again[0]) is WakeReason.MESSAGE
    assert waits.nothing_left()


def test_those_who_wait_are_listed_by_user() -> None:
    waits = Waits()
    first, one = waits.hold(ANN)
    second, two = waits.hold(ANN)
    third, three = waits.hold(BOB)
    reading = waits.notifier.listen(Session(3))
    assert waits.notifier.waiting() == {1: [first, second], 2: [third]}
    cancel(one)
    cancel(three)
    assert waits.notifier.waiting() == {1: [second]}
    cancel(two)
    reading.close()
    assert waits.nothing_left()
