"""This process's subscriber to the bus, and the sweep that checks that the bus loses nothing.

The sweep slowly reads the ends of the inboxes that polls wait for. A message that it finds was
committed without a wake-up: it counts these, and a count above 0 is a bug.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from zope.interface import implementer

from chatd.domain.accounts import Accounts
from chatd.domain.notifier import Notifier, Waiter
from chatd.interfaces import IStore, ISubscriber
from chatd.metrics import Metrics
from chatd.model import WakeReason

SWEEP_SECONDS: Final = 30.0
GRACE_SECONDS: Final = 2.0
"""How late a wake-up may arrive before the sweep counts it as lost."""
QUERY_SIZE: Final = 500
"""Users or tokens in one query."""

_log = Logger()


@implementer(ISubscriber)
class Subscriber:
    """Wakes held polls and ends revoked sessions when the bus says so."""

    def __init__(self, notifier: Notifier, accounts: Accounts, metrics: Metrics) -> None:
        self._notifier = notifier
        self._accounts = accounts
        self._metrics = metrics
        self._sessions_verified = True

    def wake(self, user_ids: Collection[int]) -> None:
        self._metrics.count_wakeups("bus", self._notifier.wake(user_ids))

    def wake_all(self) -> None:
        self._accounts.clear_cache()
        self._metrics.count_wakeups("resync", self._notifier.wake_all())
        # Polls that were woken notice a deleted account when they read, but not a revoked token.
        self._sessions_verified = False
        Deferred.fromCoroutine(self.verify_sessions())

    def revoked(self, user_id: int, token: bytes | None) -> None:
        self._accounts.revoked(user_id, token)
        self._notifier.revoke(user_id, token)

    async def verify_sessions(self) -> None:
        """End the polls whose token was revoked while the bus was down.

        Does nothing if that has been done since the last `wake_all`. If the store fails, the next
        sweep tries again.
        """
        if self._sessions_verified:
            return
        self._sessions_verified = True
        tokens = self._notifier.tokens()
        try:
            for start in range(0, len(tokens), QUERY_SIZE):
                part = tokens[start : start + QUERY_SIZE]
                revoked = await self._accounts.find_revoked([token for _, token in part])
                for user_id, token in part:
                    if token in revoked:
                        self.revoked(user_id, token)
        except Exception:
            self._sessions_verified = False
            _log.failure("the sessions of held polls could not be verified")


class Sweep:
    """Every `SWEEP_SECONDS`, wakes the polls whose wake-up was lost.

    Also repeats `Subscriber.verify_sessions`, in case it failed.
    """

    def __init__(
        self,
        store: IStore,
        notifier: Notifier,
        clock: IReactorTime,
        metrics: Metrics,
        subscriber: Subscriber | None = None,
    ) -> None:
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
        self._loop_done = self._loop.start(SWEEP_SECONDS, now=False)

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
        missed = [waiter for waiter, seq in suspects if waiter.held and waiter.seq == seq]
        for waiter in missed:
            waiter.wake(WakeReason.MESSAGE)
        if missed:
            _log.error("{found} held polls had missed a wake-up", found=len(missed))
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
