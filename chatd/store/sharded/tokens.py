"""Tokens in the sharded layout: they are in the lane of their owner.

A digest does not tell whose it is. The text of a token does, see `chatd.domain.accounts`. Others,
and those whose owner the caller does not name, are looked for in all lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from psycopg2.errors import UniqueViolation

from chatd.model import AddedToken, Session, TokenOptions
from chatd.store import token_statements
from chatd.store.postgres import accounts
from chatd.store.postgres.silent import silenced
from chatd.store.sharded.lanes import LaneExecutor, Lanes, together

MAX_OWNERS: Final = 200_000


class ShardedTokens:
    """Tokens, and who has been seen with them."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._owners: dict[bytes, int] = {}

    async def add(
        self, user_id: int, digest: bytes, options: TokenOptions, verified: str | None, at: int
    ) -> AddedToken | None:
        """See `IStore.add_token`; `at` is unique to the call."""
        while True:
            addition = accounts.add_token(
                user_id, digest, options, verified, at, "", token_statements.ADD_IN_LANE
            )
            try:
                return await self._lanes.of(user_id).execute(silenced(addition))
            except UniqueViolation:
                # Another process has added one at the same time.
                at += 1

    async def sessions(
        self, digests: Sequence[bytes], owners: Mapping[bytes, int], now: int
    ) -> list[Session | None]:
        """See `IStore.sessions`."""
        known = [each for each in digests if each in owners]
        others = [each for each in digests if each not in owners]

        async def find(lane: LaneExecutor, group: Sequence[bytes]) -> list[Session | None]:
            return await accounts.sessions(lane, group, now)

        parts = await self._lanes.run_grouped(known, owners.__getitem__, find)
        error = None
        if others:
            more, error = await self._lanes.reachable(lambda lane: find(lane, others))
            parts += more
        found = {each.token: each for part in parts for each in part if each is not None}
        if error is not None and not all(each in found for each in others):
            raise error
        if len(self._owners) > MAX_OWNERS:
            self._owners.clear()
        self._owners.update({each.token: each.user_id for each in found.values() if each.token})
        return [found.get(digest) for digest in digests]

    async def record_seen(self, users: Mapping[int, int], tokens: Mapping[bytes, int]) -> None:
        """See `IStore.record_seen`."""
        owners = self._owners

        async def record_users(lane: LaneExecutor, group: list[int]) -> None:
            await accounts.record_seen(lane, {each: users[each] for each in group}, {})

        async def record_tokens(lane: LaneExecutor, group: Sequence[bytes]) -> None:
            await accounts.record_seen(lane, {}, {each: tokens[each] for each in group})

        await self._lanes.run_grouped(users, lambda user_id: user_id, record_users)
        known = [each for each in tokens if each in owners]
        others = [each for each in tokens if each not in owners]
        await self._lanes.run_grouped(known, owners.__getitem__, record_tokens)
        if others:
            await together([record_tokens(lane, others) for lane in self._lanes])
