"""Batches of sends, where no network delays the sends of others by more than a small transaction.

As long as few sends wait, a transaction takes all of them, and nothing else has to be done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from chatd.domain.batch import MAX_BATCH_SIZE, Batcher, Entry
from chatd.domain.caller_networks import CallerNetworks
from chatd.errors import DomainError
from chatd.model import Appended, Draft
from chatd.runtime.round_robin import RoundRobin

MAX_OF_NETWORK: Final = 48
"""Sends of one network, an IPv4 address or an IPv6 /48, in a transaction: whoever sends from
elsewhere waits for the one that is running."""
MAX_QUEUED: Final = 5000
"""Sends that may wait, and one more of each network for each transaction."""


class SendQueue:
    """Sends in the order in which they came; if many wait, their networks have turns.

    What one network has sent stays in order.
    """

    def __init__(self, callers: CallerNetworks, is_limited: Callable[[], bool]) -> None:
        self._callers = callers
        self._is_limited = is_limited
        self._came: deque[Entry[Draft]] = deque()
        # By network; what came later is in the other one.
        self._in_turn: RoundRobin[Entry[Draft]] = RoundRobin()

    def __len__(self) -> int:
        return len(self._came) + self._in_turn.length

    def append(self, entry: Entry[Draft]) -> None:
        """Add one."""
        self._came.append(entry)

    def popleft(self) -> Entry[Draft]:
        """Take one."""
        return (self._in_turn or self._came).popleft()

    def arrange(self) -> int:
        """Prepare for a transaction; returns how many sends it may take."""
        came, in_turn = self._came, self._in_turn
        if not in_turn and (len(came) <= MAX_OF_NETWORK or not self._is_limited()):
            return len(came)
        for entry in came:
            in_turn.append(self._callers.of(entry[0].sent_by), entry)
        came.clear()
        return sum([min(count, MAX_OF_NETWORK) for count in in_turn.counts()])


class SendBatcher(Batcher[Draft, Appended]):
    """A batcher of messages whose senders' networks are known to `callers`.

    With `is_limited` false, networks are as one.
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
        self._queue = self._sends = SendQueue(callers, is_limited)
        # The networks that have had their one more since the last transaction.
        self._beyond: set[Hashable] = set()

    def _admits_beyond(self, item: Draft) -> bool:
        network = self._callers.of(item.sent_by)
        if (
            not self._is_limited()
            or network in self._beyond
            or len(self._beyond) >= self._max_queued
        ):
            return False
        self._beyond.add(network)
        return True

    def _take(self, limit: int, now: float) -> list[Entry[Draft]]:
        self._beyond.clear()
        return super()._take(min(limit, self._sends.arrange()), now)
