"""Threads that do what would block the reactor: SQLite and password hashing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Executor(Protocol):
    """Runs blocking calls elsewhere, in the order asked when it has one thread."""

    def run(self, call: Callable[..., T], *args: Any) -> Deferred[T]:
        """Call `call(*args)`; the Deferred fires in the reactor with its result or failure."""
        ...

    def stop(self) -> None:
        """Finish what was asked, then end the threads; blocks until they have ended."""
        ...


class ThreadPool:
    """A fixed number of long-lived threads behind one queue.

    One queue put and one wake-up of the reactor a call are all that it costs, which is why the
    store uses it instead of `twisted.python.threadpool`: it is on the way of every message.
    The queue has no bound of its own: `chatd.domain.batch` has one call under way,
    `chatd.domain.passwords` counts, and everything else is one call for a request.
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
            # Not before: twistd forks after the service was made, and threads do not survive it.
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
            # Held polls would otherwise keep the last result alive until the next job.
            del job, result, call, args
            value = None
