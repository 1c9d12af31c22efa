"""Timeouts of many entries with one timer."""

from __future__ import annotations

from twisted.internet.task import Clock

from chatd.http.timeouts import Timeouts
from chatd.runtime.slices import SLICE_SECONDS
from tests.conftest import LoggedFailures


class TestTimeouts:
    def make(self) -> tuple[Clock, Timeouts, list[str]]:
        clock = Clock()
        return clock, Timeouts(clock), []

    def test_timer_runs_only_while_there_are_entries(self) -> None:
        clock, timeouts, expired = self.make()
        queue = timeouts.queue(3.0, expired.append)
        assert clock.getDelayedCalls() == []
        clock.advance(5.0)
        queue.add("a")
        assert "a" in queue
        assert [queue.since("a"), queue.since("b")] == [5.0, None]
        clock.pump([1.0] * 3)
        assert expired == ["a"]
        assert len(queue) == 0
        clock.advance(1.0)
        assert clock.getDelayedCalls() == []

    def test_entries_that_did_not_leave_expire_in_order(self) -> None:
        clock, timeouts, expired = self.make()
        queue = timeouts.queue(2.0, expired.append)
        for name in "abc":
            queue.add(name)
        queue.discard("b")
        queue.discard("b")
        clock.advance(1.0)
        queue.add("d")
        clock.advance(1.0)
        assert expired == ["a", "c"]
        clock.advance(1.0)
        assert expired == ["a", "c", "d"]

    def test_entries_may_enter_and_leave_while_others_expire(self) -> None:
        clock, timeouts, expired = self.make()

        def late(name: str) -> None:
            expired.append(name)
            queue.discard("b")
            if len(expired) < 3:
                queue.add(name)

        queue = timeouts.queue(1.0, late)
        queue.add("a")
        queue.add("b")
        clock.pump([1.0] * 4)
        assert expired == ["a", "a", "a"]

    def test_an_entry_that_fails_does_not_stop_the_timer(
        self, logged_failures: LoggedFailures
    ) -> None:
        clock, timeouts, expired = self.make()

        def late(name: str) -> None:
            if name == "broken":
                raise ZeroDivisionError
            expired.append(name)

        queue = timeouts.queue(1.0, late)
        queue.add("broken")
        queue.add("a")
        clock.advance(0.5)
        queue.add("b")
        clock.pump([1.0] * 3)
        assert expired == ["a", "b"]
        assert clock.getDelayedCalls() == []
        assert len(logged_failures.flush(ZeroDivisionError)) == 1

    def test_timer_can_be_stopped_and_starts_again(self) -> None:
        clock, timeouts, expired = self.make()
        queue = timeouts.queue(1.0, expired.append)
        timeouts.stop()
        queue.add("a")
        timeouts.stop()
        assert clock.getDelayedCalls() == []
        queue.discard("a")
        queue.add("b")
        clock.pump([1.0] * 2)
        assert expired == ["b"]

    def test_many_that_are_late_together_do_not_take_one_turn(self) -> None:
        clock, timeouts, expired = self.make()

        def late(name: str) -> None:
            expired.append(name)
            clock.rightNow += SLICE_SECONDS * 0.6
            # Its answer came in time for this one, and another one began again.
            queue.discard("d")
            if name == "a":
                queue.discard("e")
                queue.add("e")

        queue = timeouts.queue(1.0, late)
        other = timeouts.queue(1.0, late)
        for name in "abcde":
            queue.add(name)
        other.add("f")
        timeouts.stop()
        clock.advance(1.0)
        # `advance` would call those that are left, too.
        timeouts._tick()
        assert expired == ["a", "b"]
        clock.advance(0)
        assert expired == ["a", "b", "c", "f"]
        assert "e" in queue
        clock.advance(1.0)
        assert expired == ["a", "b", "c", "f", "e"]
