"""Group what is asked in one reactor turn into one call of the store.

While one call runs, further items queue; the next call takes them all, up to a bound (group
commit). An idle batcher adds no wait: it flushes at the end of the turn of the first item.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.errors import DomainError, Overloaded

Q = TypeVar("Q")
R = TypeVar("R")

_log = Logger()


class Batcher(Generic[Q, R]):
    """One call of `run` at a time, with every item asked since the last one.

    `run` takes the items and gives a list of one outcome for each, in order; an outcome that is a
    `DomainError` fails its own item only. `bound` limits items queued (beyond: `Overloaded`),
    `largest` the items of one call. `served`, if given, sees every finished call's items and
    outcomes before the askers do. `observe`, if given, gets the size of each call.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Q]], Deferred[Any]],
        clock: IReactorTime,
        *,
        bound: int,
        largest: int,
        served: Callable[[Sequence[Q], Sequence[R | DomainError]], None] | None = None,
        observe: Callable[[float], None] | None = None,
    ) -> None:
        self._run = run
        self._clock = clock
        self._bound = bound
        self._largest = largest
        self._served = served
        self._observe = observe
        self._queue: deque[tuple[Q, Deferred[R]]] = deque()
        self._running = False
        self._scheduled = False
        self._idle: list[Deferred[None]] = []

    def ask(self, item: Q) -> Deferred[R]:
        """Put `item` into the next call; the Deferred fires with its outcome.

        Cancelling the Deferred does not take the item back: it stays in its call, whose result
        is then dropped. Raises `Overloaded` when the queue is full.
        """
        if len(self._queue) >= self._bound:
            raise Overloaded("too many requests are waiting for the store", retry_after=1)
        answer: Deferred[R] = Deferred()
        self._queue.append((item, answer))
        if not self._running and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._flush)
        return answer

    def finished(self) -> Deferred[None]:
        """Fires when nothing is queued or under way."""
        done: Deferred[None] = Deferred()
        if self._running or self._queue:
            self._idle.append(done)
        else:
            done.callback(None)
        return done

    def _flush(self) -> None:
        self._scheduled = False
        count = min(len(self._queue), self._largest)
        taken = [self._queue.popleft() for _ in range(count)]
        items = [item for item, _ in taken]
        if self._observe is not None:
            self._observe(count)
        self._running = True
        try:
            call = self._run(items)
        except Exception:
            self._done(Failure(), taken, items)
        else:
            call.addBoth(self._done, taken, items)

    def _done(
        self,
        outcomes: list[R | DomainError] | Failure,
        taken: list[tuple[Q, Deferred[R]]],
        items: list[Q],
    ) -> None:
        self._running = False
        if self._queue:
            self._flush()
        if isinstance(outcomes, Failure):
            if all(answer.called for _, answer in taken):
                _log.failure("a batch failed after all its clients had gone", outcomes)
            for _, answer in taken:
                answer.errback(outcomes)
        else:
            if self._served is not None:
                self._served(items, outcomes)
            for (_, answer), outcome in zip(taken, outcomes, strict=True):
                _fire(answer, outcome)
        if not self._running and not self._queue:
            idle, self._idle = self._idle, []
            for done in idle:
                done.callback(None)


def _fire(answer: Deferred[Any], outcome: object) -> None:
    # An asker that was cancelled swallows this one late call.
    if isinstance(outcome, DomainError):
        answer.errback(outcome)
    else:
        answer.callback(outcome)
