"""This process's subscriber to the bus: wakes polls and ends sessions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from chatd.domain.accounts import Accounts
from chatd.domain.deliveries import Deliveries
from chatd.domain.notifier import Notifier
from chatd.errors import DomainError
from chatd.interfaces import IStore, ISubscriber
from chatd.metrics import Metrics
from chatd.runtime.turn import turn_of

QUERY_SIZE: Final = 500
"""Sessions, or users, in one query."""

WAKE_SECONDS: Final = 0.002
"""For how long users are woken in one turn of the reactor."""

_log = Logger()


class _WakeUps:
    """Wakes users by `wake`, which returns how many waiters that were; those for whom a turn of the
    reactor has no time in later ones, before others.

    `woken` is called with the waiters woken in a turn, and the seconds until the last one was.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wake: Callable[[Collection[int]], int],
        woken: Callable[[int, float], None],
    ) -> None:
        self._clock = clock
        self._turn = turn_of(clock)
        self._wake_waiters = wake
        self._woken = woken
        # The users to be woken later; as a set, in order.
        self._late: dict[int, None] = {}

    def wake(self, user_ids: Collection[int]) -> None:
        """Wake the waiters of users."""
        if self._late:
            self._late.update(dict.fromkeys(user_ids))
        else:
            self._wake(user_ids)

    def _wake(self, user_ids: Iterable[int]) -> None:
        began = now = self._clock.seconds()
        until = self._turn.until(now, WAKE_SECONDS)
        woken = 0
        users = iter(user_ids)
        for user_id in users:
            held = self._wake_waiters((user_id,))
            if held:
                woken += held
                now = self._clock.seconds()
                if now >= until:
                    break
        late = dict.fromkeys(users)
        if late and not self._late:
            self._clock.callLater(0, self._wake_late)
        self._late.update(late)
        self._woken(woken, now - began)

    def _wake_late(self) -> None:
        late, self._late = self._late, {}
        self._wake(late)


@implementer(ISubscriber)
class BusSubscriber:
    """Wakes held polls and ends revoked sessions on events of the bus.

    Waking writes what is in memory. If that takes long, because many are woken or what they get is
    large, those who are left are woken in later turns of the reactor, before others.
    """

    def __init__(
        self,
        store: IStore,
        notifier: Notifier,
        accounts: Accounts,
        deliveries: Deliveries,
        metrics: Metrics,
        clock: IReactorTime,
    ) -> None:
        self._store = store
        self._for_messages = _WakeUps(clock, notifier.wake, self._woken)
        # What an account has sent may be deleted from thousands of inboxes, and all who wait for
        # changes there read them.
        self._for_changes = _WakeUps(clock, notifier.wake_for_changes, self._woken_for_changes)
        self._notifier = notifier
        self._accounts = accounts
        self._deliveries = deliveries
        self._metrics = metrics
        # The users whose sessions have to be verified; None: of all users.
        self._unverified: set[int] | None = set()

    def wake(self, user_ids: Collection[int]) -> None:
        self._for_messages.wake(user_ids)

    def _woken(self, count: int, seconds: float) -> None:
        self._metrics.count_wakeups("bus", count)
        if count:
            self._metrics.observe_delivery(seconds, count)

    def wake_for_changes(self, user_ids: Collection[int]) -> None:
        self._for_changes.wake(user_ids)

    def _woken_for_changes(self, count: int, seconds: float) -> None:
        self._metrics.count_wakeups("bus", count)

    def changed(self, received_by: int, seq: int, sent_by: int) -> None:
        # Nobody is woken: polls wait for messages, and what is read from now on is as it is.
        self._metrics.count_changed_message()

    def wake_all(self) -> None:
        self._accounts.clear_cache()
        # A standby that has taken over may lack messages, whose places others take.
        self._deliveries.forget()
        self._metrics.count_wakeups("resync", self._notifier.wake_all())
        # Polls that were woken notice a deleted account when they read, but not that their session
        # has ended.
        self._unverified = None
        Deferred.fromCoroutine(self.verify_sessions())

    def check(self, user_ids: Collection[int]) -> None:
        Deferred.fromCoroutine(self._check(list(user_ids)))

    async def _check(self, user_ids: list[int]) -> None:
        # What changes there are is not known without reading them.
        woken = self._notifier.wake_for_changes(user_ids)
        try:
            for start in range(0, len(user_ids), QUERY_SIZE):
                ends = await self._store.last_seqs(user_ids[start : start + QUERY_SIZE])
                behind = [user_id for user_id, end in ends.items() if self._is_behind(user_id, end)]
                woken += self._notifier.wake(behind)
        except DomainError:
            pass  # The store is away. The sweep checks all who wait.
        except Exception:
            _log.failure("the inboxes of held polls could not be checked")
        self._metrics.count_wakeups("check", woken)

    def _is_behind(self, user_id: int, end: int) -> bool:
        """Whether a waiter of the user has not seen the end, or may be reading before it."""
        return any(not each.held or each.seq < end for each in self._notifier.waiters_of(user_id))

    def revoked(self, user_id: int, token: bytes | None) -> None:
        self._accounts.revoked(user_id, token)
        self._notifier.revoke(user_id, token)

    def sessions_changed(self, user_id: int) -> None:
        self._accounts.revoked(user_id, None)
        if self._unverified is not None:
            self._unverified.add(user_id)
        Deferred.fromCoroutine(self.verify_sessions())

    async def verify_sessions(self) -> None:
        """End the polls whose sessions have ended, where that may be.

        Does nothing if that has been done since the last `wake_all` or `sessions_changed`. If the
        store fails, the next sweep tries again.
        """
        users, self._unverified = self._unverified, set()
        sessions = self._notifier.sessions(users)
        try:
            for start in range(0, len(sessions), QUERY_SIZE):
                part = sessions[start : start + QUERY_SIZE]
                for session in await self._accounts.find_ended(part):
                    self._notifier.end(session)
        except Exception:
            if users is None or self._unverified is None:
                self._unverified = None
            else:
                self._unverified |= users
            _log.failure("the sessions of held polls could not be verified")
