"""Grouping items into calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from chatd.domain.batch import (
    DEADLINE_SECONDS,
    DELIVER_SECONDS,
    EXPECT_SECONDS,
    LEAST_SECONDS,
    MAX_TURNS,
    WAIT_SECONDS,
    Batcher,
)
from chatd.errors import DomainError, Overloaded, StoreUnavailable, UserNotFound
from tests.conftest import LoggedFailures
from tests.doubles import cancel, fired, result_of


class Calls:
    """A batcher whose calls the test completes."""

    def __init__(self, **options: int) -> None:
        self.clock = Clock()
        self.made: list[tuple[list[str], Deferred[list[object]]]] = []
        self.batches: list[tuple[list[str], list[object]]] = []
        self.sizes: list[float] = []
        self.within: list[float] = []
        self.batcher: Batcher[str, object] = Batcher(
            self.run,
            self.clock,
            max_queued=options.get("max_queued", 100),
            max_batch_size=options.get("max_batch_size", 10),
            on_batch_done=lambda items, results: self.batches.append((list(items), list(results))),
            observe_size=self.sizes.append,
        )

    def run(self, items: Sequence[str], within: float) -> Deferred[list[object]]:
        self.within.append(within)
        result: Deferred[list[object]] = Deferred()
        self.made.append((list(items), result))
        return result

    def submit(self, *items: str) -> list[Deferred[object]]:
        return [self.batcher.submit(item) for item in items]

    @property
    def items(self) -> list[list[str]]:
        return [items for items, _ in self.made]

    def complete(self, number: int = -1) -> None:
        """Complete a call; the batcher may make the next one in the turn after it."""
        items, result = self.made[number]
        result.callback([item.upper() for item in items])
        self.clock.advance(0)


def test_items_of_one_turn_share_a_call() -> None:
    calls = Calls()
    pending = calls.submit("a", "b", "c")
    assert calls.items == []
    calls.clock.advance(0)
    assert calls.items == [["a", "b", "c"]]
    assert not any(each.called for each in pending)
    calls.complete()
    assert [result_of(each) for each in pending] == ["A", "B", "C"]
    assert calls.sizes == [3]
    assert not calls.clock.getDelayedCalls()


def test_items_submitted_during_a_call_share_the_next_one() -> None:
    calls = Calls()
    calls.submit("a")
    calls.clock.advance(0)
    later = calls.submit("b", "c")
    calls.clock.advance(1)
    assert calls.items == [["a"]]
    calls.complete()
    assert calls.items == [["a"], ["b", "c"]]
    calls.complete()
    assert [result_of(each) for each in later] == ["B", "C"]


def test_a_call_takes_at_most_max_batch_size_items_in_order() -> None:
    calls = Calls(max_batch_size=2)
    pending = calls.submit("a", "b", "c", "d", "e")
    calls.clock.advance(0)
    for _ in range(3):
        calls.complete()
    assert calls.items == [["a", "b"], ["c", "d"], ["e"]]
    assert [result_of(each) for each in pending] == ["A", "B", "C", "D", "E"]


def test_an_idle_batcher_resumes() -> None:
    calls = Calls()
    for item in ("a", "b"):
        [pending] = calls.submit(item)
        calls.clock.advance(0)
        calls.complete()
        assert result_of(pending) == item.upper()
    assert calls.items == [["a"], ["b"]]


def test_items_submitted_by_callbacks_of_results_go_into_the_next_call() -> None:
    calls = Calls()
    [first] = calls.submit("a")
    later: list[Deferred[object]] = []
    first.addCallback(lambda _: later.extend(calls.submit("b", "c")))
    calls.clock.advance(0)
    calls.complete()
    assert calls.items == [["a"], ["b", "c"]]
    calls.complete()
    assert [result_of(each) for each in later] == ["B", "C"]


class Turns:
    """A clock whose calls run one turn at a time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Callable[[], object]] = []

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, call: Callable[[], object]) -> None:
        assert delay == 0
        self.calls.append(call)

    def turn(self) -> None:
        """Run what has been scheduled so far."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()


@pytest.fixture
def busy() -> Calls:
    """A batcher that has just processed three items, in turns that the test runs."""
    calls = Calls()
    turns: Any = Turns()
    calls.clock = calls.batcher._clock = turns
    calls.submit("a", "b", "c")
    turns.turn()
    _, result = calls.made[0]
    result.callback(["A", "B", "C"])
    return calls


def test_as_many_items_as_before_are_waited_for(busy: Calls) -> None:
    turns: Any = busy.clock
    for item in ("d", "e", "f"):
        assert len(busy.items) == 1
        busy.submit(item)
        turns.turn()
    assert busy.items == [["a", "b", "c"], ["d", "e", "f"]]


def test_they_are_waited_for_a_few_turns_only(busy: Calls) -> None:
    turns: Any = busy.clock
    busy.submit("d")
    for _ in range(MAX_TURNS):
        turns.turn()
        assert len(busy.items) == 1
    turns.turn()
    assert busy.items[1:] == [["d"]]


def test_they_are_not_waited_for_if_turns_are_long(busy: Calls) -> None:
    turns: Any = busy.clock
    busy.submit("d")
    for _ in range(2):
        turns.turn()
        assert len(busy.items) == 1
        turns.now += WAIT_SECONDS / 2
    turns.turn()
    assert busy.items[1:] == [["d"]]


def test_an_idle_batcher_waits_for_nothing(busy: Calls) -> None:
    turns: Any = busy.clock
    turns.now += EXPECT_SECONDS
    busy.submit("d")
    turns.turn()
    assert busy.items[1:] == [["d"]]


def test_items_that_were_queued_during_a_call_are_expected_again(busy: Calls) -> None:
    turns: Any = busy.clock
    busy.submit("d", "e", "f")
    turns.turn()
    busy.submit("g")
    busy.made[1][1].callback(["D", "E", "F"])
    # Three have been answered and one was waiting.
    for item in ("h", "i"):
        busy.submit(item)
        turns.turn()
        assert len(busy.items) == 2
    busy.submit("j")
    turns.turn()
    assert busy.items[2:] == [["g", "h", "i", "j"]]


def test_submit_raises_when_the_queue_is_full() -> None:
    calls = Calls(max_queued=3, max_batch_size=2)
    pending = calls.submit("a", "b", "c")
    with pytest.raises(Overloaded) as error:
        calls.submit("d")
    assert error.value.retry_after > 0
    calls.clock.advance(0)
    # Two are running and do not count any more.
    pending += calls.submit("d", "e")
    with pytest.raises(Overloaded):
        calls.submit("f")
    for _ in range(3):
        calls.complete()
    assert [result_of(each) for each in pending] == ["A", "B", "C", "D", "E"]


def test_a_domain_error_fails_its_own_item_only() -> None:
    calls = Calls()
    pending = calls.submit("a", "b", "c")
    calls.clock.advance(0)
    error = UserNotFound("no b")
    calls.made[0][1].callback(["A", error, "C"])
    assert result_of(pending[0]) == "A"
    with pytest.raises(UserNotFound) as raised:
        result_of(pending[1])
    assert raised.value is error
    assert result_of(pending[2]) == "C"


def test_a_failed_call_fails_all_its_items_and_no_others() -> None:
    calls = Calls()
    pending = calls.submit("a", "b")
    calls.clock.advance(0)
    later = calls.submit("c")
    calls.made[0][1].errback(ZeroDivisionError())
    calls.clock.advance(0)
    for each in pending:
        with pytest.raises(ZeroDivisionError):
            result_of(each)
    calls.complete()
    assert result_of(later[0]) == "C"
    assert calls.batches == [(["c"], ["C"])]


def test_the_deadline_counts_from_the_submission() -> None:
    calls = Calls()
    calls.submit("a")
    calls.clock.advance(0)
    calls.submit("b")
    calls.clock.advance(4)
    calls.submit("c")
    calls.clock.advance(3)
    calls.complete()
    assert calls.items == [["a"], ["b", "c"]]
    assert calls.within == [DEADLINE_SECONDS, DEADLINE_SECONDS - 7]
    calls.submit("d")
    calls.clock.advance(DEADLINE_SECONDS - 0.1)
    calls.complete()
    assert calls.within[2:] == [LEAST_SECONDS]


def test_items_that_no_call_takes_in_time_fail() -> None:
    calls = Calls()
    first = calls.submit("a")
    calls.clock.advance(0)
    late = calls.submit("b", "c")
    calls.clock.advance(5)
    timely = calls.submit("d")
    calls.clock.advance(DEADLINE_SECONDS - 5)
    more: list[Deferred[object]] = []

    def submit_more(failure: Failure) -> Failure:
        more.extend(calls.submit("e"))
        return failure

    late[1].addErrback(submit_more)
    calls.complete()
    assert result_of(first[0]) == "A"
    for each in late:
        with pytest.raises(StoreUnavailable, match="too slow"):
            result_of(each)
    assert calls.items == [["a"], ["d", "e"]]
    calls.complete()
    assert [result_of(each) for each in (*timely, *more)] == ["D", "E"]
    # Also if there are no others.
    calls.submit("f")
    calls.clock.advance(0)
    [late_one] = calls.submit("g")
    calls.clock.advance(DEADLINE_SECONDS)
    idle = calls.batcher.wait_idle()
    calls.complete()
    with pytest.raises(StoreUnavailable):
        result_of(late_one)
    assert idle.called
    assert calls.items[2:] == [["f"]]
    calls.submit("h")
    calls.clock.advance(0)
    assert calls.items[3:] == [["h"]]


def test_a_call_that_raises_fails_its_items() -> None:
    clock = Clock()

    def run(items: Sequence[str], within: float) -> Deferred[list[object]]:
        raise ZeroDivisionError

    batcher: Batcher[str, object] = Batcher(run, clock, max_queued=9, max_batch_size=9)
    for _ in range(2):
        pending = batcher.submit("a")
        clock.advance(0)
        with pytest.raises(ZeroDivisionError):
            result_of(pending)


def test_a_call_may_return_a_fired_deferred() -> None:
    clock = Clock()
    batcher: Batcher[str, object] = Batcher(
        lambda items, within: succeed([item.upper() for item in items]),
        clock,
        max_queued=9,
        max_batch_size=2,
    )
    pending = [batcher.submit(item) for item in "abcde"]
    idle = batcher.wait_idle()
    clock.advance(0)
    assert [result_of(each) for each in pending] == list("ABCDE")
    assert idle.called


def test_a_cancelled_item_is_still_processed() -> None:
    calls = Calls()
    first, second, third = calls.submit("a", "b", "c")
    cancel(first)
    calls.clock.advance(0)
    assert calls.items == [["a", "b", "c"]]
    cancel(second)
    calls.complete()
    assert result_of(third) == "C"
    assert calls.batches == [(["a", "b", "c"], ["A", "B", "C"])]


def test_on_batch_done_is_called_before_the_results_are_delivered() -> None:
    calls = Calls()
    [pending] = calls.submit("a")
    seen: list[object] = []
    pending.addCallback(lambda _: seen.extend(calls.batches))
    calls.clock.advance(0)
    calls.complete()
    assert seen == [(["a"], ["A"])]


def test_a_failure_is_logged_if_all_items_were_cancelled(
    logged_failures: LoggedFailures,
) -> None:
    calls = Calls()
    for each in calls.submit("a", "b"):
        cancel(each)
    calls.clock.advance(0)
    calls.made[0][1].errback(ZeroDivisionError())
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_a_failure_is_not_logged_if_it_reaches_somebody(
    logged_failures: LoggedFailures,
) -> None:
    calls = Calls()
    first, second = calls.submit("a", "b")
    cancel(first)
    calls.clock.advance(0)
    calls.made[0][1].errback(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        result_of(second)
    assert logged_failures.flush() == []


def test_wait_idle_fires_at_once_when_idle() -> None:
    calls = Calls()
    assert calls.batcher.wait_idle().called


def test_wait_idle_waits_for_queued_and_running_items() -> None:
    calls = Calls(max_batch_size=1)
    pending = calls.submit("a", "b")
    idle = calls.batcher.wait_idle()
    calls.clock.advance(0)
    also = calls.batcher.wait_idle()
    calls.complete()
    assert not fired(idle)
    calls.complete()
    assert fired(idle)
    assert fired(also)
    assert all(each.called for each in pending)
    assert calls.batcher.wait_idle().called


def test_results_of_a_call_are_passed_on_in_several_turns_beside_the_next_call() -> None:
    calls = Calls()
    done: list[object] = []

    def use(result: object) -> None:
        calls.clock.rightNow += 0.6 * DELIVER_SECONDS
        done.append(result)

    for pending in calls.submit("a", "b", "c"):
        pending.addCallback(use)
    calls.clock.advance(0)
    calls.submit("d")
    calls.made[0][1].callback(["A", "B", "C"])
    assert done == ["A", "B"]
    idle = calls.batcher.wait_idle()
    # The next call is scheduled, and then the rest is.
    order = [call.func.__name__ for call in calls.clock.getDelayedCalls()]  # type: ignore[attr-defined]
    assert order == ["_flush_later", "_deliver"]
    calls.clock.advance(0)
    assert done == ["A", "B", "C"]
    assert calls.items == [["a", "b", "c"], ["d"]]
    assert not fired(idle)
    calls.made[1][1].callback(["D"])
    assert fired(idle)


def test_idle_is_only_who_has_passed_all_results_on() -> None:
    calls = Calls()

    def use(_: object) -> None:
        calls.clock.rightNow += DELIVER_SECONDS

    for pending in calls.submit("a", "b"):
        pending.addCallback(use)
    calls.clock.advance(0)
    calls.made[0][1].callback(["A", "B"])
    idle = calls.batcher.wait_idle()
    assert not fired(idle)
    calls.clock.advance(0)
    calls.clock.advance(0)
    assert fired(idle)


def test_wait_idle_waits_for_items_submitted_by_callbacks() -> None:
    calls = Calls()
    [first] = calls.submit("a")
    first.addCallback(lambda _: calls.submit("b"))
    idle = calls.batcher.wait_idle()
    calls.clock.advance(0)
    calls.complete()
    assert not idle.called
    calls.clock.advance(0)
    calls.complete()
    assert idle.called


def test_wait_idle_fires_after_a_failed_call() -> None:
    calls = Calls()
    [pending] = calls.submit("a")
    idle = calls.batcher.wait_idle()
    calls.clock.advance(0)
    calls.made[0][1].errback(ZeroDivisionError())
    assert idle.called
    with pytest.raises(ZeroDivisionError):
        result_of(pending)


def test_results_are_failures_by_their_type_not_by_their_truth_value() -> None:
    calls = Calls()
    pending = calls.submit("a", "b", "c")
    calls.clock.advance(0)
    calls.made[0][1].callback([None, 0, ValueError("a value")])
    assert result_of(pending[0]) is None
    assert result_of(pending[1]) == 0
    assert not isinstance(result_of(pending[2]), DomainError)
