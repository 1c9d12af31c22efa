"""The reasons why a process is not ready."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from chatd.process.readiness import CHECK_SECONDS, Readiness
from tests.doubles import result_of


class Dependencies:
    """A store and a bus whose results the test sets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.checked: Deferred[None] = succeed(None)
        self.problem: str | None = None
        store: Any = SimpleNamespace(check=lambda: self.checked)
        bus: Any = SimpleNamespace(problem=lambda: self.problem)
        self.readiness = Readiness(store, bus, self.clock)

    def start(self) -> Deferred[list[str]]:
        return Deferred.fromCoroutine(self.readiness.reasons())


def test_ready_without_reasons() -> None:
    assert result_of(Dependencies().start()) == []


def test_all_reasons_are_returned() -> None:
    dependencies = Dependencies()
    dependencies.readiness.draining = True
    dependencies.problem = "no wake-ups"
    dependencies.checked = fail(OSError("gone"))
    assert result_of(dependencies.start()) == ["draining", "no wake-ups", "the store: gone"]


def test_the_store_must_answer_within_a_second() -> None:
    dependencies = Dependencies()
    dependencies.checked = Deferred()
    reasons = dependencies.start()
    dependencies.clock.advance(CHECK_SECONDS - 0.01)
    assert not reasons.called
    dependencies.clock.advance(0.01)
    assert result_of(reasons) == ["the store did not answer within 1 s"]
    assert dependencies.clock.getDelayedCalls() == []
    dependencies.checked.callback(None)


def test_an_answer_in_time_cancels_the_timer() -> None:
    dependencies = Dependencies()
    dependencies.checked = Deferred()
    reasons = dependencies.start()
    dependencies.clock.advance(0.5)
    dependencies.checked.callback(None)
    assert result_of(reasons) == []
    assert dependencies.clock.getDelayedCalls() == []


def test_a_check_can_be_cancelled_without_cancelling_the_store() -> None:
    dependencies = Dependencies()
    cancelled: list[object] = []
    dependencies.checked = Deferred(cancelled.append)
    reasons = dependencies.start()
    reasons.cancel()
    with pytest.raises(CancelledError):
        result_of(reasons)
    assert cancelled == []
    assert dependencies.clock.getDelayedCalls() == []
    dependencies.checked.callback(None)


def test_any_number_of_checks_ask_the_store_once() -> None:
    dependencies = Dependencies()
    asked: list[Deferred[None]] = []

    def check() -> Deferred[None]:
        asked.append(Deferred())
        return asked[-1]

    dependencies.readiness._store.check = check  # type: ignore[method-assign]
    waiting = [dependencies.start() for _ in range(100)]
    assert len(asked) == 1
    waiting[0].cancel()
    with pytest.raises(CancelledError):
        result_of(waiting[0])
    asked[0].errback(OSError("gone"))
    assert [result_of(each) for each in waiting[1:]] == [["the store: gone"]] * 99
    # What comes later is about later.
    later = dependencies.start()
    assert len(asked) == 2
    asked[1].callback(None)
    assert result_of(later) == []
    assert dependencies.clock.getDelayedCalls() == []


def test_who_leaves_while_others_are_told_is_left_out() -> None:
    dependencies = Dependencies()
    dependencies.checked = Deferred()
    first, second = dependencies.start(), dependencies.start()

    def leave(reasons: list[str]) -> list[str]:
        second.cancel()
        return reasons

    first.addCallback(leave)
    dependencies.checked.callback(None)
    assert result_of(first) == []
    with pytest.raises(CancelledError):
        result_of(second)
