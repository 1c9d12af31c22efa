"""The store on PostgreSQL: any number of processes, on any number of machines, share a database.

A message is durable when `append` succeeds, as durable as the server's `synchronous_commit` makes
a commit: it is left at what the operator set, which is `on` unless somebody changed it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chatd.errors import DomainError, StoreUnavailable
from chatd.interfaces import IStore
from chatd.model import (
    Account,
    Appended,
    ConversationSlice,
    Credentials,
    Draft,
    InboxSlice,
    Message,
    ReadAfter,
    ReadConversation,
    ReadPage,
)
from chatd.postgres.address import Address
from chatd.postgres.notify_payloads import MessagesNotice, NodeId, Revoked
from chatd.postgres.pool import Pool
from chatd.store import statements
from chatd.store.inbox_cache import InboxCache
from chatd.store.migrations import Migration, migrations
from chatd.store.postgres import accounts, chats
from chatd.store.postgres.append import Appender
from chatd.store.postgres.retry import DEADLINE_SECONDS, RetryingExecutor
from chatd.store.postgres.schema import prepare, version
from chatd.store.results import stored

T = TypeVar("T")

CHECK_SECONDS: Final = 1.0
HOUSEKEEPING_SECONDS: Final = 60.0

_log = Logger()


@implementer(IStore)
class PostgresStore:
    """An `IStore` in the database at `address`.

    `now` tells microseconds since the Unix epoch; messages carry the server's time. `node_id` names
    this process to the bus, which hears of every commit in the commit's own transaction.

    It answers polls from memory while it is told, as a
    `chatd.postgres.notify_payloads.Listener`, what other processes commit.

    `lane` tells, by a recipient's id, with whose messages it may share a transaction: where the
    tables are spread over several servers, one lane a server. None: with everybody's.
    """

    epoch: str
    location: str

    def __init__(
        self,
        address: Address,
        *,
        reactor: Any,
        now: Callable[[], int],
        node_id: NodeId,
        known: list[Migration] | None = None,
        lane: Callable[[int], int] | None = None,
        deadline: float = DEADLINE_SECONDS,
        keep_house_seconds: float = HOUSEKEEPING_SECONDS,
        observe_pool_wait: Callable[[float], None] | None = None,
    ) -> None:
        self._address = address
        self._reactor = reactor
        self._now = now
        self._node_id = node_id
        self._known = migrations("postgres") if known is None else known
        self._keep_house_seconds = keep_house_seconds
        self._latest = 0
        self._inbox_cache = InboxCache()
        self._is_hearing = False
        self.pool = Pool(
            address,
            reactor,
            random=random.random,
            fail_fast_seconds=deadline,
            observe_wait=observe_pool_wait,
        )
        self._executor = RetryingExecutor(
            self.pool, reactor, random=random.random, deadline=deadline
        )
        self._appender = Appender(self._executor, now=now, lane=lane)
        self.location = address.location
        self._housekeeping = LoopingCall(lambda: self._do(self._keep_house()))
        self._housekeeping.clock = reactor
        self._kept: Deferred[LoopingCall] | None = None

    def open(self) -> Deferred[None]:
        return self._do(self._open())

    async def _open(self) -> None:
        self.epoch = await prepare(self._address, self._reactor, self._known)
        await self._executor.open()
        self._kept = self._housekeeping.start(self._keep_house_seconds, now=False)

    def close(self) -> Deferred[None]:
        return self._do(self._close())

    async def _close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            self._housekeeping.stop()
            await kept
        await self._executor.close()

    def check(self) -> Deferred[None]:
        return self._do(self._check())

    async def _check(self) -> None:
        found = await version(lambda sql: self._executor.run(sql, deadline=CHECK_SECONDS))
        newest = self._known[-1].version
        if found != newest:
            raise StoreUnavailable(
                f"the database has schema version {found}, this process knows {newest}", 1
            )

    def add_account(self, username: str, email: str, password_hash: str) -> Deferred[Account]:
        added = username, email, password_hash, self._moment()
        return self._executor.execute(statements.add_account(*added, accounts.ADD_ACCOUNT))

    def account(self, user_id: int) -> Deferred[Account | None]:
        return self._executor.execute(statements.account(user_id, accounts.ACCOUNTS))

    def account_named(self, username: str) -> Deferred[Account | None]:
        return self._executor.execute(statements.account_named(username, accounts.ACCOUNTS))

    def credentials(self, username: str) -> Deferred[Credentials | None]:
        return self._executor.execute(statements.credentials(username))

    def delete_account(self, user_id: int) -> Deferred[bool]:
        return self._do(self._delete_account(user_id))

    async def _delete_account(self, user_id: int) -> bool:
        deletion = accounts.delete_account(user_id, self._moment(), self._node_id.name)
        was_there = await self._announced(self._executor.execute(deletion))
        self._inbox_cache.drop(user_id)
        if was_there:
            self._do(self._purge()).addErrback(_log_failure)
        return was_there

    def add_token(self, user_id: int, digest: bytes) -> Deferred[int | None]:
        return self._executor.execute(statements.add_token(user_id, digest, self._now()))

    def token_owners(self, digests: Sequence[bytes]) -> Deferred[list[int | None]]:
        return self._do(accounts.token_owners(self._executor, digests))

    def delete_token(self, user_id: int, digest: bytes) -> Deferred[bool]:
        deletion = accounts.delete_token(user_id, digest, self._node_id.name)
        return self._do(self._announced(self._executor.execute(deletion)))

    def record_seen(self, seen: Mapping[int, int]) -> Deferred[None]:
        return self._do(accounts.record_seen(self._executor, seen))

    def append(self, drafts: Sequence[Draft]) -> Deferred[list[Appended | DomainError]]:
        return self._do(self._append(drafts))

    async def _append(self, drafts: Sequence[Draft]) -> list[Appended | DomainError]:
        ticket = self._inbox_cache.asked()
        try:
            outcomes = await self._announced(self._appender.append(drafts, self._node_id.name))
            self._inbox_cache.committed(ticket, stored(outcomes))
        except BaseException:
            # It may have been committed all the same, and its notice taken for an echo.
            for draft in drafts:
                self._inbox_cache.drop(draft.received_by)
            raise
        finally:
            self._inbox_cache.answered(ticket)
        return outcomes

    def read(self, queries: Sequence[ReadAfter | ReadPage]) -> Deferred[list[InboxSlice | None]]:
        return self._do(self._read(queries))

    async def _read(self, queries: Sequence[ReadAfter | ReadPage]) -> list[InboxSlice | None]:
        ticket = self._inbox_cache.asked()
        try:
            found = await chats.read(self._executor, queries)
            for query, inbox in zip(queries, found, strict=True):
                if inbox is None:
                    self._inbox_cache.drop(query.user_id)
                else:
                    self._inbox_cache.found(ticket, query, inbox)
        finally:
            self._inbox_cache.answered(ticket)
        return found

    def conversation(self, query: ReadConversation) -> Deferred[ConversationSlice | None]:
        return self._executor.execute(statements.conversation(query))

    def read_cached(
        self, query: ReadAfter | ReadPage, *, listening: bool = False
    ) -> InboxSlice | None:
        if isinstance(query, ReadPage):
            return None  # It is to be that of now.
        known = self._inbox_cache.answer(query)
        if known is None or known.messages:
            # Messages never change, so those that this process knows of may be told.
            return known
        # That there are no others may be told to those who will hear of them.
        at_the_end = query.seq == known.last_seq
        return known if listening and self._is_hearing and at_the_end else None

    def hearing(self) -> None:
        """`Listener`: every append elsewhere is heard of from now on."""
        # What was noted before may lack something that nobody has told.
        self._inbox_cache.clear()
        self._is_hearing = True

    def deaf(self) -> None:
        """`Listener`: appends elsewhere may not be heard of."""
        self._is_hearing = False

    def heard(self, notice: MessagesNotice | Revoked) -> None:
        """`Listener`: others have appended, or ended sessions."""
        if isinstance(notice, Revoked):
            if notice.token is None:
                self._inbox_cache.drop(notice.user_id)
            return
        for line in notice.lines:
            if line.text is None:
                self._inbox_cache.moved(line.received_by, line.seq)
            else:
                message = Message(line.received_by, line.seq, line.sent_by, line.sent_at, line.text)
                self._inbox_cache.told(message)

    def last_seqs(self, user_ids: Collection[int]) -> Deferred[dict[int, int]]:
        return self._do(chats.last_seqs(self._executor, user_ids))

    async def _announced(self, work: Awaitable[T]) -> T:
        """Work that notifies in this process's name, which tells itself what was done.

        What has failed here may still be committed there, when its waiters have looked in vain:
        its notice must not pass for an echo.
        """
        try:
            return await work
        except BaseException:
            self._node_id.renew()
            raise

    async def _keep_house(self) -> None:
        try:
            await self._appender.forget()
            await self._purge()
        except Exception:
            _log.failure("housekeeping of the database failed")

    async def _purge(self) -> None:
        while self._kept is not None and await self._executor.execute(accounts.purge()):
            pass

    def _moment(self) -> int:
        """The time, and later than any that was told before: it names what is done now."""
        self._latest = max(self._latest + 1, self._now())
        return self._latest

    @staticmethod
    def _do(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return Deferred.fromCoroutine(work)


def _log_failure(failure: Failure) -> None:
    _log.failure("emptying the inbox of a deleted account failed", failure)
