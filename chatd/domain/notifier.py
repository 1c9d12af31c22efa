"""Who is waiting: held polls by user, and everything that ends a wait.

A poll listens before it reads and reads again after it was woken (architecture, invariant 3):
whatever is committed after its read finds it listening, so a wake-up may come late, but is never
missed. Waking costs what is woken, not what is held.
"""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chatd.errors import Unauthorized
from chatd.model import Session, WakeReason

HELD_PER_USER = 8


class Waiter:
    """One poll's interest in one inbox, from `Notifier.listen` until `close`."""

    __slots__ = ("_deferred", "_notifier", "_pending", "_timer", "seq", "session")

    def __init__(self, notifier: Notifier, session: Session) -> None:
        self._notifier = notifier
        self._deferred: Deferred[WakeReason] | None = None
        self._timer: IDelayedCall | None = None
        self._pending: WakeReason | Unauthorized | None = None
        self.session = session
        self.seq = 0
        """The seq of the last message that the poll has seen; set before `wait`."""

    def wait(self, seconds: float) -> Deferred[WakeReason]:
        """Fires with why the wait ended, at once if something happened since the last wait.

        Fails with `Unauthorized` when the session was revoked. Cancelling it ends the wait.
        """
        return self._notifier._wait(self, seconds)

    def close(self) -> None:
        """Lose interest. Always to be called, also after a cancelled wait."""
        self._notifier._close(self)

    def wake(self) -> None:
        """There may be new messages: end the wait, or the next one at once."""
        self._fire(WakeReason.MESSAGE)

    @property
    def held(self) -> bool:
        """Whether the poll waits now."""
        return self._deferred is not None

    def _fire(self, why: WakeReason | Unauthorized) -> None:
        deferred, self._deferred = self._deferred, None
        if deferred is None:
            # Not waiting: the next wait ends at once. A revocation is final.
            if not isinstance(self._pending, Unauthorized):
                self._pending = why
            return
        self._notifier._held -= 1
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if isinstance(why, Unauthorized):
            deferred.errback(why)
        else:
            deferred.callback(why)


class Notifier:
    """The waiters of one process, an `ISubscriber` of the bus in all but revocations.

    At most `max_held` polls wait at once: beyond, a wait ends at once with `WakeReason.OVERLOAD`.
    At most `HELD_PER_USER` of one user: beyond, the oldest ends with `WakeReason.SUPERSEDED`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        max_held: int,
    ) -> None:
        self._clock = clock
        self._max_held = max_held
        self._waiters: dict[int, list[Waiter]] = {}
        self._held = 0
        self._draining = False

    @property
    def held(self) -> int:
        """How many polls wait now."""
        return self._held

    def listen(self, session: Session) -> Waiter:
        """Be told of whatever happens to the session's inbox from now on."""
        waiter = Waiter(self, session)
        self._waiters.setdefault(session.user_id, []).append(waiter)
        return waiter

    def waiting(self) -> dict[int, list[Waiter]]:
        """The users with held polls, and those polls."""
        return {
            user_id: held
            for user_id, waiters in self._waiters.items()
            if (held := [waiter for waiter in waiters if waiter.held])
        }

    def tokens(self) -> list[tuple[int, bytes]]:
        """The users and tokens, each once, that polls are made with."""
        sessions = {waiter.session for waiters in self._waiters.values() for waiter in waiters}
        return [(each.user_id, each.token) for each in sessions if each.token is not None]

    def wake(self, user_ids: Collection[int]) -> int:
        """New messages for these users; returns how many held polls that ends."""
        before = self._held
        for user_id in user_ids:
            for waiter in tuple(self._waiters.get(user_id, ())):
                waiter.wake()
        return before - self._held

    def wake_all(self) -> int:
        """There may be new messages for anyone."""
        return self.wake(tuple(self._waiters))

    def revoke(self, user_id: int, token: bytes | None) -> None:
        """End the polls made with a token or, with None, all of the user, as unauthorized."""
        for waiter in tuple(self._waiters.get(user_id, ())):
            if token is None or token == waiter.session.token:
                waiter._fire(Unauthorized("the session was ended"))

    def drain(self) -> None:
        """End every wait, now and from now on, with `WakeReason.DRAIN`."""
        self._draining = True
        for waiters in tuple(self._waiters.values()):
            for waiter in tuple(waiters):
                if waiter.held:
                    waiter._fire(WakeReason.DRAIN)

    def _wait(self, waiter: Waiter, seconds: float) -> Deferred[WakeReason]:
        deferred: Deferred[WakeReason] = Deferred(lambda _: self._forget(waiter))
        pending, waiter._pending = waiter._pending, None
        if isinstance(pending, Unauthorized):
            deferred.errback(pending)
        elif pending is not None:
            deferred.callback(pending)
        elif self._draining:
            deferred.callback(WakeReason.DRAIN)
        elif self._held >= self._max_held:
            deferred.callback(WakeReason.OVERLOAD)
        else:
            self._held += 1
            waiter._deferred = deferred
            waiter._timer = self._clock.callLater(seconds, waiter._fire, WakeReason.TIMEOUT)
            self._supersede(waiter.session.user_id)
        return deferred

    def _supersede(self, user_id: int) -> None:
        held = [waiter for waiter in self._waiters[user_id] if waiter.held]
        if len(held) > HELD_PER_USER:
            held[0]._fire(WakeReason.SUPERSEDED)

    def _forget(self, waiter: Waiter) -> None:
        """The canceller of a wait: leave no timer and no count behind."""
        if waiter._deferred is not None:
            waiter._deferred = None
            self._held -= 1
        if waiter._timer is not None:
            waiter._timer.cancel()
            waiter._timer = None

    def _close(self, waiter: Waiter) -> None:
        self._forget(waiter)
        waiters = self._waiters.get(waiter.session.user_id)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[waiter.session.user_id]
