"""Waiting until nothing is under way, at shutdown."""

from __future__ import annotations

from twisted.internet.defer import Deferred


class IdleWaiters:
    """Deferreds that fire when their owner becomes idle."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def wait(self, idle: bool) -> Deferred[None]:
        """Fires at once if the owner is `idle`, otherwise with the next `notify`."""
        waiter: Deferred[None] = Deferred()
        if idle:
            waiter.callback(None)
        else:
            self._waiting.append(waiter)
        return waiter

    def notify(self) -> None:
        """The owner has become idle."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)
