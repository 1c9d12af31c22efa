"""Calls of the store for one request each: few at a time, networks and their accounts in turn, and
only while somebody waits for them.

A client can ask and disconnect much faster than the store answers. What it no longer waits for must
not be in the way of others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Final, TypeVar

from msgspec import Struct
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.domain.caller_networks import CallerNetworks
from chatd.domain.fair_queue import FairQueue
from chatd.domain.read_limits import ReadLimits
from chatd.errors import DomainError, Overloaded
from chatd.model import EncodedRows

T = TypeVar("T")

MAX_WAITING: Final = 20_000

_log = Logger()


class _Waiting(Struct, frozen=True, eq=False):
    """A call that has not begun."""

    owner: int
    network: Hashable
    call: Callable[[], Deferred[Any]]
    result: Deferred[Any]
    is_large: bool


class StoreCalls:
    """Runs calls that are not made in batches, `max_running` at a time.

    One account, and one network, have one less than that at a time: another one's call need not
    wait for the end of one, and has fewer threads beside its own. Without rate limits, networks
    are not told apart. Of the large calls, which take several milliseconds each, one runs at a
    time, and they take turns with the others.
    """

    def __init__(self, reads: ReadLimits, callers: CallerNetworks, max_running: int) -> None:
        self._reads = reads
        self._callers = callers
        self._free = max_running
        self._max_of_one = max(1, max_running - 1)
        # By account, and by network.
        self._running: Counter[Hashable] = Counter()
        # By whether they are large.
        self._queues = {False: _queue(), True: _queue()}
        self._runs_large = False
        self._was_large = False

    def run(
        self, owner: int, call: Callable[[], Deferred[T]], *, is_large: bool = False
    ) -> Deferred[T]:
        """`call` for the account `owner`; raises `Overloaded` or `RateLimited`.

        If the Deferred is cancelled before the call has begun, it is not made. After that it runs
        to its end, and a failure is logged unless it is a `DomainError`. A result that is a list,
        encoded or not, counts as more reads.
        """
        self._reads.count(owner)
        result: Deferred[T] = Deferred()
        network = self._callers.of(owner) if self._reads.are_limited else owner
        waiting = _Waiting(owner, network, call, result, is_large)
        if (
            self._free
            and not (is_large and self._runs_large)
            and not self._busy().intersection((owner, waiting.network))
        ):
            self._begin(waiting)
        else:
            self._queues[is_large].append(waiting)
        return result

    def _busy(self) -> set[Hashable]:
        """The accounts and networks that have as many running as they may; they are few."""
        return {one for one, count in self._running.items() if count >= self._max_of_one}

    def _next(self) -> _Waiting | None:
        """Take the call whose turn it is; None if none may begin."""
        busy = self._busy()
        for is_large in (not self._was_large, self._was_large):
            if not (is_large and self._runs_large):
                with suppress(IndexError):
                    return self._queues[is_large].popleft(busy)
        return None

    def _begin(self, waiting: _Waiting) -> None:
        self._free -= 1
        self._was_large = waiting.is_large
        self._runs_large = self._runs_large or waiting.is_large
        self._running.update({waiting.owner, waiting.network})
        maybeDeferred(waiting.call).addBoth(self._end, waiting)

    def _end(self, outcome: object, ended: _Waiting) -> None:
        owner = ended.owner
        self._free += 1
        if ended.is_large:
            self._runs_large = False
        for one in {owner, ended.network}:
            self._running[one] -= 1
            if not self._running[one]:
                del self._running[one]
        if isinstance(outcome, EncodedRows):
            self._reads.charge_rows(owner, outcome.count)
        elif isinstance(outcome, list):
            self._reads.charge_rows(owner, len(outcome))
        while self._free and (waiting := self._next()):
            if waiting.result.called:
                continue
            try:
                self._reads.check(waiting.owner)
            except Overloaded:
                waiting.result.errback(Failure())
            else:
                self._begin(waiting)
        result = ended.result
        if result.called and isinstance(outcome, Failure) and not outcome.check(DomainError):
            _log.failure("failed after its client had disconnected", outcome)
        # A cancelled Deferred ignores one late result.
        result.callback(outcome)


def _queue() -> FairQueue[_Waiting]:
    return FairQueue(
        lambda waiting: waiting.owner,
        max_entries=MAX_WAITING,
        group=lambda waiting: waiting.network,
    )
