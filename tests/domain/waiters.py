"""A notifier with waiters, on a clock that the test advances."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock

from chatd.domain.notifier import Notifier
from chatd.domain.session_expiry import SessionExpiry
from chatd.errors import Unauthorized
from chatd.model import Session, WakeReason
from tests.doubles import Now

ANN: Final = Session(1, b"ann's token")
ANN_BASIC: Final = Session(1)
BOB: Final = Session(2, b"bob's token")


class DeferredWaiter:
    """A `chatd.domain.notifier.Waiter` that may wait several times, one after the other.

    It is registered from its construction until `close`.
    """

    __slots__ = ("_deferred", "_notifier", "_pending", "_timer", "seq", "session")

    def __init__(self, session: Session, notifier: Notifier) -> None:
        self._notifier = notifier
        self._deferred: Deferred[WakeReason] | None = None
        self._timer: IDelayedCall | None = None
        # What has happened since the last wait.
        self._pending: WakeReason | Unauthorized | None = None
        self.session = session
        self.seq = 0
        notifier.add(self)

    @property
    def held(self) -> bool:
        return self._deferred is not None

    is_behind = False
    wants_changes = False

    def wait(self, seconds: float, clock: IReactorTime) -> Deferred[WakeReason]:
        """Fires with the reason why the wait ended; at once if woken since the last wait.

        Set `seq` first. Fails with `Unauthorized` when the session was revoked. Cancelling the
        Deferred ends the wait.
        """
        deferred: Deferred[WakeReason] = Deferred(self._cancelled)
        pending, self._pending = self._pending, None
        if pending is None:
            self._deferred = deferred
            self._notifier.hold(self)
            if self._deferred is deferred:
                self._timer = clock.callLater(seconds, self.wake, WakeReason.TIMEOUT)
        elif isinstance(pending, Unauthorized):
            deferred.errback(pending)
        else:
            deferred.callback(pending)
        return deferred

    def close(self) -> None:
        """Stop waiting and unregister. Must always be called, also after a cancelled wait."""
        if self._deferred is not None:
            self._release()
        self._notifier.remove(self)

    def wake(self, reason: WakeReason) -> None:
        """End the current wait, or else the next one at once."""
        if self._deferred is not None:
            self._release().callback(reason)
        elif not isinstance(self._pending, Unauthorized):
            self._pending = reason

    def revoke(self) -> None:
        """Fail the current wait, or else the next one at once, with `Unauthorized`."""
        error = Unauthorized("the session was ended")
        if self._deferred is not None:
            self._release().errback(error)
        else:
            self._pending = error

    def _release(self) -> Deferred[WakeReason]:
        """Stop waiting; returns the Deferred of the wait, not yet fired."""
        deferred, self._deferred = self._deferred, None
        assert deferred is not None
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self._notifier.release()
        return deferred

    def _cancelled(self, deferred: Deferred[WakeReason]) -> None:
        if self._deferred is deferred:
            self._release()


class WaiterHarness:
    """A notifier and its waiters; `close_all` checks that none is left registered."""

    def __init__(self, max_held: int = 100) -> None:
        self.clock = Clock()
        self.now = Now(self.clock)
        expiry = SessionExpiry(self.clock, self.now)
        self.notifier = Notifier(max_held=max_held, expiry=expiry)
        self.waiters: list[DeferredWaiter] = []

    def add(self, session: Session) -> DeferredWaiter:
        """A waiter that does not wait yet."""
        waiter = DeferredWaiter(session, self.notifier)
        self.waiters.append(waiter)
        return waiter

    def wait(self, waiter: DeferredWaiter, seconds: float = 30) -> Deferred[WakeReason]:
        return waiter.wait(seconds, self.clock)

    def hold(
        self, session: Session, seconds: float = 30
    ) -> tuple[DeferredWaiter, Deferred[WakeReason]]:
        """A new waiter and its wait."""
        waiter = self.add(session)
        return waiter, self.wait(waiter, seconds)

    def close_all(self) -> None:
        """Close all waiters, then check that nothing is left of them."""
        for waiter in self.waiters:
            waiter.close()
        assert self.notifier.held == 0
        assert self.notifier.held_by_user() == {}
        assert self.notifier._waiters == {}
        assert self.clock.getDelayedCalls() == []
