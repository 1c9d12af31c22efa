"""The users whose events a process receives from a bus that is asked for them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Protocol

from zope.interface import implementer

from chatd.interfaces import IInterest

LINGER_SECONDS: Final = 90.0
"""How long a user stays subscribed after the last poll or stream: the next one comes soon."""


class Subscriptions(Protocol):
    """Where users are subscribed and unsubscribed; never raises."""

    def subscribe_users(self, user_ids: Collection[int]) -> None:
        """From soon on the events of these users arrive."""
        ...

    def unsubscribe_users(self, user_ids: Collection[int]) -> None:
        """They arrive no more."""
        ...


@implementer(IInterest)
class Interest:
    """An `IInterest` that keeps users subscribed for `LINGER_SECONDS` longer.

    `seconds` is a clock. Before a user is subscribed, and after it is unsubscribed, `forget` is
    called, because what is remembered of the user may be out of date.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self.users: set[int] = set()
        """The users that are subscribed."""
        self.subscriptions: Subscriptions | None = None
        """Set by the bus."""
        self.forget: Callable[[int], None] = lambda user_id: None
        """Set by the store."""
        # When the users that are not watched are unsubscribed, the first one first.
        self._lingering: dict[int, float] = {}

    def watch(self, user_id: int) -> None:
        """The user has a poll or stream."""
        if user_id in self.users:
            self._lingering.pop(user_id, None)
            return
        self.users.add(user_id)
        self.forget(user_id)
        if self.subscriptions is not None:
            self.subscriptions.subscribe_users((user_id,))

    def unwatch(self, user_id: int) -> None:
        """The user's last poll or stream has ended."""
        self._lingering[user_id] = self._seconds() + LINGER_SECONDS

    def expire(self) -> None:
        """Unsubscribe those that have not been watched for long enough."""
        now = self._seconds()
        expired = []
        for user_id, due in self._lingering.items():
            if due > now:
                break
            expired.append(user_id)
        for user_id in expired:
            del self._lingering[user_id]
            self.users.discard(user_id)
            self.forget(user_id)
        if expired and self.subscriptions is not None:
            self.subscriptions.unsubscribe_users(expired)
