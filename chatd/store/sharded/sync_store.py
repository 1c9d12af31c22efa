"""Conversations and changes in the sharded layout, as an `ISyncStore`.

An account that begins to have changes first gets its row of `sync_state`, so that it is told
everything from then on, and then its conversations as they are in the lanes of its peers. What it
is told of messages that these contain already is not read. Nobody reads before that is complete.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, TypeVar

from twisted.internet.defer import Deferred
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
from chatd.store import sync_statements
from chatd.store.postgres import sync_reading
from chatd.store.postgres.sync_reading import Place
from chatd.store.postgres.sync_sql import PEER_POSITIONS
from chatd.store.sharded import sync_sql
from chatd.store.sharded.lanes import LaneExecutor, Lanes
from chatd.store.statements import Rows, postgres
from chatd.store.sync_statements import CHANGED, SENT

T = TypeVar("T")

OLD_PEERS: Final = 20
"""Peers whose old messages are read at once."""

Position = tuple[int, int, int, int]
"""An account, its peer, and the last messages that were delivered to the peer and read by it."""


@implementer(ISyncStore)
class ShardedSyncStore:
    """An `ISyncStore`, which works while the lanes are open."""

    def __init__(self, lanes: Lanes, announcer: IAnnouncer) -> None:
        self._lanes = lanes
        self._announcer = announcer

    def synchronise(self, user_id: int) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._synchronise(user_id))

    async def _synchronise(self, user_id: int) -> bool:
        return await self._last_change(user_id) is not None

    def conversations(self, query: ListConversations) -> Deferred[ConversationList | None]:
        return Deferred.fromCoroutine(self._conversations(query))

    async def _conversations(self, query: ListConversations) -> ConversationList | None:
        user_id = query.user_id
        if await self._last_change(user_id) is None:
            return None
        listed = await self._run(
            user_id, sync_sql.CONVERSATIONS, **sync_statements.conversations_parameters(query)
        )
        # By time, what the account sent to these is newer than what it received.
        sent = {row[0] for row in listed if (row[7], row[0]) > (row[8], user_id)}
        names, messages = await self._inbox_messages(
            [(row[0], row[6] if row[0] in sent else 0) for row in listed], query.max_bytes
        )
        # What was sent to a deleted account is gone.
        deleted = {row[0] for row in listed if row[0] in sent and row[0] not in names}
        if deleted:
            received = [(user_id, row[10]) for row in listed if row[0] in deleted]
            messages.update((await self._inbox_messages(received, query.max_bytes))[1])
        rows: Rows = []
        for row in listed:
            peer, last_at, read_seq, read_at, delivered, read, seq = row[:7]
            columns = row[11:]
            if peer in sent:
                place = (user_id, row[10]) if peer in deleted else (peer, seq)
                columns = messages.get(place, (None,) * 7)
            summary = (peer, names.get(peer), last_at, read_seq, read_at, delivered, read, row[9])
            rows.append((*summary, *columns))
        found, more = sync_statements.listed_conversations(query, rows)
        return sync_statements.conversation_list(found, more, lambda row: row[7])

    async def _inbox_messages(
        self, wanted: Collection[tuple[int, int]], max_bytes: int
    ) -> tuple[dict[int, str], dict[tuple[int, int], tuple[object, ...]]]:
        """The names of owners of inboxes that have accounts, and messages by owner and seq.

        Of each lane, those after the one with which the texts have `max_bytes` are without a text.
        """

        def read(lane: LaneExecutor, group: list[tuple[int, int]]) -> Deferred[Rows]:
            parameters = {
                "owners": array([each[0] for each in group]),
                "seqs": array([each[1] for each in group]),
                "max_bytes": max_bytes,
            }
            return lane.run(postgres(sync_sql.INBOX_MESSAGES), parameters, prepare=True)

        found = await self._lanes.run_grouped(wanted, lambda each: each[0], read)
        rows = [row for part in found for row in part]
        names = {row[0]: row[1] for row in rows}
        return names, {(row[2], row[3]): row[2:] for row in rows if row[2] is not None}

    def changes(self, query: ReadChanges) -> Deferred[ChangesSlice | None]:
        return Deferred.fromCoroutine(self._changes(query))

    async def _changes(self, query: ReadChanges) -> ChangesSlice | None:
        last = await self._last_change(query.user_id)

        async def read(parameters: dict[str, int]) -> Rows:
            listed = await self._run(query.user_id, sync_sql.CHANGES, **parameters)
            places = [(row[2], row[3]) for row in listed if row[1] in (SENT, CHANGED)]
            _, messages_by_place = await self._inbox_messages(
                dict.fromkeys(places), parameters["max_bytes"]
            )
            nothing = (None,) * 7
            return [
                (*row[:3], *row[4:], *messages_by_place.get((row[2], row[3]), nothing))
                for row in listed
            ]

        return await sync_reading.read_changes(query, last, self._old_messages, read)

    async def _old_messages(
        self, query: ReadChanges, after: Place
    ) -> tuple[list[Message], Place | None]:
        """Messages from before the account had changes, and where to continue; None at the end."""
        user_id = query.user_id
        peers = await self._run(
            user_id, sync_sql.OLD_PEERS, user_id=user_id, peer=after[0], peers=OLD_PEERS
        )

        def read(lane: LaneExecutor, group: Rows) -> Deferred[Rows]:
            begins = [after[1] if peer == after[0] else 0 for peer, _ in group]
            parameters = {
                "user_id": user_id,
                "peers": array([peer for peer, _ in group]),
                "logged": array([logged for _, logged in group]),
                "after": array(begins),
                "limit": query.limit + 1,
                "max_bytes": query.max_bytes,
            }
            return lane.run(postgres(sync_sql.OLD_MESSAGES), parameters, prepare=True)

        found = await self._lanes.run_grouped(peers, lambda row: int(row[0]), read)
        messages = sorted(
            (Message(*row) for rows in found for row in rows),
            key=lambda each: (each.received_by, each.seq),
        )
        done = len(peers) < OLD_PEERS
        return sync_reading.old_slice(query, messages, None if done else peers[-1][0] + 1)

    def mark_read(self, query: MarkRead) -> Deferred[Collection[int] | None]:
        return Deferred.fromCoroutine(self._mark_read(query))

    async def _mark_read(self, query: MarkRead) -> Collection[int] | None:
        user_id, peer, seq = query.user_id, query.peer, query.seq
        if await self._last_change(user_id) is None:
            return None
        rows = await self._run(user_id, sync_sql.READING, user_id=user_id, peer=peer, seq=seq)
        if not rows:
            return None
        [(last, at, reached)] = rows
        if seq > last:
            raise InvalidBody("seq: past the end of the inbox")
        if not await self._run(peer, sync_sql.EXISTED, user_id=peer):
            raise UserNotFound(f"there is no user {peer}")
        changed = user_id, peer
        try:
            # The peer first: what is repeated then tells it again if this ends in between.
            telling = [(peer, user_id, reached, reached)] if reached else []
            missed = await self._tell(telling)
            await self._run(user_id, sync_sql.MOVE_READ, user_id=user_id, peer=peer, seq=seq, at=at)
            # Those that have begun to have changes meanwhile may have read the state from before.
            await self._tell(missed)
        except BaseException:
            self._announcer.announce_unknown(changed)
            raise
        # Whether it moved is not known if a statement was repeated.
        self._announcer.announce_changes(changed)
        return changed

    def peer_positions(self, user_id: int, peer: int) -> Deferred[PeerPositions]:
        rows = self._run(peer, PEER_POSITIONS, user_id=user_id, peer=peer)
        return rows.addCallback(lambda rows: PeerPositions(*rows[0]))

    def record_delivered(self, delivered: Mapping[int, int]) -> Deferred[Collection[int]]:
        return Deferred.fromCoroutine(self._record_delivered(delivered))

    async def _record_delivered(self, delivered: Mapping[int, int]) -> Collection[int]:
        def columns(group: list[int]) -> dict[str, str]:
            return {"users": array(group), "seqs": array([delivered[each] for each in group])}

        def itself(user_id: int) -> int:
            return user_id

        found = await self._lanes.run_grouped(
            delivered,
            itself,
            lambda lane, group: lane.run(sync_sql.DELIVERING, columns(group), prepare=True),
        )
        telling = [
            (sent_by, user_id, seq, 0)
            for rows in found
            for sent_by, user_id, seq in rows
            if seq is not None
        ]
        told: set[int] = set()
        missed = await self._tell(telling, told)
        await self._lanes.run_grouped(
            delivered,
            itself,
            lambda lane, group: lane.run(sync_sql.STORE_DELIVERED, columns(group), prepare=True),
        )
        await self._tell(missed, told)
        self._announcer.announce_changes(told)
        return told

    async def _tell(
        self, positions: Collection[Position], told: set[int] | None = None
    ) -> list[Position]:
        """Tell accounts of positions of peers; returns those whose accounts have no changes.

        Those for which something has changed are added to `told`.
        """

        def tell(lane: LaneExecutor, group: list[Position]) -> Deferred[Rows]:
            names = ("users", "peers", "delivered", "read")
            columns = zip(*group, strict=True)
            parameters = {name: array(each) for name, each in zip(names, columns, strict=True)}
            return lane.run(sync_sql.TELL_POSITIONS, parameters, prepare=True)

        found = await self._lanes.run_grouped(positions, lambda each: each[0], tell)
        rows = [row for part in found for row in part]
        if told is not None:
            told.update(user_id for user_id, has_changed in rows if has_changed)
        have_changes = {user_id for user_id, _ in rows}
        return [each for each in positions if each[0] not in have_changes]

    async def _last_change(self, user_id: int) -> int | None:
        """The number of an account's last change, which has changes from now on.

        None if there is no such account.
        """
        rows = await self._run(user_id, sync_reading.SYNC_STATE, user_id=user_id)
        if not rows or not rows[0][1]:
            if not await self._lanes.of(user_id).run(
                postgres(sync_sql.BEGIN), {"user_id": user_id}
            ):
                return None
            await self._complete(user_id)
            rows = await self._run(user_id, sync_reading.SYNC_STATE, user_id=user_id)
        return rows[0][0] if rows else None

    async def _complete(self, user_id: int) -> None:
        """Find out the conversations of an account that has just begun to have changes."""
        of_user = {"user_id": user_id}
        received = await self._run(user_id, sync_sql.RECEIVED_FROM, **of_user)
        sent = await self._lanes.everywhere(sync_sql.SENT_TO, of_user)
        peers = {row[0] for row in (*received, *sent)}

        def reach(lane: LaneExecutor, group: list[int]) -> Deferred[Rows]:
            return lane.run(postgres(sync_sql.REACHED), {**of_user, "peers": array(group)})

        found = await self._lanes.run_grouped(peers, lambda peer: peer, reach)
        rows = [row for part in found for row in part]
        names = ("peers", "sent_seqs", "sent_ats", "delivered", "read")
        columns = zip(*rows, strict=True) if rows else ((),) * len(names)
        parameters = {name: array(each) for name, each in zip(names, columns, strict=True)}
        await self._run(user_id, sync_sql.COMPLETE, **of_user, **parameters)

    def _run(self, owner: int, sql: str, **parameters: object) -> Deferred[Rows]:
        return self._lanes.of(owner).run(postgres(sql), parameters, prepare=True)
