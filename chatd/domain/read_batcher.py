"""Batches of reads: networks and accounts in turn, and only what somebody waits for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from chatd.domain.batch import DEADLINE_SECONDS, Batcher, Entry, Receiver
from chatd.domain.fair_queue import FairQueue
from chatd.errors import DomainError

Q = TypeVar("Q")
R = TypeVar("R")


class ReadBatcher(Batcher[Q, R]):
    """A batcher of reads, which have no effect: what nobody waits for any more is left out.

    The networks `group(item)` have turns, and in each the accounts `owner(item)`. `weigh` says how
    many messages the result may have; a call is made for `max_weight` or a little more, so that one
    with large results ends soon and does not take much memory. `check` may raise a `DomainError`
    for an item that waited.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Q], float], Deferred[Any]],
        clock: IReactorTime,
        *,
        max_queued: int,
        max_batch_size: int,
        owner: Callable[[Q], Hashable],
        group: Callable[[Q], Hashable],
        weigh: Callable[[Q], int],
        max_weight: int,
        check: Callable[[Q], None] = lambda item: None,
        observe_size: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__(
            run,
            clock,
            # How many there may be is a matter of whose they are.
            max_queued=2 * max_queued,
            max_batch_size=max_batch_size,
            observe_size=observe_size,
        )
        self._queue = FairQueue(
            lambda entry: owner(entry[0]),
            max_entries=max_queued,
            group=lambda entry: group(entry[0]),
        )
        self._weigh = weigh
        self._check = check
        self._max_weight = max_weight

    def _take(self, limit: int, now: float) -> list[Entry[Q]]:
        queue = self._queue
        late: list[Receiver] = []
        batch: list[Entry[Q]] = []
        weight = 0
        while queue and len(batch) < limit and weight < self._max_weight:
            item, receiver, since = entry = queue.popleft()
            if receiver.called:
                continue
            if now - since >= DEADLINE_SECONDS:
                late.append(receiver)
                continue
            try:
                self._check(item)
            except DomainError:
                receiver.errback(Failure())
            else:
                batch.append(entry)
                weight += self._weigh(item)
        self._refuse_late(late)
        return batch

    def _finish(
        self,
        results: list[R | DomainError] | Failure,
        batch: list[Entry[Q]],
        items: list[Q],
    ) -> None:
        if isinstance(results, Failure):
            super()._finish(results, batch, items)
        else:
            # The next call is made after that, so that results do not pile up.
            done = partial(self._end_reads, len(batch))
            self._deliver(zip(batch, results, strict=True), done)

    def _end_reads(self, size: int) -> None:
        self._end_call(size)
        if self._is_idle:
            self._idle_waiters.notify()
