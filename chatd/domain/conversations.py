"""Conversations: the list of them, and how far their messages were read and delivered."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred

from chatd.domain.answer_size import fitting
from chatd.errors import Unauthorized
from chatd.interfaces import IBus, IStore
from chatd.model import Session
from chatd.model_sync import (
    ConversationList,
    ConversationsCursor,
    ListConversations,
    MarkRead,
    PeerPositions,
)
from chatd.runtime.shield import shield


class Conversations:
    """Use cases of conversations."""

    def __init__(self, store: IStore, bus: IBus) -> None:
        self._store = store
        self._bus = bus

    async def list(
        self, session: Session, limit: int, before: ConversationsCursor | None = None
    ) -> ConversationList:
        """The caller's conversations, the one with the newest message first."""
        query = ListConversations(session.user_id, limit, before)
        found = await shield(self._store.sync.conversations(query))
        if found is None:
            raise Unauthorized("the account was deleted")
        fit = fitting([each.last_message for each in found.conversations])
        if fit == len(found.conversations):
            return found
        listed = found.conversations[:fit]
        return ConversationList(listed, ConversationsCursor(listed[-1].last_at, listed[-1].peer))

    async def mark_read(self, session: Session, peer: int, seq: int) -> None:
        """What `peer` sent the caller is read up to `seq` of the caller's inbox.

        Raises `InvalidBody` past the end of the inbox, and `UserNotFound`.
        """
        work: Coroutine[Deferred[Any], Any, None] = self._mark_read(session, peer, seq)
        await shield(work)

    async def _mark_read(self, session: Session, peer: int, seq: int) -> None:
        told = await self._store.sync.mark_read(MarkRead(session.user_id, peer, seq))
        if told is None:
            raise Unauthorized("the account was deleted")
        self._bus.publish_changes(told)

    async def positions(self, session: Session, peer: int) -> PeerPositions:
        """The last messages of the caller that were delivered to `peer`, and read by it."""
        return await shield(self._store.sync.peer_positions(session.user_id, peer))
