"""Many deadlines with one delayed call."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from twisted.internet.task import Clock

from chatd.runtime.deadlines import MIN_CANCELLED, Deadlines, Entry
from chatd.runtime.slices import SLICE_SECONDS


@dataclass
class Listener:
    """Records when it is called."""

    clock: Clock
    called: list[float] = field(default_factory=list)

    def on_deadline(self) -> None:
        self.called.append(self.clock.seconds())


def test_each_listener_is_called_at_its_time() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    listeners = [Listener(clock) for _ in range(4)]
    for listener, due in zip(listeners, (5.0, 1.0, 3.0, 1.0), strict=True):
        deadlines.add(due, listener)
    assert len(clock.getDelayedCalls()) == 1
    for _ in range(24):
        clock.advance(0.25)
    assert [listener.called[0] for listener in listeners] == [5.0, 1.0, 3.0, 1.0]
    assert [len(listener.called) for listener in listeners] == [1] * 4
    assert len(deadlines) == 0
    assert clock.getDelayedCalls() == []


def test_a_deadline_in_the_past_is_due_in_the_next_turn() -> None:
    clock = Clock()
    clock.advance(10)
    listener = Listener(clock)
    Deadlines(clock).add(3.0, listener)
    assert listener.called == []
    clock.advance(0)
    assert listener.called == [10.0]


def test_a_cancelled_deadline_is_not_called() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    first, second = Listener(clock), Listener(clock)
    entry = deadlines.add(1.0, first)
    other = deadlines.add(2.0, second)
    deadlines.cancel(entry)
    clock.advance(3)
    assert (first.called, second.called) == ([], [3.0])
    del other


def test_without_deadlines_there_is_no_delayed_call() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    entries = [deadlines.add(1.0, Listener(clock)) for _ in range(3)]
    for entry in entries:
        assert clock.getDelayedCalls()
        deadlines.cancel(entry)
    assert clock.getDelayedCalls() == []


def test_cancelled_deadlines_do_not_fill_the_memory() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    deadlines.add(55.0, Listener(clock))
    for _ in range(10_000):
        deadlines.cancel(deadlines.add(55.0, Listener(clock)))
    assert len(deadlines) == 1
    assert len(deadlines._heap) <= 2 * MIN_CANCELLED + 2


def test_a_listener_may_add_and_cancel_deadlines() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    later = Listener(clock)
    entries: list[Entry] = []

    class Changing:
        def on_deadline(self) -> None:
            deadlines.cancel(entries[0])
            deadlines.add(2.0, later)

    deadlines.add(1.0, Changing())
    entries.append(deadlines.add(1.5, Listener(clock)))
    clock.advance(1)
    clock.advance(1)
    assert later.called == [2.0]
    assert clock.getDelayedCalls() == []


def test_any_order_of_adding_and_cancelling() -> None:
    dice = random.Random(1)
    clock = Clock()
    deadlines = Deadlines(clock)
    expected: dict[int, tuple[float, Listener, Entry]] = {}
    finished: list[tuple[float, Listener]] = []
    for number in range(3000):
        due = clock.seconds() + dice.uniform(0, 60)
        listener = Listener(clock)
        expected[number] = (due, listener, deadlines.add(due, listener))
        if dice.random() < 0.7:
            cancelled = dice.choice([key for key, each in expected.items() if not each[1].called])
            deadlines.cancel(expected.pop(cancelled)[2])
        if dice.random() < 0.1:
            clock.advance(dice.uniform(0, 5))
        for key in [key for key, each in expected.items() if each[1].called]:
            due, listener, _ = expected.pop(key)
            finished.append((due, listener))
        assert len(deadlines) == len(expected)
        assert all(due > clock.seconds() - 1e-6 for due, _, _ in expected.values())
    assert len(finished) > 300
    assert all(len(listener.called) == 1 for _, listener in finished)
    assert all(listener.called[0] >= due - 1e-6 for due, listener in finished)


def test_a_deadline_that_is_due_may_be_cancelled_by_another() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    other, later = Listener(clock), Listener(clock)

    class Cancelling:
        def on_deadline(self) -> None:
            deadlines.cancel(entry)

    deadlines.add(1.0, Cancelling())
    entry = deadlines.add(1.0, other)
    deadlines.add(2.0, later)
    clock.advance(1)
    assert other.called == []
    assert len(deadlines) == 1
    clock.advance(1)
    assert later.called == [2.0]


def test_no_call_remains_if_all_that_are_later_were_cancelled() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    listener = Listener(clock)
    deadlines.add(1.0, listener)
    cancelled = [deadlines.add(due, listener) for due in (5.0, 6.0)]
    for entry in cancelled:
        deadlines.cancel(entry)
    clock.advance(1)
    assert listener.called == [1.0]
    assert clock.getDelayedCalls() == []


def test_many_that_are_due_together_do_not_take_one_turn() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    called: list[str] = []

    @dataclass
    class Slow:
        name: str

        def on_deadline(self) -> None:
            called.append(self.name)
            clock.rightNow += SLICE_SECONDS * 0.6
            deadlines.cancel(entries["c"])

    entries = {name: deadlines.add(1.0, Slow(name)) for name in "abcd"}
    [call] = clock.getDelayedCalls()
    call.cancel()
    clock.advance(1.0)
    # `advance` would call those that are left, too.
    deadlines._call = None
    deadlines._expire()
    assert called == ["a", "b"]
    clock.advance(0)
    assert called == ["a", "b", "d"]
    assert clock.getDelayedCalls() == []
