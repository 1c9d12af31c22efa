"""Conversations: the list of them, and how far their messages were read and delivered."""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.defer import Deferred

from chatd.domain.answer_size import MAX_READ_BYTES, fitting
from chatd.domain.read_limits import ReadLimits
from chatd.domain.store_calls import StoreCalls
from chatd.errors import Unauthorized
from chatd.interfaces import IBus, IStore
from chatd.model import Session
from chatd.model_sync import (
    ConversationList,
    ConversationsCursor,
    ListConversations,
    MarkRead,
)


class Conversations:
    """Use cases of conversations."""

    def __init__(
        self, store: IStore, bus: IBus, read_limits: ReadLimits, calls: StoreCalls
    ) -> None:
        self._read_limits = read_limits
        self._store = store
        self._calls = calls
        self._bus = bus

    async def list(
        self, session: Session, limit: int, before: ConversationsCursor | None = None
    ) -> ConversationList:
        """The caller's conversations, the one with the newest message first."""
        user_id = session.user_id
        query = ListConversations(user_id, limit, before, MAX_READ_BYTES)
        found = await self._calls.run(user_id, lambda: self._store.sync.conversations(query))
        if found is None:
            raise Unauthorized("the account was deleted")
        messages = [each.last_message for each in found.conversations]
        self._read_limits.charge(user_id, messages)
        fit = fitting(messages)
        if fit == len(found.conversations):
            return found
        listed = found.conversations[:fit]
        return ConversationList(listed, ConversationsCursor(listed[-1].last_at, listed[-1].peer))

    async def mark_read(self, session: Session, peer: int, seq: int) -> None:
        """What `peer` sent the caller is read up to `seq` of the caller's inbox.

        Raises `InvalidBody` past the end of the inbox, and `UserNotFound`.
        """
        mark = MarkRead(session.user_id, peer, seq)

        def call() -> Deferred[bool]:
            return self._store.sync.mark_read(mark).addCallback(self._publish)

        if not await self._calls.run(session.user_id, call):
            raise Unauthorized("the account was deleted")

    def _publish(self, told: Collection[int] | None) -> bool:
        # Also if the client has disconnected meanwhile.
        if told is not None:
            self._bus.publish_changes(told)
        return told is not None
