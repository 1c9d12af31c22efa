"""Why a process is not ready."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from chatd.process.readiness import CHECK_SECONDS, Readiness
from tests.doubles import result_of


class Seams:
    """A store and a bus that answer as the test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.checked: Deferred[None] = succeed(None)
        self.problem: str | None = None
        store: Any = SimpleNamespace(check=lambda: self.checked)
        bus: Any = SimpleNamespace(problem=lambda: self.problem)
        self.readiness = Readiness(store, bus, self.clock)

    def start(self) -> Deferred[list[str]]:
        return Deferred.fromCoroutine(self.readiness.reasons())


def test_without_a_reason_it_is_ready() -> None:
    assert result_of(Seams().start()) == []


def test_all_reasons_are_told() -> None:
    seams = Seams()
    seams.readiness.draining = True
    seams.problem = "no wake-ups"
    seams.checked = fail(OSError("gone"))
    assert result_of(seams.start()) == ["draining", "no wake-ups", "the store: gone"]


def test_a_store_has_a_second_to_answer() -> None:
    seams = Seams()
    seams.checked = Deferred()
    asked = seams.start()
    seams.clock.advance(CHECK_SECONDS - 0.01)
    assert not asked.called
    seams.clock.advance(0.01)
    assert result_of(asked) == ["the store did not answer within 1 s"]
    assert seams.clock.getDelayedCalls() == []
    seams.checked.callback(None)


def test_an_answer_in_time_leaves_no_timer() -> None:
    seams = Seams()
    seams.checked = Deferred()
    asked = seams.start()
    seams.clock.advance(0.5)
    seams.checked.callback(None)
    assert result_of(asked) == []
    assert seams.clock.getDelayedCalls() == []


def test_whoever_asks_may_go_away() -> None:
    seams = Seams()
    cancelled: list[object] = []
    seams.checked = Deferred(cancelled.append)
    asked = seams.start()
    asked.cancel()
    with pytest.raises(CancelledError):
        result_of(asked)
    assert cancelled == []  # the store is not disturbed
    assert seams.clock.getDelayedCalls() == []
    seams.checked.callback(None)
