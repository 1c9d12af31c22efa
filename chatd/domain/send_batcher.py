"""Batches of sends, where no network delays the sends of others by more than a small transaction.

As long as few sends wait, a transaction takes all of them, and nothing else has to be done.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from operator import itemgetter
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from chatd.domain.batch import MAX_BATCH_SIZE, Batcher, Entry, Receiver
from chatd.domain.caller_networks import CallerNetworks
from chatd.errors import DomainError, Overloaded
from chatd.model import Appended, Draft

MAX_OF_NETWORK: Final = 64
"""Those of one network, an IPv4 address or an IPv6 /48: whoever sends from elsewhere waits for the
transaction that is running."""
MAX_QUEUED: Final = 5000
"""Sends that may wait, and one more of each network for each transaction."""


class SendBatcher(Batcher[Draft, Appended]):
    """A batcher of messages whose senders' networks are known to `callers`.

    What one account sends stays in order. With `is_limited` false, networks are as one.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Draft], float], Deferred[Any]],
        clock: IReactorTime,
        callers: CallerNetworks,
        is_limited: Callable[[], bool],
        *,
        on_batch_done: Callable[[Sequence[Draft], Sequence[Appended | DomainError]], None],
        observe_size: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__(
            run,
            clock,
            max_queued=MAX_QUEUED,
            max_batch_size=MAX_BATCH_SIZE,
            on_batch_done=on_batch_done,
            observe_size=observe_size,
        )
        self._callers = callers
        self._is_limited = is_limited
        # The networks that have had their one more since the last transaction.
        self._beyond: set[Hashable] = set()

    def enqueue(self, item: Draft, receiver: Receiver) -> None:
        """See `Batcher.enqueue`."""
        if len(self._queue) >= self._max_queued and self._is_limited():
            network = self._callers.of(item.sent_by)
            if network in self._beyond or len(self._beyond) >= self._max_queued:
                raise Overloaded("too many requests are waiting for the store", 1, "batch_queue")
            self._beyond.add(network)
            self._queue.append((item, receiver, self._clock.seconds()))
        else:
            super().enqueue(item, receiver)

    def _take(self, limit: int, now: float) -> list[Entry[Draft]]:
        self._beyond.clear()
        if len(self._queue) > MAX_OF_NETWORK and self._is_limited():
            limit = min(limit, self._put_in_turn())
        return super()._take(limit, now)

    def _put_in_turn(self) -> int:
        """Reorder the queue: first the oldest send of each network, then the next ones, and so on.

        Returns how many there are in which no network has more than it may.
        """
        of = self._callers.of
        counts: Counter[Hashable] = Counter()
        ranked: list[tuple[int, Entry[Draft]]] = []
        for _ in range(len(self._queue)):
            entry = self._queue.popleft()
            network = of(entry[0].sent_by)
            counts[network] += 1
            ranked.append((counts[network], entry))
        ranked.sort(key=itemgetter(0))
        self._queue = deque([entry for _, entry in ranked])
        return sum(min(count, MAX_OF_NETWORK) for count in counts.values())
