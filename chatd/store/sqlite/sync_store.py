"""Conversations and changes in SQLite, as an `ISyncStore`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from chatd.interfaces import ISyncStore
from chatd.model_sync import (
    ChangesSlice,
    ConversationList,
    ListConversations,
    MarkRead,
    PeerPositions,
    ReadChanges,
)
from chatd.store.sqlite import conversations
from chatd.store.sqlite.changes import Synchronised, read_changes

T = TypeVar("T")

MAX_POSITIONS: Final = 500
"""Delivered positions in a transaction."""


@implementer(ISyncStore)
class SqliteSyncStore:
    """An `ISyncStore`; `read` and `write` run a function of a connection in the store's threads."""

    def __init__(
        self,
        synchronised: Synchronised,
        read: Callable[..., Deferred[Any]],
        write: Callable[..., Deferred[Any]],
    ) -> None:
        self._synchronised = synchronised
        self._read = read
        self._write = write
        # Who has changes by positions that were recorded before others could not be.
        self._told: set[int] = set()

    def synchronise(self, user_id: int) -> Deferred[bool]:
        return self._write(self._synchronised.add, user_id)

    def conversations(self, query: ListConversations) -> Deferred[ConversationList | None]:
        return Deferred.fromCoroutine(self._synchronised_read(conversations.conversations, query))

    def changes(self, query: ReadChanges) -> Deferred[ChangesSlice | None]:
        return Deferred.fromCoroutine(self._synchronised_read(read_changes, query))

    async def _synchronised_read(
        self, call: Callable[[sqlite3.Connection, Any], T | None], query: Any
    ) -> T | None:
        found: T | None = await self._read(call, query)
        if found is None and await self.synchronise(query.user_id):
            found = await self._read(call, query)
        return found

    def mark_read(self, query: MarkRead) -> Deferred[Collection[int] | None]:
        return self._write(self._mark_read, query)

    def _mark_read(self, db: sqlite3.Connection, query: MarkRead) -> frozenset[int] | None:
        if not self._synchronised.add(db, query.user_id):
            return None
        return conversations.mark_read(db, self._synchronised, query)

    def peer_positions(self, user_id: int, peer: int) -> Deferred[PeerPositions]:
        return self._read(conversations.peer_positions, user_id, peer)

    def record_delivered(self, delivered: Mapping[int, int]) -> Deferred[Collection[int]]:
        return Deferred.fromCoroutine(self._record_delivered(list(delivered.items())))

    async def _record_delivered(self, delivered: list[tuple[int, int]]) -> frozenset[int]:
        begin = 0
        while begin < len(delivered):
            # In small transactions, since everybody's sends wait for each.
            part = delivered[begin : begin + MAX_POSITIONS]
            told, done = await self._write(conversations.record_delivered, self._synchronised, part)
            self._told |= told
            begin += done
        told, self._told = frozenset(self._told), set()
        return told
