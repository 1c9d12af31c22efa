"""Work goes on when the one who asked for it goes away."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from chatd.errors import UserNotFound
from chatd.runtime.shield import shield
from tests.conftest import LoggedFailures
from tests.doubles import cancel, result_of


class Work:
    """Two steps that the test lets happen."""

    def __init__(self) -> None:
        self.first: Deferred[int] = Deferred()
        self.second: Deferred[int] = Deferred()
        self.done: list[int] = []

    async def __call__(self) -> int:
        self.done.append(await self.first)
        self.done.append(await self.second)
        return sum(self.done)


def test_the_result_is_that_of_the_work() -> None:
    work = Work()
    asked = shield(work())
    work.first.callback(1)
    assert not asked.called
    work.second.callback(2)
    assert result_of(asked) == 3


def test_a_failure_is_that_of_the_work() -> None:
    work = Work()
    asked = shield(work())
    work.first.errback(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        result_of(asked)


def test_work_that_ends_at_once_needs_no_turn() -> None:
    async def at_once() -> int:
        return 7

    assert result_of(shield(at_once())) == 7


@pytest.mark.parametrize("moment", [0, 1])
def test_cancelling_leaves_the_work_running(moment: int) -> None:
    work = Work()
    asked = shield(work())
    if moment == 1:
        work.first.callback(1)
    asked.cancel()
    with pytest.raises(CancelledError):
        result_of(asked)
    if moment == 0:
        work.first.callback(1)
    work.second.callback(2)
    assert work.done == [1, 2]


def test_a_coroutine_that_awaits_is_cancelled_and_the_work_goes_on() -> None:
    work = Work()

    async def handler() -> int:
        return await shield(work())

    handled = Deferred.fromCoroutine(handler())
    handled.cancel()
    with pytest.raises(CancelledError):
        result_of(handled)
    work.first.callback(1)
    work.second.callback(2)
    assert work.done == [1, 2]


def test_a_fault_after_the_asker_has_gone_is_logged(logged_failures: LoggedFailures) -> None:
    work = Work()
    cancel(shield(work()))
    work.first.errback(ZeroDivisionError())
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_a_refusal_after_the_asker_has_gone_is_no_fault(logged_failures: LoggedFailures) -> None:
    work = Work()
    cancel(shield(work()))
    work.first.errback(UserNotFound("nobody"))
    assert logged_failures.flush() == []


def test_a_fault_that_the_asker_sees_is_not_logged(logged_failures: LoggedFailures) -> None:
    work = Work()
    asked = shield(work())
    work.first.errback(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        result_of(asked)
    assert logged_failures.flush() == []
