"""The sweep that checks that the bus loses no wake-up.

It slowly reads the ends of the inboxes that polls wait for. A message that it finds was committed
without a wake-up: it counts these, and a count above 0 is a bug, unless the bus may lose wake-ups.
While no events arrive from other processes, which is reported elsewhere, it does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger, LogLevel

from chatd.domain.bus_subscriber import BusSubscriber
from chatd.domain.notifier import Notifier, Waiter
from chatd.interfaces import IStore
from chatd.metrics import Metrics
from chatd.model import WakeReason

SWEEP_SECONDS: Final = 30.0
LOSSY_SWEEP_SECONDS: Final = 10.0
"""The interval with a bus that may lose a wake-up."""
GRACE_SECONDS: Final = 2.0
"""How late a wake-up may arrive before the sweep counts it as lost."""
QUERY_SIZE: Final = 500
"""Users in one query."""

_log = Logger()


class Sweep:
    """Every `SWEEP_SECONDS`, wakes the polls whose wake-up was lost.

    If the bus is `lossy` that is no bug, and is done every `LOSSY_SWEEP_SECONDS`. Nor is it one
    while `bus_problem` returns something, see `IBus.problem`.
    Also repeats `BusSubscriber.verify_sessions`, in case it failed.
    """

    def __init__(
        self,
        store: IStore,
        notifier: Notifier,
        clock: IReactorTime,
        metrics: Metrics,
        subscriber: BusSubscriber | None = None,
        *,
        lossy: bool = False,
        bus_problem: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._bus_problem = bus_problem
        self._lossy = lossy
        self._subscriber = subscriber
        self._store = store
        self._notifier = notifier
        self._clock = clock
        self._metrics = metrics
        self._loop = LoopingCall(lambda: Deferred.fromCoroutine(self._run()))
        self._loop.clock = clock
        self._loop_done: Deferred[LoopingCall] | None = None
        self._grace: Deferred[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin to sweep regularly."""
        self._loop_done = self._loop.start(
            LOSSY_SWEEP_SECONDS if self._lossy else SWEEP_SECONDS, now=False
        )

    async def stop(self) -> None:
        """Stop; returns when no sweep is running."""
        self._stopping = True
        if self._loop_done is not None:
            self._loop.stop()
            if self._grace is not None:
                self._grace.cancel()
            await self._loop_done

    async def sweep(self) -> int:
        """Check all held polls once; returns how many had missed a wake-up."""
        if self._subscriber is not None:
            await self._subscriber.verify_sessions()
        suspects = await self._find_behind(self._notifier.held_by_user())
        if not suspects or self._stopping:
            return 0
        # A commit may become visible shortly before its wake-up arrives.
        self._grace = deferLater(self._clock, GRACE_SECONDS)
        try:
            await self._grace
        except CancelledError:
            return 0
        finally:
            self._grace = None
        missed = [
            waiter
            for waiter, seq in suspects
            if waiter.held and waiter.seq == seq and not waiter.is_behind
        ]
        for waiter in missed:
            waiter.wake(WakeReason.MESSAGE)
        is_cut_off = self._bus_problem() is not None
        if missed:
            level = LogLevel.info if self._lossy or is_cut_off else LogLevel.error
            _log.emit(level, "{found} held polls had missed a wake-up", found=len(missed))
        if is_cut_off:
            self._metrics.count_wakeups("sweep", len(missed))
        else:
            self._metrics.count_missed_wakeups(len(missed))
        return len(missed)

    async def _find_behind(self, held: dict[int, list[Waiter]]) -> list[tuple[Waiter, int]]:
        """The waiters that have not seen the end of their inbox, with the seq they have seen."""
        behind = []
        users = list(held)
        for start in range(0, len(users), QUERY_SIZE):
            ends = await self._store.last_seqs(users[start : start + QUERY_SIZE])
            for user_id, end in ends.items():
                behind += [(each, each.seq) for each in held[user_id] if each.seq < end]
        return behind

    async def _run(self) -> None:
        try:
            await self.sweep()
        except Exception:
            _log.failure("a sweep failed")
