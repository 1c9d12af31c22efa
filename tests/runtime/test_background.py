"""Work in the background: one at a time, and none once it is stopped."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from chatd.runtime.background import BackgroundWork
from tests.doubles import fired


class Work:
    """Work that the test completes."""

    def __init__(self) -> None:
        self.begun: list[Deferred[None]] = []
        self.failures: list[Exception] = []
        self.background = BackgroundWork(self._work, self.failures.append)

    async def _work(self) -> None:
        step: Deferred[None] = Deferred()
        self.begun.append(step)
        await step


def test_one_is_under_way_at_a_time() -> None:
    work = Work()
    for _ in range(2):
        work.background.start()
    assert len(work.begun) == 1
    work.begun[0].callback(None)
    work.background.start()
    assert len(work.begun) == 2
    work.begun[1].callback(None)


def test_a_failure_is_passed_on_and_the_next_one_begins() -> None:
    work = Work()
    work.background.start()
    error = ZeroDivisionError()
    work.begun[0].errback(error)
    assert work.failures == [error]
    work.background.start()
    assert len(work.begun) == 2
    work.begun[1].callback(None)


def test_stopping_waits_for_what_is_under_way_and_begins_no_more() -> None:
    work = Work()
    work.background.start()
    work.background.stop()
    assert work.background.is_stopped
    idle = Deferred.fromCoroutine(work.background.wait_idle())
    assert not idle.called
    work.begun[0].callback(None)
    assert fired(idle)
    work.background.start()
    assert len(work.begun) == 1
    assert fired(Deferred.fromCoroutine(work.background.wait_idle()))
