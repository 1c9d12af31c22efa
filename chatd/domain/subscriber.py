"""What this process does with what the bus tells, and the sweep that checks the bus.

The sweep looks slowly through the inboxes that somebody waits for. A message that it finds was
committed without a wake-up arriving: its finds are counted, and above 0 there is a bug.
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

SWEEP_SECONDS: Final = 30.0
GRACE_SECONDS: Final = 2.0
STEP: Final = 500

_log = Logger()


@implementer(ISubscriber)
class Subscriber:
    """Wakes held polls and ends revoked sessions."""

    def __init__(self, notifier: Notifier, accounts: Accounts, metrics: Metrics) -> None:
        self._notifier = notifier
        self._accounts = accounts
        self._metrics = metrics
        self._is_verified = True

    def wake(self, user_ids: Collection[int]) -> None:
        self._metrics.woken("bus", self._notifier.wake(user_ids))

    def wake_all(self) -> None:
        self._accounts.forget_all()
        self._metrics.woken("resync", self._notifier.wake_all())
        # Those woken look at their inboxes, which shows them deleted accounts; not revoked tokens.
        self._is_verified = False
        Deferred.fromCoroutine(self.verify())

    def revoked(self, user_id: int, token: bytes | None) -> None:
        self._accounts.revoked(user_id, token)
        self._notifier.revoke(user_id, token)

    async def verify(self) -> None:
        """End the polls whose token was revoked while the bus was down.

        Where the store cannot say now, the next sweep asks again.
        """
        if self._is_verified:
            return
        self._is_verified = True
        tokens = self._notifier.tokens()
        try:
            for start in range(0, len(tokens), STEP):
                part = tokens[start : start + STEP]
                revoked = await self._accounts.revoked_among([token for _, token in part])
                for user_id, token in part:
                    if token in revoked:
                        self.revoked(user_id, token)
        except Exception:
            self._is_verified = False
            _log.failure("the sessions of held polls could not be looked up")


class Sweep:
    """Every `SWEEP_SECONDS`, wake the polls that should have been woken.

    What the `subscriber`, if given, could not look up when it was told to, it is told again.
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
        self._looping = LoopingCall(lambda: Deferred.fromCoroutine(self._guarded()))
        self._looping.clock = clock
        self._ended: Deferred[LoopingCall] | None = None
        self._grace: Deferred[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begin sweeping."""
        self._ended = self._looping.start(SWEEP_SECONDS, now=False)

    async def stop(self) -> None:
        """Stop; returns once no sweep is under way."""
        self._stopping = True
        if self._ended is not None:
            self._looping.stop()
            if self._grace is not None:
                self._grace.cancel()
            await self._ended

    async def sweep(self) -> int:
        """Go through all held polls once; returns how many had been forgotten."""
        if self._subscriber is not None:
            await self._subscriber.verify()
        suspects = await self._behind(self._notifier.waiting())
        if not suspects or self._stopping:
            return 0
        # A commit may be visible before its wake-up is here: that is no fault.
        self._grace = deferLater(self._clock, GRACE_SECONDS)
        try:
            await self._grace
        except CancelledError:
            return 0
        finally:
            self._grace = None
        late = [waiter for waiter, seq in suspects if waiter.held and waiter.seq == seq]
        for waiter in late:
            waiter.wake()
        if late:
            _log.error("{found} held polls had missed a wake-up", found=len(late))
        self._metrics.swept(len(late))
        return len(late)

    async def _behind(self, waiting: dict[int, list[Waiter]]) -> list[tuple[Waiter, int]]:
        behind = []
        users = list(waiting)
        for start in range(0, len(users), STEP):
            ends = await self._store.last_seqs(users[start : start + STEP])
            for user_id, end in ends.items():
                behind += [(each, each.seq) for each in waiting[user_id] if each.seq < end]
        return behind

    async def _guarded(self) -> None:
        try:
            await self.sweep()
        except Exception:
            _log.failure("a sweep failed")
