"""Shielded work continues when its caller is cancelled."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from chatd.errors import UserNotFound
from chatd.runtime.shield import ShieldedTasks, shield
from tests.conftest import LoggedFailures
from tests.doubles import cancel, fired, result_of


class Work:
    """Work in two steps that the test completes."""

    def __init__(self) -> None:
        self.first: Deferred[int] = Deferred()
        self.second: Deferred[int] = Deferred()
        self.done: list[int] = []

    async def __call__(self) -> int:
        self.done.append(await self.first)
        self.done.append(await self.second)
        return sum(self.done)


def test_the_result_of_the_work_is_passed_on() -> None:
    work = Work()
    shielded = shield(work())
    work.first.callback(1)
    assert not shielded.called
    work.second.callback(2)
    assert result_of(shielded) == 3


def test_a_failure_of_the_work_is_passed_on() -> None:
    work = Work()
    shielded = shield(work())
    work.first.errback(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        result_of(shielded)


def test_work_that_completes_at_once_is_not_delayed() -> None:
    async def at_once() -> int:
        return 7

    assert result_of(shield(at_once())) == 7


@pytest.mark.parametrize("moment", [0, 1])
def test_cancelling_does_not_stop_the_work(moment: int) -> None:
    work = Work()
    shielded = shield(work())
    if moment == 1:
        work.first.callback(1)
    shielded.cancel()
    with pytest.raises(CancelledError):
        result_of(shielded)
    if moment == 0:
        work.first.callback(1)
    work.second.callback(2)
    assert work.done == [1, 2]


def test_a_cancelled_coroutine_does_not_stop_the_work_it_awaits() -> None:
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


def test_an_error_after_the_cancellation_is_logged(logged_failures: LoggedFailures) -> None:
    work = Work()
    cancel(shield(work()))
    work.first.errback(ZeroDivisionError())
    assert len(logged_failures.flush(ZeroDivisionError)) == 1


def test_a_domain_error_after_the_cancellation_is_not_logged(
    logged_failures: LoggedFailures,
) -> None:
    work = Work()
    cancel(shield(work()))
    work.first.errback(UserNotFound("nobody"))
    assert logged_failures.flush() == []


def test_an_error_that_reaches_the_caller_is_not_logged(logged_failures: LoggedFailures) -> None:
    work = Work()
    shielded = shield(work())
    work.first.errback(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        result_of(shielded)
    assert logged_failures.flush() == []


def test_waiting_for_shielded_tasks_to_complete() -> None:
    tasks = ShieldedTasks()
    assert tasks.wait_idle().called
    works = [Work() for _ in range(3)]
    results = [tasks.run(work()) for work in works]
    idle = tasks.wait_idle()
    cancel(results[0])
    for work in works:
        assert not fired(idle)
        work.first.callback(1)
        work.second.callback(2)
    assert fired(idle)
    assert [result_of(each) for each in results[1:]] == [3, 3]
    assert tasks.wait_idle().called


def test_failed_tasks_are_no_longer_waited_for() -> None:
    tasks = ShieldedTasks()
    work = Work()
    result = tasks.run(work())
    idle = tasks.wait_idle()
    work.first.errback(ZeroDivisionError())
    assert fired(idle)
    with pytest.raises(ZeroDivisionError):
        result_of(result)
