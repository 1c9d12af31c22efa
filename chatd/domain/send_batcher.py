"""Batches of sends, where no network delays the sends of others by more than a small transaction.

As long as few sends wait, a transaction takes all of them, and nothing else has to be done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from chatd.domain.batch import DEADLINE_SECONDS, MAX_BATCH_SIZE, Batcher, Entry, Receiver
from chatd.domain.caller_networks import CallerNetworks
from chatd.errors import DomainError
from chatd.model import Appended, Draft, text_size
from chatd.runtime.round_robin import RoundRobin

MAX_OF_NETWORK: Final = 48
"""Sends of one network, an IPv4 address or an IPv6 /48, in a transaction: whoever sends from
elsewhere waits for the one that is running."""
MAX_BYTES_OF_NETWORK: Final = 128 * 1024
"""Bytes of their texts in UTF-8, with the send that reaches this."""
MAX_BYTES: Final = 256 * 1024
"""Those of all networks."""
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
        # By network, with the network; what came later is in the other one.
        self._in_turn: RoundRobin[tuple[Hashable, Entry[Draft]]] = RoundRobin()

    def __len__(self) -> int:
        return len(self._came) + self._in_turn.length

    def append(self, entry: Entry[Draft]) -> None:
        """Add one."""
        self._came.append(entry)

    def popleft(self) -> Entry[Draft]:
        """Take one, while they have no turns."""
        return self._came.popleft()

    def arrange(self) -> bool:
        """Whether networks have turns in the next transaction; otherwise it may take all sends."""
        came, in_turn = self._came, self._in_turn
        if not in_turn and (_is_small(came) or not self._is_limited()):
            return False
        for entry in came:
            network = self._callers.of(entry[0].sent_by)
            in_turn.append(network, (network, entry))
        came.clear()
        return True

    def take(self, limit: int, now: float, late: list[Receiver]) -> list[Entry[Draft]]:
        """Take the sends of a transaction, after `arrange`: up to `limit`.

        The receivers of those that have waited for too long are added to `late` instead.
        """
        popleft = self._in_turn.popleft
        taken: list[Entry[Draft]] = []
        taken_bytes = 0
        counts: dict[Hashable, int] = {}
        sizes: dict[Hashable, int] = {}
        # The networks that have as much as they may: a few, with which the transaction has, too.
        full: set[Hashable] = set()
        while len(taken) < limit and taken_bytes < MAX_BYTES:
            try:
                network, entry = popleft(full)
            except IndexError:
                break
            if now - entry[2] >= DEADLINE_SECONDS:
                late.append(entry[1])
                continue
            taken.append(entry)
            size = text_size(entry[0].text)
            taken_bytes += size
            counts[network] = count = counts.get(network, 0) + 1
            sizes[network] = size = sizes.get(network, 0) + size
            if count >= MAX_OF_NETWORK or size >= MAX_BYTES_OF_NETWORK:
                full.add(network)
        return taken


def _is_small(entries: Collection[Entry[Draft]]) -> bool:
    """Whether these make a small transaction, whoever they are of."""
    return (
        len(entries) <= MAX_OF_NETWORK
        and sum([text_size(draft.text) for draft, _, _ in entries]) <= MAX_BYTES_OF_NETWORK
    )


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
        if not self._sends.arrange():
            return super()._take(limit, now)
        late: list[Receiver] = []
        taken = self._sends.take(limit, now, late)
        self._refuse_late(late)
        # If none is left, those who were refused may have asked again at once.
        return taken or self._take(limit, now)
