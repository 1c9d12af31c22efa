"""Blocks: whose messages an account does not want. The store applies them to what is sent."""

from __future__ import annotations

from chatd.domain.rate_limits import RateLimits
from chatd.domain.store_calls import StoreCalls
from chatd.errors import InvalidBody
from chatd.interfaces import IStore
from chatd.model import EncodedRows, Session


class Blocks:
    """Use cases of blocks. A change counts as a message for the rate limit, and is one of few that
    the store is given at once."""

    def __init__(self, store: IStore, limits: RateLimits, calls: StoreCalls) -> None:
        self._store = store
        self._calls = calls
        self._limits = limits

    async def block(self, session: Session, user_id: int) -> None:
        """Refuse what an account sends from now on; does nothing if that is so already.

        Raises `InvalidBody` for the caller's own account, `RateLimited`, `UserNotFound`,
        `TooManyBlocks`.
        """
        if user_id == session.user_id:
            raise InvalidBody("user_id: nobody can block themselves")
        self._limits.count_send(session.user_id)
        owner = session.user_id
        await self._calls.run(owner, lambda: self._store.block(owner, user_id))

    async def unblock(self, session: Session, user_id: int) -> None:
        """Undo `block`; does nothing if there is nothing to undo. Raises `RateLimited`."""
        self._limits.count_send(session.user_id)
        owner = session.user_id
        await self._calls.run(owner, lambda: self._store.unblock(owner, user_id))

    async def blocked(self, session: Session) -> EncodedRows:
        """The accounts that the caller has blocked, without deleted ones, in order of name."""
        user_id = session.user_id
        return await self._calls.run(user_id, lambda: self._store.blocks(user_id), is_large=True)
