"""Running blocking calls in threads."""

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
"""Timeout for what a thread does."""


class ReactorThread:
    """Replaces the reactor's `callFromThread`: the test makes the calls itself."""

    def __init__(self) -> None:
        self._calls: Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = Queue()
        self.from_threads: list[str] = []

    def call_from_thread(self, call: Callable[..., Any], *args: Any) -> None:
        self.from_threads.append(threading.current_thread().name)
        self._calls.put((call, args))

    def run_next(self) -> None:
        """Make the next call."""
        call, args = self._calls.get(timeout=SECONDS)
        call(*args)


@pytest.fixture
def reactor_thread() -> ReactorThread:
    return ReactorThread()


@pytest.fixture
def pool(reactor_thread: ReactorThread) -> Iterator[ThreadPool]:
    pool = ThreadPool("test", 1, reactor_thread.call_from_thread)
    yield pool
    pool.stop()


def test_a_result_is_delivered_in_the_reactor_thread(
    pool: ThreadPool, reactor_thread: ReactorThread
) -> None:
    result = pool.run(lambda a, b: (a + b, threading.current_thread().name), 1, 2)
    assert not result.called
    reactor_thread.run_next()
    assert result_of(result) == (3, "chatd-test-0")


def test_an_exception_fails_the_deferred_and_does_not_end_the_thread(
    pool: ThreadPool, reactor_thread: ReactorThread
) -> None:
    def exit() -> None:
        raise SystemExit(3)

    for call, kind in ((lambda: 1 / 0, ZeroDivisionError), (exit, SystemExit)):
        result = pool.run(call)
        reactor_thread.run_next()
        with pytest.raises(kind):
            result_of(result)
    result = pool.run(lambda: 7)
    reactor_thread.run_next()
    assert result_of(result) == 7


def test_one_thread_runs_calls_in_order(pool: ThreadPool, reactor_thread: ReactorThread) -> None:
    done: list[int] = []
    results = [pool.run(done.append, number) for number in range(100)]
    for number in range(100):
        reactor_thread.run_next()
        assert results[number].called
    assert done == list(range(100))


def test_several_threads_run_concurrently(reactor_thread: ReactorThread) -> None:
    pool = ThreadPool("test", 2, reactor_thread.call_from_thread)
    meeting = threading.Barrier(2, timeout=SECONDS)
    results = [pool.run(meeting.wait) for _ in range(2)]
    for _ in range(2):
        reactor_thread.run_next()
    assert sorted(result_of(each) for each in results) == [0, 1]
    pool.stop()
    assert set(reactor_thread.from_threads) == {"chatd-test-0", "chatd-test-1"}


def test_stopping_finishes_pending_calls_and_ends_the_threads(
    reactor_thread: ReactorThread,
) -> None:
    pool = ThreadPool("test", 2, reactor_thread.call_from_thread)
    done: list[int] = []
    results = [pool.run(done.append, number) for number in range(50)]
    pool.stop()
    assert sorted(done) == list(range(50))
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"chatd-test-0", "chatd-test-1"}
    for _ in results:
        reactor_thread.run_next()
    assert all(each.called for each in results)


def test_an_idle_thread_does_not_keep_the_last_result_alive(
    pool: ThreadPool, reactor_thread: ReactorThread
) -> None:
    class Large:
        pass

    result = pool.run(Large)
    reactor_thread.run_next()
    large = weakref.ref(result_of(result))
    del result
    # A second call, so that the thread is certainly past the first one.
    pool.run(int)
    reactor_thread.run_next()
    gc.collect()
    assert large() is None


def test_threads_are_started_by_the_first_call(reactor_thread: ReactorThread) -> None:
    # twistd forks after it has made the service, and threads would stay behind in the parent.
    pool = ThreadPool("lazy", 2, reactor_thread.call_from_thread)
    assert not [each for each in threading.enumerate() if each.name.startswith("chatd-lazy")]
    pool.stop()


def test_threads_are_daemons_so_that_they_do_not_keep_the_process_alive(
    reactor_thread: ReactorThread,
) -> None:
    pool = ThreadPool("test", 1, reactor_thread.call_from_thread)
    pool.run(int)
    [thread] = [each for each in threading.enumerate() if each.name == "chatd-test-0"]
    assert thread.daemon
    pool.stop()


def test_the_doubles_behave_like_a_thread_pool() -> None:
    for double in (InlineExecutor(), SteppedExecutor()):
        pool: Executor = double
        good, bad = pool.run(divmod, 7, 2), pool.run(divmod, 7, 0)
        if isinstance(double, SteppedExecutor):
            assert not good.called
            assert double.pending == 2
            double.work()
            assert (double.pending, double.done) == (1, 1)
            assert not good.called
            assert double.step()
            assert double.step()
            assert not double.step()
        assert result_of(good) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            result_of(bad)
        last = pool.run(int)
        pool.stop()
        assert double.stopped
        if isinstance(double, SteppedExecutor):
            double.deliver()
        assert result_of(last) == 0
