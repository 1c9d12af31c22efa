"""The layout of a sharded PostgreSQL: the tables are shards on several servers, see `Layout`.

Every statement is of one lane, and runs directly on the server that has its shards. What concerns
several lanes is done by several statements, in an order in which it can be done again: see the
modules of this package. Nothing is locked in two lanes at once, so there are no deadlocks between
them. Processes tell each other by a bus, as NOTIFY is heard on its own server only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred

from chatd.errors import DomainError, StoreUnavailable
from chatd.interfaces import IAnnouncer
from chatd.model import (
    Account,
    AccountChange,
    AccountState,
    AddedToken,
    Appended,
    ConversationSlice,
    Credentials,
    Draft,
    EncodedRows,
    EncodedTokens,
    Erased,
    InboxLimits,
    InboxSlice,
    Message,
    ReadAfter,
    ReadConversation,
    ReadPage,
    Revision,
    Session,
    Token,
    TokenOptions,
    UserName,
)
from chatd.postgres.pool import Pool
from chatd.runtime.delays import Delays
from chatd.store import admin_statements, statements, token_statements
from chatd.store.postgres import accounts, admin_sql, chats, contacts, revisions
from chatd.store.postgres.append import new_batch_id
from chatd.store.postgres.plain import DATABASE_BYTES, DELETE_TOKENS_STEP, NOW
from chatd.store.postgres.retention import Execute
from chatd.store.postgres.schema import version
from chatd.store.postgres.silent import silenced
from chatd.store.removed_rows import Deleted
from chatd.store.results import merge_directions, user_not_found
from chatd.store.sharded import claims
from chatd.store.sharded.accounts import ShardedAccounts
from chatd.store.sharded.append import ShardedAppender
from chatd.store.sharded.erasure import Erasure
from chatd.store.sharded.lanes import LaneExecutor, Lanes, together
from chatd.store.sharded.outbox import News, Outbox
from chatd.store.sharded.retention import delete_removed
from chatd.store.sharded.sync_store import ShardedSyncStore
from chatd.store.sharded.tokens import ShardedTokens
from chatd.store.statements import Statement
from chatd.store.sync_statements import CHANGED

T = TypeVar("T")

REACH_SECONDS: Final = 2.0
"""How long a server is waited for at the start, and between two attempts after that."""

_HAS_INBOX: Final = "SELECT 1 FROM inbox WHERE user_id = %s AND NOT closed"


class ShardedLayout:
    """A `Layout` on lanes; `announcer` tells other processes, which the database does not."""

    def __init__(
        self,
        lanes: Lanes,
        *,
        reactor: Any,
        now: Callable[[], int],
        known_only: bool,
        limits: InboxLimits,
        announcer: IAnnouncer,
    ) -> None:
        self._lanes = lanes
        self._now = now
        self._limits = limits
        self._announcer = announcer
        self._outbox = Outbox(lanes, reactor, now, announcer)
        self._appender = ShardedAppender(
            lanes, self._outbox, now=now, known_only=known_only, limits=limits, announcer=announcer
        )
        self._delays = Delays(reactor)
        self._loading: dict[LaneExecutor, Deferred[None]] = {}
        self._stopped = False
        self._accounts = ShardedAccounts(lanes)
        self._tokens = ShardedTokens(lanes)
        self._erasure = Erasure(lanes)
        self.sync = ShardedSyncStore(lanes, announcer)

    @property
    def pools(self) -> Sequence[Pool]:
        """The pools of the coordinator and of all servers."""
        return [each.pool for each in self._lanes.executors]

    async def open(self) -> None:
        """See `Layout`."""
        await self._lanes.open()
        self._outbox.start()

    async def close(self) -> None:
        """See `Layout`."""
        self._stopped = True
        self._delays.stop()
        for each in tuple(self._loading.values()):
            await each
        await self._outbox.stop()
        await self._lanes.close()

    def lane(self, user_id: int) -> int:
        """See `Layout`."""
        return self._lanes.index(user_id)

    def countdown(self, seconds: float | None) -> Callable[[], float]:
        """See `Layout`."""
        return self._lanes.coordinator.countdown(seconds)

    async def check(self, deadline: float) -> None:
        """See `Layout`; it is enough if messages can be stored in one lane.

        While a server is away, this process serves the users of all others.
        """
        found, error = await self._lanes.reachable(
            lambda lane: self._appender.of(lane).check(deadline)
        )
        if error is not None and not found:
            raise error

    async def version(self, deadline: float) -> int:
        """See `Layout`."""
        return await version(lambda sql: self._lanes.coordinator.run(sql, deadline=deadline))

    async def append(
        self, drafts: Sequence[Draft], node_id: str, within: float | None
    ) -> list[Appended | DomainError]:
        """See `Layout`."""
        return await self._appender.append(drafts, node_id, within)

    async def revise(self, revision: Revision, node_id: str) -> Message | DomainError:
        """See `Layout`."""
        batches: list[tuple[int, str]] = []

        def new_batch() -> str:
            batch_id = new_batch_id(self._now())
            batches.append((revision.received_by, batch_id))
            return batch_id

        lane = self._lanes.of(revision.received_by)
        result = await revisions.revise(
            lane, revision, node_id, self._limits.bytes, notifying=False, new_batch=new_batch
        )
        if batches and isinstance(result, Message):
            news = News(result.sent_by, CHANGED, result.received_by, result.seq, 0)
            await self._outbox.tell([news], batches, self.countdown(None)())
        return result

    async def erase(self, user_id: int | None, node_id: str) -> Erased:
        """See `Layout`."""
        erased = await self._erasure.step(user_id)
        for message in erased.messages:
            self._announcer.announce_changed(message.received_by, message.seq, message.sent_by)
        self._announcer.announce_changes({message.received_by for message in erased.messages})
        return erased

    async def read(
        self, queries: Sequence[ReadAfter | ReadPage], deadline: float
    ) -> list[InboxSlice | None]:
        """See `Layout`."""
        found: dict[int, InboxSlice | None] = {}

        async def read(lane: LaneExecutor, places: list[int]) -> None:
            results = await chats.read(lane, [queries[place] for place in places], deadline)
            found.update(zip(places, results, strict=True))

        await self._lanes.run_grouped(
            range(len(queries)), lambda place: queries[place].user_id, read
        )
        return [found[place] for place in range(len(queries))]

    async def conversation(self, query: ReadConversation) -> ConversationSlice | None:
        """See `Layout`; each direction is from a snapshot of its own."""
        user_id, peer = query.user_id, query.peer
        received, sent = await together(
            [
                self._execute(inbox, statements.one_direction(query, inbox, other))
                for inbox, other in ((user_id, peer), (peer, user_id))
            ]
        )
        if received is None:
            return None
        messages = received if user_id == peer else [*received, *(sent or ())]
        return merge_directions(query, messages, sent is not None)

    async def last_seqs(self, user_ids: Collection[int]) -> dict[int, int]:
        """See `Layout`."""
        found: dict[int, int] = {}
        for part in await self._lanes.run_grouped(user_ids, lambda each: each, chats.last_seqs):
            found.update(part)
        return found

    async def load_removed(self, apply: Callable[[Iterable[tuple[int, int]]], object]) -> None:
        """See `Layout`."""

        async def load(lane: LaneExecutor) -> None:
            try:
                apply((await chats.removed(lane, REACH_SECONDS)).items())
            except StoreUnavailable:
                if lane not in self._loading:
                    self._loading[lane] = Deferred.fromCoroutine(self._load_later(lane, apply))

        await together([load(lane) for lane in self._lanes])

    async def _load_later(
        self, lane: LaneExecutor, apply: Callable[[Iterable[tuple[int, int]]], object]
    ) -> None:
        """Do it as soon as the server can be reached."""
        while not self._stopped:
            await self._delays.wait(REACH_SECONDS)
            with suppress(StoreUnavailable):
                apply((await chats.removed(lane)).items())
                break
        self._loading.pop(lane, None)

    async def add_account(self, username: str, email: str, password_hash: str, at: int) -> Account:
        """See `Layout`."""
        return await self._accounts.add(username, email, password_hash, at)

    def account(self, user_id: int) -> Awaitable[Account | None]:
        """See `Layout`."""
        return self._execute(user_id, statements.account(user_id, accounts.ACCOUNTS))

    async def account_named(self, username: str) -> Account | None:
        """See `Layout`."""
        return await self._accounts.named(username)

    async def credentials(self, username: str) -> Credentials | None:
        """See `Layout`."""
        return await self._accounts.credentials(username)

    async def password_hashes(self, user_ids: Collection[int]) -> dict[int, str]:
        """See `Layout`."""
        return await self._accounts.password_hashes(user_ids)

    def change_account(self, change: AccountChange, node_id: str) -> Awaitable[Account | None]:
        """See `Layout`."""
        return self._execute(change.user_id, accounts.change_account(change, node_id))

    async def find_users(self, prefix: str, limit: int) -> list[UserName]:
        """See `Layout`."""
        return await self._accounts.find(prefix, limit)

    async def delete_account(self, user_id: int, at: int, node_id: str, erase: bool) -> bool:
        """See `Layout`."""
        return await self._accounts.delete(user_id, at, erase)

    async def add_token(
        self,
        user_id: int,
        digest: bytes,
        options: TokenOptions,
        verified: str | None,
        now: int,
        node_id: str,
    ) -> AddedToken | None:
        """See `Layout`."""
        return await self._tokens.add(user_id, digest, options, verified, now)

    async def sessions(
        self, digests: Sequence[bytes], owners: Mapping[bytes, int], now: int
    ) -> list[Session | None]:
        """See `Layout`."""
        return await self._tokens.sessions(digests, owners, now)

    def tokens(self, user_id: int, now: int) -> Awaitable[list[Token]]:
        """See `Layout`."""
        return self._execute(user_id, token_statements.tokens(user_id, now))

    def encoded_tokens(
        self, user_id: int, now: int, current: int | None
    ) -> Awaitable[EncodedTokens]:
        """See `Layout`."""
        return self._execute(user_id, accounts.encoded_tokens(user_id, now, current))

    def delete_token(self, user_id: int, digest: bytes, node_id: str) -> Awaitable[bool]:
        """See `Layout`."""
        return self._execute(user_id, accounts.delete_token(user_id, digest, node_id))

    def delete_token_by_id(
        self, user_id: int, token_id: int, now: int, node_id: str
    ) -> Awaitable[bool]:
        """See `Layout`."""
        statement = accounts.delete_token_by_id(user_id, token_id, now, node_id)
        return self._execute(user_id, statement)

    def delete_other_tokens(
        self, user_id: int, kept: bytes | None, node_id: str
    ) -> Awaitable[None]:
        """See `Layout`."""
        return self._execute(user_id, accounts.delete_other_tokens(user_id, kept, node_id))

    async def record_seen(self, users: Mapping[int, int], tokens: Mapping[bytes, int]) -> None:
        """See `Layout`."""
        await self._tokens.record_seen(users, tokens)

    async def block(self, user_id: int, blocked_id: int) -> None:
        """See `Layout`."""
        # Whether both have inboxes; the statement itself looks for one more time at the owner's.
        if not await self._lanes.of(blocked_id).run(_HAS_INBOX, (blocked_id,)):
            raise user_not_found(blocked_id)
        await self._execute(user_id, contacts.block(user_id, blocked_id, in_lane=True))

    def unblock(self, user_id: int, blocked_id: int) -> Awaitable[None]:
        """See `Layout`."""
        return self._execute(user_id, contacts.unblock(user_id, blocked_id))

    async def blocks(self, user_id: int) -> EncodedRows:
        """See `Layout`."""
        return await self._accounts.blocks(user_id)

    async def account_states(self, after: int, limit: int, now: int) -> list[AccountState]:
        """See `Layout`."""
        return await self._accounts.states(after, limit, now)

    async def account_state_named(self, username: str, now: int) -> AccountState | None:
        """See `Layout`."""
        return await self._accounts.state_named(username, now)

    def set_password(self, user_id: int, password_hash: str, node_id: str) -> Awaitable[bool]:
        """See `Layout`."""
        return self._execute(user_id, admin_sql.set_password(user_id, password_hash, node_id))

    def disable(self, user_id: int, at: int, node_id: str) -> Awaitable[bool]:
        """See `Layout`."""
        return self._execute(user_id, admin_sql.disable(user_id, at, node_id))

    def enable(self, user_id: int) -> Awaitable[bool]:
        """See `Layout`."""
        return self._execute(user_id, admin_statements.enable(user_id))

    async def recipients(self, user_id: int) -> list[int]:
        """See `Layout`."""
        statement = admin_statements.recipients(user_id)
        found = await together([lane.execute(statement) for lane in self._lanes])
        return sorted(each for part in found for each in part)

    def retention_parts(self) -> Sequence[Execute]:
        """See `Layout`."""
        return [_silenced(lane) for lane in self._lanes]

    def retention_part(self, user_id: int) -> Execute:
        """See `Layout`."""
        return _silenced(self._lanes.of(user_id))

    async def delete_removed(self, inboxes: Sequence[tuple[int, int]]) -> Deleted:
        """See `Layout`."""
        return await delete_removed(self._lanes, inboxes)

    async def now(self) -> int:
        """See `Layout`; of the coordinator."""
        [[now]] = await self._lanes.executors[0].run(NOW)
        return int(now)

    async def delete_old(self, now: int) -> None:
        """See `Layout`."""

        async def delete(lane: LaneExecutor) -> None:
            await self._appender.of(lane).delete_old(now)
            while await lane.execute(claims.delete_old(now)):
                pass

        await self._lanes.reachable(delete)

    async def delete_expired(self, now: int) -> None:
        """See `Layout`."""

        async def delete(lane: LaneExecutor) -> None:
            while await lane.execute(token_statements.delete_expired(now, DELETE_TOKENS_STEP)):
                pass

        await self._lanes.reachable(delete)

    async def purge_step(self) -> bool:
        """See `Layout`."""
        return await self._accounts.purge_step()

    async def database_bytes(self) -> int:
        """See `Layout`; that of all servers."""
        lanes = self._lanes.one_of_each_server()
        found = await together([each.run(DATABASE_BYTES) for each in lanes])
        return sum(int(rows[0][0]) for rows in found)

    async def backed_up_at(self) -> int | None:
        """See `Layout`: what copies a server of the cluster does not tell here."""
        return None

    def _execute(self, owner: int, statement: Statement[T]) -> Deferred[T]:
        """Run a statement in the lane of the owner of its rows; it notifies nobody."""
        return self._lanes.of(owner).execute(silenced(statement))


def _silenced(lane: LaneExecutor) -> Execute:
    """Runs statements in a lane, which notify nobody."""
    return lambda statement: lane.execute(silenced(statement))
