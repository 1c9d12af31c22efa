"""Removing the oldest messages of an inbox, which makes room for new ones.

The store tells all processes of each step, as when messages are removed because they are old: see
`IStore.removed`.
"""

from __future__ import annotations

from chatd.domain.rate_limits import RateLimits
from chatd.domain.store_calls import StoreCalls
from chatd.errors import Unauthorized
from chatd.interfaces import IStore
from chatd.model import Session


class Removals:
    """What the owner of an inbox may remove from it; counts as one message for the rate limit."""

    def __init__(self, store: IStore, limits: RateLimits, calls: StoreCalls) -> None:
        self._store = store
        self._limits = limits
        self._calls = calls

    async def remove_oldest(self, session: Session, up_to: int) -> None:
        """Remove the messages of the caller's inbox up to the seq `up_to`, whoever has sent them.

        Begins no more steps when it is cancelled, because the client has gone; those that were
        done stay done, and a repeated request goes on from there. Raises `RateLimited`,
        `InvalidQuery` past the end of the inbox, and `Unauthorized` if the account is deleted
        meanwhile.
        """
        self._limits.count_send(session.user_id)
        user_id = session.user_id
        more: bool | None = True
        while more:
            more = await self._calls.run(user_id, lambda: self._store.remove_oldest(user_id, up_to))
        if more is None:
            raise Unauthorized("the account was deleted")
