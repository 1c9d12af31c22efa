"""A notifier with waiters, on a clock that the test advances."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.domain.notifier import Notifier
from chatd.domain.waiter import DeferredWaiter
from chatd.model import Session, WakeReason

ANN: Final = Session(1, b"ann's token")
ANN_BASIC: Final = Session(1)
BOB: Final = Session(2, b"bob's token")


class WaiterHarness:
    """A notifier and its waiters; `close_all` checks that none is left registered."""

    def __init__(self, max_held: int = 100) -> None:
        self.clock = Clock()
        self.notifier = Notifier(max_held=max_held)
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
