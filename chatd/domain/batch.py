"""Group commit: calls made in one reactor turn share one call of the store.

While one call runs, further items queue; the next call takes them all, up to a limit. A call of the
store costs as much as a dozen items, and a client that was just answered often sends the next item
at once: so after a call, up to a few turns pass until there are as many items as that call had. An
idle batcher adds no delay: it flushes at the end of the turn in which the first item was submitted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.errors import DomainError, Overloaded, StoreUnavailable
from chatd.runtime.idle import IdleWaiters

Q = TypeVar("Q")
R = TypeVar("R")

MAX_TURNS: Final = 4
"""Turns of the reactor for which further items are waited for."""
EXPECT_SECONDS: Final = 0.005
"""For how long after a call further items are expected."""

DEADLINE_SECONDS: Final = 10.0
"""After so long an item that no call has taken fails, and a call has failed if it can."""
LEAST_SECONDS: Final = 0.5
"""What a call is given at least: most of its items were asked for later than the first one."""

_log = Logger()


class Receiver(Protocol):
    """Receives the result of one item: a Deferred, or an object like it."""

    @property
    def called(self) -> bool:
        """Whether nobody waits for the result any more."""
        ...

    def callback(self, result: Any) -> None:
        """The result."""
        ...

    def errback(self, error: Any) -> None:
        """The error: a `DomainError`, or a Failure."""
        ...


class Batcher(Generic[Q, R]):
    """Runs one call of `run` at a time, with all items submitted since the last one.

    `run` takes the items, and the seconds after which it should have failed: the deadline of the
    first item counts from when it was submitted. It returns one result for each item, in order; a
    result that is a `DomainError` fails its own item only. `max_queued` limits the items waiting
    for a call, `max_batch_size` the items of one call. `on_batch_done` is called with the items and
    results of each successful call, before the results of its items are passed on. `observe_size`
    is called with the number of items in each call.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Q], float], Deferred[Any]],
        clock: IReactorTime,
        *,
        max_queued: int,
        max_batch_size: int,
        on_batch_done: Callable[[Sequence[Q], Sequence[R | DomainError]], None] | None = None,
        observe_size: Callable[[float], None] | None = None,
    ) -> None:
        self._run = run
        self._clock = clock
        self._max_queued = max_queued
        self._max_batch_size = max_batch_size
        self._on_batch_done = on_batch_done
        self._observe_size = observe_size
        # With the time when the item was submitted.
        self._queue: deque[tuple[Q, Receiver, float]] = deque()
        self._running = False
        self._scheduled = False
        # The number of items that the next call may have, if those whose items were processed
        # submit another one soon; how long that is expected, and how many turns it is waited for.
        self._expected = 0
        self._expect_until = float("-inf")
        self._turns = 0
        self._idle_waiters = IdleWaiters()

    def submit(self, item: Q) -> Deferred[R]:
        """Add `item` to the next call; returns a Deferred of its result.

        Cancelling the Deferred does not withdraw the item: it is processed, and its result is
        dropped. Raises `Overloaded` when the queue is full.
        """
        result: Deferred[R] = Deferred()
        self.enqueue(item, result)
        return result

    def enqueue(self, item: Q, receiver: Receiver) -> None:
        """`submit`, with an object that receives the result."""
        if len(self._queue) >= self._max_queued:
            raise Overloaded("too many requests are waiting for the store", retry_after=1)
        self._queue.append((item, receiver, self._clock.seconds()))
        if not self._running and not self._scheduled:
            self._schedule()

    @property
    def queued(self) -> int:
        """The number of items that wait for the next call."""
        return len(self._queue)

    def wait_idle(self) -> Deferred[None]:
        """Fires when no item is queued or being processed."""
        return self._idle_waiters.wait(not self._running and not self._queue)

    def _schedule(self) -> None:
        self._scheduled = True
        self._turns = MAX_TURNS if self._clock.seconds() < self._expect_until else 0
        self._clock.callLater(0, self._flush_later)

    def _flush_later(self) -> None:
        """Flush, unless more items are expected and turns are left to wait for them."""
        if self._turns and len(self._queue) < self._expected:
            self._turns -= 1
            self._clock.callLater(0, self._flush_later)
        else:
            self._flush()

    def _flush(self) -> None:
        self._scheduled = False
        now = self._clock.seconds()
        if now - self._queue[0][2] >= DEADLINE_SECONDS and not self._refuse_late(now):
            self._idle_waiters.notify()
            return
        size = min(len(self._queue), self._max_batch_size)
        batch = [self._queue.popleft() for _ in range(size)]
        items = [item for item, _, _ in batch]
        if self._observe_size is not None:
            self._observe_size(size)
        self._running = True
        within = max(batch[0][2] + DEADLINE_SECONDS - now, LEAST_SECONDS)
        try:
            call = self._run(items, within)
        except Exception:
            self._finish(Failure(), batch, items)
        else:
            call.addBoth(self._finish, batch, items)

    def _refuse_late(self, now: float) -> bool:
        """Fail the items that have waited for too long; returns whether there are others."""
        late = []
        while self._queue and now - self._queue[0][2] >= DEADLINE_SECONDS:
            late.append(self._queue.popleft()[1])
        error = StoreUnavailable("the database is too slow", retry_after=2)
        self._running = True  # What is submitted meanwhile is not scheduled.
        for receiver in late:
            receiver.errback(error)
        self._running = False
        return bool(self._queue)

    def _finish(
        self,
        results: list[R | DomainError] | Failure,
        batch: list[tuple[Q, Receiver, float]],
        items: list[Q],
    ) -> None:
        self._running = False
        self._expected = min(len(self._queue) + len(batch), self._max_batch_size)
        self._expect_until = self._clock.seconds() + EXPECT_SECONDS
        if self._queue:
            self._schedule()
        if isinstance(results, Failure):
            if all(receiver.called for _, receiver, _ in batch):
                _log.failure("a batch failed after all its clients had disconnected", results)
            for _, receiver, _ in batch:
                receiver.errback(results)
        else:
            if self._on_batch_done is not None:
                self._on_batch_done(items, results)
            for (_, receiver, _), result in zip(batch, results, strict=True):
                _pass_on(receiver, result)
        if not self._running and not self._queue:
            self._idle_waiters.notify()


def _pass_on(receiver: Receiver, result: object) -> None:
    # A cancelled Deferred ignores this late result.
    if isinstance(result, DomainError):
        receiver.errback(result)
    else:
        receiver.callback(result)
