"""This process's subscriber to the bus: wakes polls and ends sessions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from chatd.domain.accounts import Accounts
from chatd.domain.notifier import Notifier
from chatd.interfaces import ISubscriber
from chatd.metrics import Metrics

QUERY_SIZE: Final = 500
"""Tokens in one query."""

_log = Logger()


@implementer(ISubscriber)
class BusSubscriber:
    """Wakes held polls and ends revoked sessions on events of the bus."""

    def __init__(self, notifier: Notifier, accounts: Accounts, metrics: Metrics) -> None:
        self._notifier = notifier
        self._accounts = accounts
        self._metrics = metrics
        self._sessions_verified = True

    def wake(self, user_ids: Collection[int]) -> None:
        self._metrics.count_wakeups("bus", self._notifier.wake(user_ids))

    def changed(self, received_by: int, seq: int, sent_by: int) -> None:
        # Nobody is woken: polls wait for messages, and what is read from now on is as it is.
        self._metrics.count_changed_message()

    def wake_all(self) -> None:
        self._accounts.clear_cache()
        self._metrics.count_wakeups("resync", self._notifier.wake_all())
        # Polls that were woken notice a deleted account when they read, but not a revoked token.
        self._sessions_verified = False
        Deferred.fromCoroutine(self.verify_sessions())

    def revoked(self, user_id: int, token: bytes | None) -> None:
        self._accounts.revoked(user_id, token)
        self._notifier.revoke(user_id, token)

    async def verify_sessions(self) -> None:
        """End the polls whose token was revoked while the bus was down.

        Does nothing if that has been done since the last `wake_all`. If the store fails, the next
        sweep tries again.
        """
        if self._sessions_verified:
            return
        self._sessions_verified = True
        tokens = self._notifier.tokens()
        try:
            for start in range(0, len(tokens), QUERY_SIZE):
                part = tokens[start : start + QUERY_SIZE]
                revoked = await self._accounts.find_revoked([token for _, token in part])
                for user_id, token in part:
                    if token in revoked:
                        self.revoked(user_id, token)
        except Exception:
            self._sessions_verified = False
            _log.failure("the sessions of held polls could not be verified")
