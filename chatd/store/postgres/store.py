"""PostgreSQL store: any number of processes on any number of machines share a database.

A message is durable once `append` has succeeded, provided that the server's `synchronous_commit`
has not been changed from its default, `on`.
"""

from __future__ import annotations

import random
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Container,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import implementer

from chatd.errors import DomainError, StartError, StoreUnavailable
from chatd.interfaces import IAnnouncer, IStore, ISyncStore
from chatd.model import (
    UNLIMITED,
    Account,
    AccountChange,
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
from chatd.postgres.address import Address
from chatd.postgres.connection import Unreachable
from chatd.postgres.notify_payloads import (
    ChangedNotice,
    CommitNotice,
    MessagesNotice,
    NodeId,
    RemovedNotice,
    RevokedNotice,
    SessionsNotice,
)
from chatd.postgres.pool import SIZE, Pool
from chatd.runtime.awaitables import as_deferred
from chatd.runtime.delays import Delays
from chatd.store.inbox_cache import MAX_READS, InboxCache
from chatd.store.migrations import Migration, migrations
from chatd.store.postgres.admin_store import PostgresAdminStore
from chatd.store.postgres.housekeeping import HOUSEKEEPING_SECONDS, Housekeeping
from chatd.store.postgres.layout import Layout
from chatd.store.postgres.missed_removals import MissedRemovals
from chatd.store.postgres.plain import PlainLayout
from chatd.store.postgres.retention import Retention
from chatd.store.postgres.retry import DEADLINE_SECONDS, RetryingExecutor
from chatd.store.postgres.schema import prepare
from chatd.store.results import new_messages
from chatd.store.sharded.lanes import Lanes
from chatd.store.sharded.layout import ShardedLayout
from chatd.store.sharded.shards import Server, address_of

T = TypeVar("T")

CHECK_SECONDS: Final = 1.0


@implementer(IStore)
class PostgresStore:
    """An `IStore` in the database at `address`.

    `now` returns microseconds since the Unix epoch; messages have the server's time. `node_id`
    identifies this process in the NOTIFYs that it sends in the transactions of its writes.

    As a `Listener` the store receives what other processes commit, and answers polls from memory.

    With an `announcer` the database notifies nobody: the announcer is told what was committed, and
    what may be. It and the `Listener` are then of a bus that delivers events in any order, and only
    of the users that are in `listened`.

    With `known_only`, nobody may write first to anybody. Without `upgrade`, the database
    must have the present schema. Messages older than `keep` microseconds are removed.

    A statement fails with `StoreUnavailable` after `deadline` seconds. `observe_pool_wait` is
    called with the seconds for which each statement had to wait for a free connection.

    If the tables are sharded, `locate` makes the address of a server from that of the coordinator,
    and there has to be an announcer.
    """

    epoch: str
    location: str
    # One connection is left for batches.
    parallel = SIZE - 1

    def __init__(
        self,
        address: Address,
        *,
        reactor: Any,
        now: Callable[[], int],
        node_id: NodeId,
        known: list[Migration] | None = None,
        known_only: bool = False,
        limits: InboxLimits | None = None,
        upgrade: bool = True,
        keep: int | None = None,
        deadline: float = DEADLINE_SECONDS,
        housekeeping_seconds: float = HOUSEKEEPING_SECONDS,
        observe_pool_wait: Callable[[float], None] | None = None,
        announcer: IAnnouncer | None = None,
        listened: Container[int] | None = None,
        locate: Callable[[Address, Server], Address] = address_of,
    ) -> None:
        self._address = address
        self._announcer = announcer
        self._listened = listened
        self._reactor = reactor
        self._now = now
        self._node_id = node_id
        self._known = migrations("postgres") if known is None else known
        self._upgrade = upgrade
        self._latest_now = 0
        self._inbox_cache = InboxCache()
        self._is_notified = False
        self.pool = Pool(
            address,
            reactor,
            random=random.random,
            fail_fast_seconds=deadline,
            observe_wait=observe_pool_wait,
        )
        self._deadline = deadline
        self._observe_pool_wait = observe_pool_wait
        self._locate = locate
        self._executor = RetryingExecutor(
            self.pool, reactor, random=random.random, deadline=deadline
        )
        self.limits = limits or InboxLimits()
        self._known_only = known_only
        self._layout: Layout = PlainLayout(
            self._executor,
            reactor=reactor,
            now=now,
            known_only=known_only,
            limits=self.limits,
            announcer=announcer,
        )
        self.removed: dict[int, int] = {}
        self._delays = Delays(reactor)
        self._retention = Retention(
            lambda: self._layout,
            self._apply_own_removed,
            self._delays.wait,
            lambda: node_id.name,
            self._notifying,
        )
        self._missed_removals = MissedRemovals(
            lambda: self._layout.load_removed(self._apply_own_removed), self._delays.wait
        )
        self.admin = PostgresAdminStore(
            lambda: self._layout,
            lambda user_id, work: self._ending(work(node_id.name), SessionsNotice(user_id)),
            now,
            self._retention.run,
        )
        self.location = address.location
        self._housekeeping = Housekeeping(
            lambda: self._layout,
            reactor,
            housekeeping_seconds,
            now,
            keep,
            self._retention.run,
        )

    @property
    def pools(self) -> Sequence[Pool]:
        """The connections to all servers, those to `address` first."""
        return self._layout.pools

    @property
    def sync(self) -> ISyncStore:
        """See `IStore`."""
        return self._layout.sync

    @property
    def keep(self) -> int | None:
        """See `IStore`."""
        return self._housekeeping.keep

    @keep.setter
    def keep(self, microseconds: int | None) -> None:
        self._housekeeping.keep = microseconds

    def open(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        self.epoch, is_sharded = await prepare(
            self._address, self._reactor, self._known, upgrade=self._upgrade
        )
        if is_sharded:
            self._layout = self._sharded_layout()
        try:
            await self._layout.open()
        except Unreachable as problem:
            raise StartError(f"cannot reach the database {self.location}: {problem}") from None
        await self._layout.load_removed(self._apply_removed)
        self._housekeeping.start()

    def _sharded_layout(self) -> ShardedLayout:
        if self._announcer is None:
            raise StartError(
                f"the database {self.location} is sharded: its processes need a bus, "
                "--bus nats://..."
            )
        return ShardedLayout(
            Lanes(self._executor, self._reactor, self._connect),
            reactor=self._reactor,
            now=self._now,
            known_only=self._known_only,
            limits=self.limits,
            announcer=self._announcer,
        )

    def _connect(self, server: Server) -> RetryingExecutor:
        """Connections to a server that holds shards."""
        pool = Pool(
            self._locate(self._address, server),
            self._reactor,
            random=random.random,
            fail_fast_seconds=self._deadline,
            observe_wait=self._observe_pool_wait,
        )
        return RetryingExecutor(pool, self._reactor, random=random.random, deadline=self._deadline)

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._retention.stop()
        self._missed_removals.stop()
        self._delays.stop()
        await self._retention.wait_idle()
        await self._missed_removals.wait_idle()
        await self._housekeeping.stop()
        await self._layout.close()

    def backed_up_at(self) -> int | None:
        """The moment that the newest backup shows, in microseconds, as of the last minute."""
        return self._housekeeping.backed_up_at

    def file_sizes(self) -> dict[str, float]:
        """The bytes of the database, as of the last minute; nothing before that."""
        size = self._housekeeping.database_bytes
        return {"database": size} if size else {}

    def lane(self, user_id: int) -> int:
        """See `IStore`."""
        return self._layout.lane(user_id)

    def check(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._check())

    async def _check(self) -> None:
        found = await self._layout.version(CHECK_SECONDS)
        newest = self._known[-1].version
        if found != newest:
            raise StoreUnavailable(
                f"the database has schema version {found}, this process knows {newest}", 1
            )
        await self._layout.check(CHECK_SECONDS)

    def add_account(self, username: str, email: str, password_hash: str) -> Deferred[Account]:
        at = self._unique_now()
        return as_deferred(self._layout.add_account(username, email, password_hash, at))

    def account(self, user_id: int) -> Deferred[Account | None]:
        return as_deferred(self._layout.account(user_id))

    def account_named(self, username: str) -> Deferred[Account | None]:
        return as_deferred(self._layout.account_named(username))

    def credentials(self, username: str) -> Deferred[Credentials | None]:
        return as_deferred(self._layout.credentials(username))

    def password_hashes(self, user_ids: Collection[int]) -> Deferred[dict[int, str]]:
        return as_deferred(self._layout.password_hashes(user_ids))

    def change_account(self, change: AccountChange) -> Deferred[Account | None]:
        changing = self._layout.change_account(change, self._node_id.name)
        return self._ending(changing, SessionsNotice(change.user_id))

    def find_users(self, prefix: str, limit: int) -> Deferred[list[UserName]]:
        return as_deferred(self._layout.find_users(prefix, limit))

    def delete_account(self, user_id: int, *, erase: bool = False) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._delete_account(user_id, erase))

    async def _delete_account(self, user_id: int, erase: bool) -> bool:
        name = self._node_id.name
        deletion = self._layout.delete_account(user_id, self._unique_now(), name, erase)
        existed = await self._ending(deletion, RevokedNotice(user_id, None))
        self._inbox_cache.drop(user_id)
        self.removed.pop(user_id, None)
        if existed:
            self._housekeeping.purge()
        return existed

    def add_token(
        self,
        user_id: int,
        digest: bytes,
        options: TokenOptions = UNLIMITED,
        verified: str | None = None,
    ) -> Deferred[AddedToken | None]:
        at, name = self._unique_now(), self._node_id.name
        adding = self._layout.add_token(user_id, digest, options, verified, at, name)
        return self._ending(
            adding,
            SessionsNotice(user_id),
            lambda added: added is not None and added.displaced,
        )

    def sessions(
        self, digests: Sequence[bytes], owners: Mapping[bytes, int] | None = None
    ) -> Deferred[list[Session | None]]:
        return as_deferred(self._layout.sessions(digests, owners or {}, self._now()))

    def tokens(self, user_id: int) -> Deferred[list[Token]]:
        return as_deferred(self._layout.tokens(user_id, self._now()))

    def encoded_tokens(self, user_id: int, current: int | None) -> Deferred[EncodedTokens]:
        return as_deferred(self._layout.encoded_tokens(user_id, self._now(), current))

    def delete_token(self, user_id: int, digest: bytes) -> Deferred[bool]:
        deletion = self._layout.delete_token(user_id, digest, self._node_id.name)
        return self._ending(deletion, RevokedNotice(user_id, digest))

    def delete_token_by_id(self, user_id: int, token_id: int) -> Deferred[bool]:
        name = self._node_id.name
        deletion = self._layout.delete_token_by_id(user_id, token_id, self._now(), name)
        return self._ending(deletion, SessionsNotice(user_id))

    def delete_other_tokens(self, user_id: int, kept: bytes | None) -> Deferred[None]:
        deletion = self._layout.delete_other_tokens(user_id, kept, self._node_id.name)
        return self._ending(deletion, SessionsNotice(user_id))

    def record_seen(self, users: Mapping[int, int], tokens: Mapping[bytes, int]) -> Deferred[None]:
        return as_deferred(self._layout.record_seen(users, tokens))

    def append(
        self, drafts: Sequence[Draft], within: float | None = None
    ) -> Deferred[list[Appended | DomainError]]:
        return Deferred.fromCoroutine(self._append(drafts, within))

    async def _append(
        self, drafts: Sequence[Draft], within: float | None
    ) -> list[Appended | DomainError]:
        ticket = self._inbox_cache.begin_query()
        try:
            appending = self._layout.append(drafts, self._node_id.name, within)
            results = await self._notifying(appending)
            self._drop_unknown(drafts, results)
            messages = new_messages(results)
            self._inbox_cache.apply_commit(ticket, messages)
            if self._announcer is not None and messages:
                self._announcer.announce_messages(messages)
        except BaseException:
            self._drop(drafts)
            raise
        finally:
            self._inbox_cache.end_query(ticket)
        return results

    def _drop_unknown(
        self, drafts: Sequence[Draft], results: Sequence[Appended | DomainError]
    ) -> None:
        """What some servers have not answered, or only to an attempt that came too late.

        A draft that is found by its key may have been stored by an attempt whose answer was lost,
        the notice of which was ignored as one of this process's own.
        """
        unknown = [
            draft
            for draft, result in zip(drafts, results, strict=True)
            if isinstance(result, StoreUnavailable)
            or (isinstance(result, Appended) and result.replayed)
        ]
        if unknown:
            self._drop(unknown)

    def _drop(self, drafts: Sequence[Draft]) -> None:
        """They may have been committed nevertheless, and their notice may have been ignored."""
        self._inbox_cache.drop_recipients(drafts)
        if self._announcer is not None:
            self._announcer.announce_unknown(
                {each for draft in drafts for each in (draft.sent_by, draft.received_by)}
            )

    def revise(self, revision: Revision) -> Deferred[Message]:
        return Deferred.fromCoroutine(self._revise(revision))

    async def _revise(self, revision: Revision) -> Message:
        revising = self._layout.revise(revision, self._node_id.name)
        try:
            result = await self._notifying(revising)
            # Even if it seems to have changed nothing: an earlier attempt may have changed it.
            if self._announcer is not None and isinstance(result, Message):
                self._announcer.announce_changed(result.received_by, result.seq, result.sent_by)
                self._announcer.announce_changes({result.received_by, result.sent_by})
        except BaseException:
            if self._announcer is not None:
                self._announcer.announce_unknown((revision.received_by, revision.revised_by))
            raise
        finally:
            # Also if it failed: it may have been committed nevertheless.
            self._inbox_cache.drop_revised(revision.received_by)
        if isinstance(result, DomainError):
            raise result
        return result

    def erase(self, user_id: int | None = None) -> Deferred[Erased]:
        return Deferred.fromCoroutine(self._erase(user_id))

    async def _erase(self, user_id: int | None) -> Erased:
        try:
            erased = await self._notifying(self._layout.erase(user_id, self._node_id.name))
        except BaseException:
            # It may have been committed nevertheless.
            self._inbox_cache.clear()
            raise
        for inbox in {message.received_by for message in erased.messages}:
            self._inbox_cache.drop_revised(inbox)
        return erased

    def remove_oldest(self, user_id: int, up_to: int) -> Deferred[bool | None]:
        return Deferred.fromCoroutine(self._remove_oldest(user_id, up_to))

    async def _remove_oldest(self, user_id: int, up_to: int) -> bool | None:
        try:
            return await self._retention.remove_oldest(user_id, up_to)
        except StoreUnavailable:
            # It may have been committed nevertheless.
            self._missed_removals.look()
            raise

    def block(self, user_id: int, blocked_id: int) -> Deferred[None]:
        return as_deferred(self._layout.block(user_id, blocked_id))

    def unblock(self, user_id: int, blocked_id: int) -> Deferred[None]:
        return as_deferred(self._layout.unblock(user_id, blocked_id))

    def blocks(self, user_id: int) -> Deferred[EncodedRows]:
        return as_deferred(self._layout.blocks(user_id))

    def read(
        self, queries: Sequence[ReadAfter | ReadPage], within: float | None = None
    ) -> Deferred[list[InboxSlice | None]]:
        return Deferred.fromCoroutine(self._read(queries, within))

    async def _read(
        self, queries: Sequence[ReadAfter | ReadPage], within: float | None
    ) -> list[InboxSlice | None]:
        def apply(ticket: int, inboxes: list[InboxSlice | None]) -> None:
            for query, inbox in zip(queries, inboxes, strict=True):
                self._inbox_cache.apply_read(ticket, query, inbox)

        user_ids = [query.user_id for query in queries]
        left = self._layout.countdown(within)
        return await self._read_revised(user_ids, apply, lambda: self._layout.read(queries, left()))

    def conversation(self, query: ReadConversation) -> Deferred[ConversationSlice | None]:
        users = (query.user_id, query.peer)
        return Deferred.fromCoroutine(
            self._read_revised(users, lambda *_: None, lambda: self._layout.conversation(query))
        )

    async def _read_revised(
        self,
        user_ids: Sequence[int],
        apply: Callable[[int, T], object],
        read: Callable[[], Awaitable[T]],
    ) -> T:
        """Read these inboxes, again if a message of one of them was revised meanwhile."""
        for _ in range(MAX_READS):
            ticket = self._inbox_cache.begin_query()
            try:
                result = await read()
                apply(ticket, result)
                if not self._inbox_cache.may_be_older(ticket, user_ids):
                    break
            finally:
                self._inbox_cache.end_query(ticket)
        return result

    def read_cached(
        self, query: ReadAfter | ReadPage, *, listening: bool = False
    ) -> InboxSlice | None:
        if isinstance(query, ReadPage):
            return None  # It has to be up to date.
        if not self._is_notified:
            return None  # Others may have revised what is cached.
        if self._listened is not None and query.user_id not in self._listened:
            return None
        cached = self._inbox_cache.get(query)
        if cached is None or cached.messages:
            # The bus tells what is revised, so these may be returned even if there are newer ones.
            return cached
        # Only a listener may be answered "nothing new": it is woken when there is something.
        return cached if listening and query.seq == cached.last_seq else None

    def on_connected(self) -> None:
        """`Listener`: from now on this process receives the notices of all others."""
        # It may have missed some before.
        self._inbox_cache.clear()
        self._is_notified = True
        self._missed_removals.look()

    def on_disconnected(self) -> None:
        """`Listener`: notices may be missed."""
        self._is_notified = False

    def on_notice(self, notice: CommitNotice) -> None:
        """`Listener`: another process committed messages, revised one or revoked sessions."""
        if isinstance(notice, ChangedNotice):
            self._inbox_cache.drop_revised(notice.received_by)
        elif isinstance(notice, RevokedNotice) and notice.token is None:
            self._inbox_cache.drop(notice.user_id)
            self.removed.pop(notice.user_id, None)
        elif isinstance(notice, RemovedNotice):
            self._apply_removed(notice.inboxes)
        if not isinstance(notice, MessagesNotice):
            return
        ordered = self._listened is None
        advance = self._inbox_cache.advance if ordered else self._inbox_cache.extend_end
        apply = self._inbox_cache.apply_remote if ordered else self._inbox_cache.extend
        for each in notice.messages:
            if each.text is None:
                advance(each.received_by, each.seq, each.sent_at or None)
            else:
                apply(Message(each.received_by, each.seq, each.sent_by, each.sent_at, each.text))

    def forget(self, user_id: int) -> None:
        """What is cached of this user may be out of date, because its events did not arrive."""
        self._inbox_cache.drop(user_id)

    def _apply_removed(self, inboxes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Note where inboxes begin now: what is cached of them may be gone.

        Returns those of which that was not known.
        """
        moved = [each for each in inboxes if self.removed.get(each[0], 0) < each[1]]
        for user_id, seq in moved:
            self.removed[user_id] = seq
            self._inbox_cache.drop_revised(user_id)
            self._retention.note(user_id, seq)
        return moved

    def _apply_own_removed(self, inboxes: Iterable[tuple[int, int]]) -> None:
        """The same, for what this process has removed, or is the first to find out."""
        moved = self._apply_removed(inboxes)
        if self._announcer is not None and moved:
            self._announcer.announce_removed(moved)

    def last_seqs(self, user_ids: Collection[int]) -> Deferred[dict[int, int]]:
        return Deferred.fromCoroutine(self._last_seqs(user_ids))

    async def _last_seqs(self, user_ids: Collection[int]) -> dict[int, int]:
        try:
            found = await self._layout.last_seqs(user_ids)
        except BaseException:
            if self._listened is not None:
                for user_id in user_ids:
                    self.forget(user_id)
            raise
        if self._listened is not None:
            # A caller that checks for missed events must not be the only one who finds them.
            for user_id, last in found.items():
                self._inbox_cache.extend_end(user_id, last, None)
        return found

    def _ending(
        self,
        work: Awaitable[T],
        notice: RevokedNotice | SessionsNotice,
        ends: Callable[[T], bool] = lambda result: True,
    ) -> Deferred[T]:
        """Do what ends sessions, of which this notice tells, if its result `ends` any."""
        if self._announcer is None:
            return Deferred.fromCoroutine(self._notifying(work))
        return Deferred.fromCoroutine(self._announcing(work, notice, ends, self._announcer))

    async def _announcing(
        self,
        work: Awaitable[T],
        notice: RevokedNotice | SessionsNotice,
        ends: Callable[[T], bool],
        announcer: IAnnouncer,
    ) -> T:
        try:
            result = await work
        except BaseException:
            announcer.announce_unknown((notice.user_id,), sessions=True)
            raise
        if not ends(result):
            return result
        # Even if it seems to have changed nothing: an earlier attempt may have.
        if isinstance(notice, RevokedNotice):
            announcer.announce_revoked(notice.user_id, notice.token)
        else:
            announcer.announce_sessions_changed(notice.user_id)
        return result

    async def _notifying(self, work: Awaitable[T]) -> T:
        """Await work whose notices this process ignores, because it wakes its own waiters itself.

        Work that failed here may be committed later, when nobody wakes the waiters. Changing the
        node id makes sure that its notice is not ignored then.
        """
        try:
            return await work
        except BaseException:
            self._node_id.renew()
            raise

    def _unique_now(self) -> int:
        """The time, but later than in any earlier call: it identifies what a statement did."""
        self._latest_now = max(self._latest_now + 1, self._now())
        return self._latest_now
