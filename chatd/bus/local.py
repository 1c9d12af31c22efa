"""In-process bus: wakes the waiters of this process directly."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from chatd.bus.own_events import OwnEvents
from chatd.interfaces import IBus, ISubscriber


@implementer(ISubscriber)
class NoPolls:
    """The subscriber of a process that has no polls and remembers no sessions."""

    def wake(self, user_ids: Collection[int]) -> None:
        pass

    def wake_for_changes(self, user_ids: Collection[int]) -> None:
        pass

    def changed(self, received_by: int, seq: int, sent_by: int) -> None:
        pass

    def wake_all(self) -> None:
        pass

    def check(self, user_ids: Collection[int]) -> None:
        pass

    def revoked(self, user_id: int, token: bytes | None) -> None:
        pass

    def sessions_changed(self, user_id: int) -> None:
        pass


@implementer(IBus)
class LocalBus(OwnEvents):
    """An `IBus` for a store that no other process writes to; it never misses anything."""

    interest = None

    def start(self, subscriber: ISubscriber) -> Deferred[None]:
        self.subscriber = subscriber
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self.subscriber = None
        return succeed(None)

    def problem(self) -> str | None:
        return "the bus is not started" if self.subscriber is None else None
