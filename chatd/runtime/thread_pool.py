"""Thread pool for calls that would block the reactor: SQLite and password hashing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Executor(Protocol):
    """Runs blocking calls outside the reactor thread; with one thread, in the order of `run`."""

    def run(self, call: Callable[..., T], *args: Any) -> Deferred[T]:
        """Run `call(*args)`; the Deferred fires in the reactor thread with its result."""
        ...

    def stop(self) -> None:
        """Finish all pending calls, then end the threads; blocks until they have ended."""
        ...


class ThreadPool:
    """A fixed number of threads that share one queue.

    A call costs one put into a queue and one wake-up of the reactor. That is less than
    `twisted.python.threadpool` needs, and every message takes this path. The queue has no limit,
    since its users have: `chatd.domain.batch` runs one call at a time, `chatd.domain.passwords`
    limits its calls, and everything else makes one call per request.
    """

    def __init__(self, name: str, threads: int, call_from_thread: Callable[..., object]) -> None:
        self._call_from_thread = call_from_thread
        self._jobs: SimpleQueue[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self._jobs = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"chatd-{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        self._started = False

    def run(self, call: Callable[..., T], *args: Any) -> Deferred[T]:
        if not self._started:
            # Not in __init__: twistd forks after it has made the service, which loses threads.
            self._started = True
            for thread in self._threads:
                thread.start()
        result: Deferred[T] = Deferred()
        self._jobs.put((result, call, args))
        return result

    def stop(self) -> None:
        if not self._started:
            return
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            result, call, args = job
            try:
                value = call(*args)
            except BaseException:
                self._call_from_thread(result.errback, Failure())
            else:
                self._call_from_thread(result.callback, value)
            # An idle thread must not keep its last result alive.
            del job, result, call, args
            value = None
