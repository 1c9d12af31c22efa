"""Threads that do what would block the reactor."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

from chatd.runtime.thread_pool import Executor, ThreadPool
from tests.doubles import InlineExecutor, SteppedExecutor, result_of

SECONDS = 10
"""How long a thread may take before a test gives it up."""


class Turns:
    """A reactor's `callFromThread`, whose calls the test makes itself."""

    def __init__(self) -> None:
        self._calls: Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = Queue()
        self.from_threads: list[str] = []

    def call_from_thread(self, call: Callable[..., Any], *args: Any) -> None:
        self.from_threads.append(threading.current_thread().name)
        self._calls.put((call, args))

    def turn(self) -> None:
        """Make the next call."""
        call, args = self._calls.get(timeout=SECONDS)
        call(*args)


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def worker(turns: Turns) -> Iterator[ThreadPool]:
    worker = ThreadPool("test", 1, turns.call_from_thread)
    yield worker
    worker.stop()


def test_a_result_comes_back_through_the_reactor(worker: ThreadPool, turns: Turns) -> None:
    asked = worker.run(lambda a, b: (a + b, threading.current_thread().name), 1, 2)
    assert not asked.called
    turns.turn()
    assert result_of(asked) == (3, "chatd-test-0")


def test_what_a_call_raises_fails_its_deferred_and_not_the_thread(
    worker: ThreadPool, turns: Turns
) -> None:
    def exit() -> None:
        raise SystemExit(3)

    for call, kind in ((lambda: 1 / 0, ZeroDivisionError), (exit, SystemExit)):
        asked = worker.run(call)
        turns.turn()
        with pytest.raises(kind):
            result_of(asked)
    asked = worker.run(lambda: 7)
    turns.turn()
    assert result_of(asked) == 7


def test_one_thread_keeps_the_order_of_calls(worker: ThreadPool, turns: Turns) -> None:
    done: list[int] = []
    asked = [worker.run(done.append, number) for number in range(100)]
    for number in range(100):
        turns.turn()
        assert asked[number].called
    assert done == list(range(100))


def test_several_threads_work_at_once(turns: Turns) -> None:
    worker = ThreadPool("test", 2, turns.call_from_thread)
    meeting = threading.Barrier(2, timeout=SECONDS)
    asked = [worker.run(meeting.wait) for _ in range(2)]
    for _ in range(2):
        turns.turn()
    assert sorted(result_of(each) for each in asked) == [0, 1]
    worker.stop()
    assert set(turns.from_threads) == {"chatd-test-0", "chatd-test-1"}


def test_stopping_finishes_what_was_asked_and_ends_the_threads(turns: Turns) -> None:
    worker = ThreadPool("test", 2, turns.call_from_thread)
    done: list[int] = []
    asked = [worker.run(done.append, number) for number in range(50)]
    worker.stop()
    assert sorted(done) == list(range(50))
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"chatd-test-0", "chatd-test-1"}
    for _ in asked:
        turns.turn()
    assert all(each.called for each in asked)


def test_a_waiting_thread_holds_no_result(worker: ThreadPool, turns: Turns) -> None:
    class Large:
        pass

    asked = worker.run(Large)
    turns.turn()
    large = weakref.ref(result_of(asked))
    del asked
    # A second call, so that the thread is certainly past the first one.
    worker.run(int)
    turns.turn()
    gc.collect()
    assert large() is None


def test_no_thread_is_there_before_the_first_call(turns: Turns) -> None:
    # twistd forks after the service was made, and a thread would stay behind in the parent.
    worker = ThreadPool("lazy", 2, turns.call_from_thread)
    assert not [each for each in threading.enumerate() if each.name.startswith("chatd-lazy")]
    worker.stop()


def test_the_threads_end_with_the_process_even_if_nobody_stops_them(turns: Turns) -> None:
    worker = ThreadPool("test", 1, turns.call_from_thread)
    worker.run(int)
    [thread] = [each for each in threading.enumerate() if each.name == "chatd-test-0"]
    assert thread.daemon
    worker.stop()


def test_the_doubles_do_what_a_worker_does() -> None:
    for double in (InlineExecutor(), SteppedExecutor()):
        worker: Executor = double
        good, bad = worker.run(divmod, 7, 2), worker.run(divmod, 7, 0)
        if isinstance(double, SteppedExecutor):
            assert not good.called
            assert double.asked == 2
            double.work()
            assert (double.asked, double.done) == (1, 1)
            assert not good.called
            assert double.step()
            assert double.step()
            assert not double.step()
        assert result_of(good) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            result_of(bad)
        last = worker.run(int)
        worker.stop()
        assert double.stopped
        if isinstance(double, SteppedExecutor):
            double.deliver()
        assert result_of(last) == 0
