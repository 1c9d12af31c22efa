"""One call of the store at a time, for all that was asked meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from chatd.domain.batch import Batcher
from chatd.errors import DomainError, Overloaded, UserNotFound
from tests.conftest import LoggedFailures
from tests.doubles import cancel, fired, result_of


class Calls:
    """A store's method whose calls the test answers."""

    def __init__(self, **options: int) -> None:
        self.clock = Clock()
        self.made: list[tuple[list[str], Deferred[list[object]]]] = []
        self.served: list[tuple[list[str], list[object]]] = []
        self.sizes: list[float] = []
        self.batcher: Batcher[str, object] = Batcher(
            self.run,
            self.clock,
            max_queued=options.get("max_queued", 100),
            max_batch_size=options.get("max_batch_size", 10),
            on_batch_done=lambda items, outcomes: self.served.append((list(items), list(outcomes))),
            observe_size=self.sizes.append,
        )

    def run(self, items: Sequence[str]) -> Deferred[list[object]]:
        answer: Deferred[list[object]] = Deferred()
        self.made.append((list(items), answer))
        return answer

    def ask(self, *items: str) -> list[Deferred[object]]:
        return [self.batcher.submit(item) for item in items]

    @property
    def items(self) -> list[list[str]]:
        return [items for items, _ in self.made]

    def answer(self, number: int = -1) -> None:
        items, answer = self.made[number]
        answer.callback([item.upper() for item in items])


def test_what_is_asked_in_one_turn_is_one_call() -> None:
    calls = Calls()
    asked = calls.ask("a", "b", "c")
    assert calls.items == []
    calls.clock.advance(0)
    assert calls.items == [["a", "b", "c"]]
    assert not any(each.called for each in asked)
    calls.answer()
    assert [result_of(each) for each in asked] == ["A", "B", "C"]
    assert calls.sizes == [3]
    assert not calls.clock.getDelayedCalls()


def test_what_is_asked_during_a_call_is_in_the_next_one() -> None:
    calls = Calls()
    calls.ask("a")
    calls.clock.advance(0)
    later = calls.ask("b", "c")
    calls.clock.advance(1)
    assert calls.items == [["a"]]
    calls.answer()
    # At once: no turn of the reactor is lost between two calls.
    assert calls.items == [["a"], ["b", "c"]]
    calls.answer()
    assert [result_of(each) for each in later] == ["B", "C"]


def test_a_call_takes_no_more_than_the_largest_number_in_order() -> None:
    calls = Calls(max_batch_size=2)
    asked = calls.ask("a", "b", "c", "d", "e")
    calls.clock.advance(0)
    for _ in range(3):
        calls.answer()
    assert calls.items == [["a", "b"], ["c", "d"], ["e"]]
    assert [result_of(each) for each in asked] == ["A", "B", "C", "D", "E"]


def test_an_idle_batcher_starts_again() -> None:
    calls = Calls()
    for item in ("a", "b"):
        [asked] = calls.ask(item)
        calls.clock.advance(0)
        calls.answer()
        assert result_of(asked) == item.upper()
    assert calls.items == [["a"], ["b"]]


def test_what_is_asked_while_answers_are_given_is_in_another_call() -> None:
    calls = Calls()
    [first] = calls.ask("a")
    later: list[Deferred[object]] = []
    first.addCallback(lambda _: later.extend(calls.ask("b", "c")))
    calls.clock.advance(0)
    calls.answer()
    assert calls.items == [["a"]]
    calls.clock.advance(0)
    assert calls.items == [["a"], ["b", "c"]]
    calls.answer()
    assert [result_of(each) for each in later] == ["B", "C"]


def test_beyond_the_bound_asking_is_refused() -> None:
    calls = Calls(max_queued=3, max_batch_size=2)
    asked = calls.ask("a", "b", "c")
    with pytest.raises(Overloaded) as refusal:
        calls.ask("d")
    assert refusal.value.retry_after > 0
    calls.clock.advance(0)
    # Two are under way and do not count any more.
    asked += calls.ask("d", "e")
    with pytest.raises(Overloaded):
        calls.ask("f")
    for _ in range(3):
        calls.answer()
    assert [result_of(each) for each in asked] == ["A", "B", "C", "D", "E"]


def test_a_domain_error_fails_its_own_item_only() -> None:
    calls = Calls()
    asked = calls.ask("a", "b", "c")
    calls.clock.advance(0)
    refusal = UserNotFound("no b")
    calls.made[0][1].callback(["A", refusal, "C"])
    assert result_of(asked[0]) == "A"
    with pytest.raises(UserNotFound) as raised:
        result_of(asked[1])
    assert raised.value is refusal
    assert result_of(asked[2]) == "C"


