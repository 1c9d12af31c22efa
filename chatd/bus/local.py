"""In-process bus: wakes the waiters of this process directly."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

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
class LocalBus:
    """An `IBus` for a store that no other process writes to; it never misses anything."""

    interest = None

    def __init__(self) -> None:
        self._subscribers: tuple[ISubscriber, ...] = ()

    def start(self, subscriber: ISubscriber) -> Deferred[None]:
        self._subscribers = (subscriber,)
        return succeed(None)

    def stop(self) -> Deferred[None]:
        self._subscribers = ()
        return succeed(None)

    def problem(self) -> str | None:
        return None if self._subscribers else "the bus is not started"

    def publish(self, user_ids: Collection[int]) -> None:
        for subscriber in self._subscribers:
            subscriber.wake(user_ids)

    def publish_changes(self, user_ids: Collection[int]) -> None:
        for subscriber in self._subscribers:
            subscriber.wake_for_changes(user_ids)

    def publish_changed(self, received_by: int, seq: int, sent_by: int) -> None:
        for subscriber in self._subscribers:
            subscriber.changed(received_by, seq, sent_by)

    def publish_revoked(self, user_id: int, token: bytes | None) -> None:
        for subscriber in self._subscribers:
            subscriber.revoked(user_id, token)

    def publish_sessions_changed(self, user_id: int) -> None:
        for subscriber in self._subscribers:
            subscriber.sessions_changed(user_id)
