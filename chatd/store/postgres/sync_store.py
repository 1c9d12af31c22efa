"""Conversations and changes on PostgreSQL, as an `ISyncStore`.

An account that begins to have changes is not settled while transactions may be running that began
before: they record nothing for it. Until they have ended, every read first records what they did,
and so does a `Settling` in the background, which wakes waiters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from chatd.errors import InvalidBody, UserNotFound
from chatd.interfaces import IAnnouncer, ISyncStore
from chatd.model import Message
from chatd.model_sync import (
    ChangesSlice,
    ConversationList,
    ListConversations,
    MarkRead,
    PeerPositions,
    ReadChanges,
)
from chatd.postgres.array_literals import array
from chatd.runtime.delays import Delays
from chatd.store import sync_statements
from chatd.store.postgres import sync_reading, sync_sql
from chatd.store.postgres.retry import Executor
from chatd.store.postgres.silent import silent
from chatd.store.postgres.sync_reading import Place
from chatd.store.statements import Rows, postgres

T = TypeVar("T")

MAX_ROWS: Final = 500
"""Positions in one statement; larger calls are split."""
SETTLE_SECONDS: Final = 1.0
"""Between a transaction's beginning and its lock less time passes; also between two attempts."""

_log = Logger()


@implementer(ISyncStore)
class PostgresSyncStore:
    """An `ISyncStore`, which works while the `executor` is open and until `stop` is called.

    With an `announcer` the database notifies nobody: what it is given here are the changes.
    """

    def __init__(
        self, executor: Executor, reactor: Any, announcer: IAnnouncer | None = None
    ) -> None:
        self._announcer = announcer
        self._executor = executor
        self._reactor = reactor
        self._settling: dict[int, Deferred[None]] = {}
        self._delays = Delays(reactor)
        self._stopped = False

    async def stop(self) -> None:
        """End what is running in the background."""
        self._stopped = True
        self._delays.stop()
        for settling in tuple(self._settling.values()):
            await settling

    def synchronise(self, user_id: int) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._synchronise(user_id))

    async def _synchronise(self, user_id: int) -> bool:
        return await self._last_change(user_id) is not None

    def conversations(self, query: ListConversations) -> Deferred[ConversationList | None]:
        return Deferred.fromCoroutine(self._conversations(query))

    async def _conversations(self, query: ListConversations) -> ConversationList | None:
        if await self._last_change(query.user_id) is None:
            return None
        parameters = sync_statements.conversations_parameters(query)
        rows = await self._run(sync_reading.CONVERSATIONS, **parameters)
        listed, more = sync_statements.listed_conversations(query, rows)
        return sync_statements.conversation_list(listed, more, lambda row: row[7])

    def changes(self, query: ReadChanges) -> Deferred[ChangesSlice | None]:
        return Deferred.fromCoroutine(self._changes(query))

    async def _changes(self, query: ReadChanges) -> ChangesSlice | None:
        last = await self._last_change(query.user_id)

        def read(parameters: dict[str, int]) -> Deferred[Rows]:
            return self._run(sync_reading.CHANGES, **parameters)

        return await sync_reading.read_changes(query, last, self._old_messages, read)

    async def _old_messages(
        self, query: ReadChanges, after: Place
    ) -> tuple[list[Message], Place | None]:
        """Messages from before the account had changes, and where to continue; None at the end."""
        rows = await self._run(
            sync_reading.OLD_MESSAGES,
            user_id=query.user_id,
            peer=after[0],
            seq=after[1],
            limit=query.limit + 1,
            max_bytes=query.max_bytes,
        )
        messages = [Message(*row[1:]) for row in rows if row[1] is not None]
        peers = {row[0] for row in rows}
        done = len(peers) < sync_reading.OLD_PEERS
        return sync_reading.old_slice(query, messages, None if done else max(peers) + 1)

    def mark_read(self, query: MarkRead) -> Deferred[Collection[int] | None]:
        return Deferred.fromCoroutine(self._mark_read(query))

    async def _mark_read(self, query: MarkRead) -> Collection[int] | None:
        if await self._last_change(query.user_id) is None:
            return None
        try:
            rows = await self._run(
                sync_sql.MARK_READ, user_id=query.user_id, peer=query.peer, seq=query.seq
            )
        except BaseException:
            if self._announcer is not None:
                self._announcer.announce_unknown((query.user_id, query.peer))
            raise
        if not rows:
            return None
        [(last, peer_exists)] = rows
        if query.seq > last:
            raise InvalidBody("seq: past the end of the inbox")
        if not peer_exists:
            raise UserNotFound(f"there is no user {query.peer}")
        # Whether it moved is not known if the statement was repeated.
        changed = query.user_id, query.peer
        self._announce(changed)
        return changed

    def peer_positions(self, user_id: int, peer: int) -> Deferred[PeerPositions]:
        rows = self._run(sync_sql.PEER_POSITIONS, user_id=user_id, peer=peer)
        return rows.addCallback(lambda rows: PeerPositions(*rows[0]))

    def record_delivered(self, delivered: Mapping[int, int]) -> Deferred[Collection[int]]:
        return Deferred.fromCoroutine(self._record_delivered(delivered))

    async def _record_delivered(self, delivered: Mapping[int, int]) -> Collection[int]:
        told: set[int] = set()
        items = list(delivered.items())
        for start in range(0, len(items), MAX_ROWS):
            part = items[start : start + MAX_ROWS]
            users, seqs = [user_id for user_id, _ in part], [seq for _, seq in part]
            parameters = {"users": array(users), "seqs": array(seqs)}
            statement = self._statement(sync_sql.RECORD_DELIVERED)
            rows = await self._executor.run(statement, parameters, prepare=True)
            self._announce([row[0] for row in rows])
            told.update(row[0] for row in rows)
        return told

    async def _last_change(self, user_id: int) -> int | None:
        """The number of an account's last change, which has changes from now on.

        None if there is no such account.
        """
        last = await self._state(user_id)
        if last is None and await self._run(sync_sql.SYNCHRONISE, user_id=user_id):
            last = await self._state(user_id)
        return last

    async def _state(self, user_id: int) -> int | None:
        """The number of the last change, with what older transactions have done; None if none."""
        rows = await self._run(sync_reading.SYNC_STATE, user_id=user_id)
        if rows and not rows[0][1]:
            await self._executor.run(sync_sql.AWAIT_REVISIONS)
            caught_up = await self._run(sync_sql.CATCH_UP, user_id=user_id, settled=False)
            self._announce([row[0] for row in caught_up])
            if user_id not in self._settling:
                self._settling[user_id] = Deferred.fromCoroutine(self._settle(user_id))
            rows = await self._run(sync_reading.SYNC_STATE, user_id=user_id)
        return rows[0][0] if rows else None

    async def _settle(self, user_id: int) -> None:
        """Record what older transactions did, until they have ended."""
        try:
            [[began]] = await self._executor.run(sync_sql.NOW)
            settled = found = False
            # What is found may have been recorded by somebody else meanwhile: look once more.
            while not settled or found:
                await self._delays.wait(SETTLE_SECONDS)
                if self._stopped:
                    break
                [[settled]] = await self._executor.run(sync_sql.SETTLED, (began,))
                rows = await self._run(sync_sql.CATCH_UP, user_id=user_id, settled=settled)
                self._announce([row[0] for row in rows])
                found = bool(rows)
        except Exception:
            # The next read begins anew.
            if not self._stopped:
                _log.failure("the changes of an account could not be completed")
        finally:
            del self._settling[user_id]

    def _run(self, sql: str, **parameters: Any) -> Deferred[Rows]:
        return self._executor.run(self._statement(postgres(sql)), parameters, prepare=True)

    def _statement(self, sql: str) -> str:
        return sql if self._announcer is None else silent(sql)

    def _announce(self, user_ids: Collection[int]) -> None:
        if self._announcer is not None and user_ids:
            self._announcer.announce_changes(user_ids)
