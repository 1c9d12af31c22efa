"""Users that are subscribed."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from chatd.bus.interest import LINGER_SECONDS, Interest
from chatd.interfaces import IInterest


class Recorded:
    """Records what an `Interest` does."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.done: list[tuple[str, int]] = []
        self.interest = Interest(self.clock.seconds)
        self.interest.forget = lambda user_id: self.done.append(("forget", user_id))
        self.interest.subscriptions = self

    def subscribe_users(self, user_ids: Collection[int]) -> None:
        self.done += [("subscribe", user_id) for user_id in user_ids]

    def unsubscribe_users(self, user_ids: Collection[int]) -> None:
        self.done += [("unsubscribe", user_id) for user_id in user_ids]

    def take(self) -> list[tuple[str, int]]:
        done, self.done = self.done, []
        return done


def test_users_linger() -> None:
    recorded = Recorded()
    interest = recorded.interest
    verifyObject(IInterest, interest)
    interest.watch(1)
    assert recorded.take() == [("forget", 1), ("subscribe", 1)]
    for _ in range(3):
        interest.unwatch(1)
        recorded.clock.advance(LINGER_SECONDS - 1)
        interest.expire()
        interest.watch(1)
        recorded.clock.advance(LINGER_SECONDS)
        interest.expire()
    assert recorded.take() == []
    interest.unwatch(1)
    recorded.clock.advance(10)
    interest.watch(2)
    interest.unwatch(2)
    recorded.clock.advance(LINGER_SECONDS - 10)
    recorded.take()
    interest.expire()
    assert recorded.take() == [("forget", 1), ("unsubscribe", 1)]
    assert interest.users == {2}
    recorded.clock.advance(10)
    interest.expire()
    assert interest.users == set()
    assert interest._lingering == {}


def test_without_a_bus_nobody_is_subscribed() -> None:
    recorded = Recorded()
    recorded.interest.subscriptions = None
    recorded.interest.watch(1)
    recorded.interest.unwatch(1)
    recorded.clock.advance(LINGER_SECONDS)
    recorded.interest.expire()
    assert recorded.take() == [("forget", 1), ("forget", 1)]
