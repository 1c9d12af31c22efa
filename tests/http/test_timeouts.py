"""Deadlines of many entries under one timer."""

from __future__ import annotations

from twisted.internet.task import Clock

from chatd.http.timeouts import Timeouts


class TestDeadlines:
    def make(self) -> tuple[Clock, Timeouts, list[str]]:
        clock = Clock()
        return clock, Timeouts(clock), []

    def test_tick_only_while_something_is_due(self) -> None:
        clock, deadlines, passed = self.make()
        queue = deadlines.queue(3.0, passed.append)
        assert clock.getDelayedCalls() == []
        queue.enter("a")
        assert "a" in queue
        clock.pump([1.0] * 3)
        assert passed == ["a"]
        assert len(queue) == 0
        clock.advance(1.0)
        assert clock.getDelayedCalls() == []

    def test_pass_in_order_for_those_that_did_not_leave(self) -> None:
        clock, deadlines, passed = self.make()
        queue = deadlines.queue(2.0, passed.append)
        for name in "abc":
            queue.enter(name)
        queue.leave("b")
        queue.leave("b")
        clock.advance(1.0)
        queue.enter("d")
        clock.advance(1.0)
        assert passed == ["a", "c"]
        clock.advance(1.0)
        assert passed == ["a", "c", "d"]

    def test_may_change_while_they_pass(self) -> None:
        clock, deadlines, passed = self.make()

        def late(name: str) -> None:
            passed.append(name)
            queue.leave("b")
            if len(passed) < 3:
                queue.enter(name)

        queue = deadlines.queue(1.0, late)
        queue.enter("a")
        queue.enter("b")
        clock.pump([1.0] * 4)
        assert passed == ["a", "a", "a"]

    def test_can_be_stopped_and_started_again(self) -> None:
        clock, deadlines, passed = self.make()
        queue = deadlines.queue(1.0, passed.append)
        deadlines.stop()
        queue.enter("a")
        deadlines.stop()
        assert clock.getDelayedCalls() == []
        queue.leave("a")
        queue.enter("b")
        clock.pump([1.0] * 2)
        assert passed == ["b"]