def test_a_failed_call_fails_all_its_items_and_no_others() -> None:
    calls = Calls()
    asked = calls.ask("a", "b")
    calls.clock.advance(0)
    later = calls.ask("c")
    calls.made[0][1].errback(ZeroDivisionError())
    for each in asked:
        with pytest.raises(ZeroDivisionError):
            result_of(each)
    calls.answer()
    assert result_of(later[0]) == "C"
    assert calls.served == [(["c"], ["C"])]


def test_a_call_that_raises_is_a_failed_call() -> None:
    clock = Clock()

    def run(items: Sequence[str]) -> Deferred[list[object]]:
        raise ZeroDivisionError

    batcher: Batcher[str, object] = Batcher(run, clock, max_queued=9, max_batch_size=9)
    for _ in range(2):
        asked = batcher.submit("a")
        clock.advance(0)
        with pytest.raises(ZeroDivisionError):
            result_of(asked)


def test_a_call_may_answer_at_once() -> None:
    clock = Clock()
    batcher: Batcher[str, object] = Batcher(
        lambda items: succeed([item.upper() for item in items]),
        clock,
        max_queued=9,
        max_batch_size=2,
    )
    asked = [batcher.submit(item) for item in "abcde"]
    finished = batcher.wait_idle()
    clock.advance(0)
    assert [result_of(each) for each in asked] == list("ABCDE")
    assert finished.called


def test_a_cancelled_item_stays_in_its_call() -> None:
    calls = Calls()
    first, second, third = calls.ask("a", "b", "c")
    cancel(first)
    calls.clock.advance(0)
    assert calls.items == [["a", "b", "c"]]
    cancel(second)
    calls.answer()
    assert result_of(third) == "C"
    assert calls.served == [(["a", "b", "c"], ["A", "B", "C"])]


def test_what_served_is_told_comes_before_the_answers() -> None:
    calls = Calls()
    [asked] = calls.ask("a")
    seen: list[object] = []
    asked.addCallback(lambda _: seen.extend(calls.served))
    calls.clock.advance(0)
    calls.answer()
    assert seen == [(["a"], ["A"])]


def test_a_failure_that_nobody_waits_for_any_more_is_logged(
    logged_failures: LoggedFailures,
) -> None:
    calls = Calls()
    for each in calls.ask("a", "b"):
        cancel(each)
    calls.clock.advance(0)
    calls.made[0][1].errback(ZeroDivisionError())
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_a_failure_that_somebody_is_told_of_is_not_logged(
    logged_failures: LoggedFailures,
) -> None:
    calls = Calls()
    first, second = calls.ask("a", "b")
    cancel(first)
    calls.clock.advance(0)
    calls.made[0][1].errback(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        result_of(second)
    assert logged_failures.flush() == []


def test_an_idle_batcher_is_finished() -> None:
    calls = Calls()
    assert calls.batcher.wait_idle().called


def test_finished_waits_for_what_is_queued_and_under_way() -> None:
    calls = Calls(max_batch_size=1)
    asked = calls.ask("a", "b")
    finished = calls.batcher.wait_idle()
    calls.clock.advance(0)
    also = calls.batcher.wait_idle()
    calls.answer()
    assert not fired(finished)
    calls.answer()
    assert fired(finished)
    assert fired(also)
    assert all(each.called for each in asked)
    assert calls.batcher.wait_idle().called


def test_finished_waits_for_what_the_answers_ask_for() -> None:
    calls = Calls()
    [first] = calls.ask("a")
    first.addCallback(lambda _: calls.ask("b"))
    finished = calls.batcher.wait_idle()
    calls.clock.advance(0)
    calls.answer()
    assert not finished.called
    calls.clock.advance(0)
    calls.answer()
    assert finished.called


def test_a_failed_call_is_finished_too() -> None:
    calls = Calls()
    [asked] = calls.ask("a")
    finished = calls.batcher.wait_idle()
    calls.clock.advance(0)
    calls.made[0][1].errback(ZeroDivisionError())
    assert finished.called
    with pytest.raises(ZeroDivisionError):
        result_of(asked)


def test_outcomes_are_told_apart_by_kind_not_by_truth() -> None:
    calls = Calls()
    asked = calls.ask("a", "b", "c")
    calls.clock.advance(0)
    calls.made[0][1].callback([None, 0, ValueError("a value")])
    assert result_of(asked[0]) is None
    assert result_of(asked[1]) == 0
    assert not isinstance(result_of(asked[2]), DomainError)
