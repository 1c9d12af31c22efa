"""The layout of one PostgreSQL server: all tables in the database of `--db`, see `Layout`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred

from chatd.errors import DomainError
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
from chatd.store import admin_statements, statements, token_statements
from chatd.store.postgres import accounts, admin_sql, chats, contacts, erasure, revisions
from chatd.store.postgres.append import Appender
from chatd.store.postgres.retention import Execute, delete_removed
from chatd.store.postgres.retry import RetryingExecutor
from chatd.store.postgres.schema import version
from chatd.store.postgres.silent import silenced
from chatd.store.postgres.sync_store import PostgresSyncStore
from chatd.store.removed_rows import Deleted
from chatd.store.statements import Statement

T = TypeVar("T")

DELETE_TOKENS_STEP: Final = 1000
DATABASE_BYTES: Final = "SELECT pg_database_size(current_database())"
NOW: Final = "SELECT (extract(epoch FROM now()) * 1000000)::bigint"
_BACKED_UP_AT: Final = "SELECT backed_up_at FROM history"


class PlainLayout:
    """A `Layout` on the connections of `executor`.

    With an `announcer` the database notifies nobody.
    """

    def __init__(
        self,
        executor: RetryingExecutor,
        *,
        reactor: Any,
        now: Callable[[], int],
        known_only: bool,
        limits: InboxLimits,
        announcer: IAnnouncer | None,
    ) -> None:
        self._executor = executor
        self._notifying = announcer is None
        self._limits = limits
        self._appender = Appender(
            executor, now=now, known_only=known_only, limits=limits, announcer=announcer
        )
        self.sync = PostgresSyncStore(executor, reactor, announcer)

    @property
    def pools(self) -> Sequence[Pool]:
        """The pool of the one server."""
        return (self._executor.pool,)

    async def open(self) -> None:
        """See `Layout`."""
        await self._executor.open()

    async def close(self) -> None:
        """See `Layout`."""
        await self.sync.stop()
        await self._executor.close()

    def lane(self, user_id: int) -> int:
        """All inboxes are in one database."""
        return 0

    def countdown(self, seconds: float | None) -> Callable[[], float]:
        """See `Layout`."""
        return self._executor.countdown(seconds)

    async def check(self, deadline: float) -> None:
        """See `Layout`."""
        await self._appender.check(deadline)

    async def version(self, deadline: float) -> int:
        """See `Layout`."""
        return await version(lambda sql: self._executor.run(sql, deadline=deadline))

    async def append(
        self, drafts: Sequence[Draft], node_id: str, within: float | None
    ) -> list[Appended | DomainError]:
        """See `Layout`."""
        return await self._appender.append(drafts, node_id, within)

    async def revise(self, revision: Revision, node_id: str) -> Message | DomainError:
        """See `Layout`."""
        return await revisions.revise(
            self._executor, revision, node_id, self._limits.bytes, notifying=self._notifying
        )

    def erase(self, user_id: int | None, node_id: str) -> Deferred[Erased]:
        """See `Layout`."""
        return self._executor.execute(erasure.erase(user_id, node_id))

    async def read(
        self, queries: Sequence[ReadAfter | ReadPage], deadline: float
    ) -> list[InboxSlice | None]:
        """See `Layout`."""
        return await chats.read(self._executor, queries, deadline)

    def conversation(self, query: ReadConversation) -> Deferred[ConversationSlice | None]:
        """See `Layout`."""
        return self._executor.execute(statements.conversation(query))

    async def last_seqs(self, user_ids: Collection[int]) -> dict[int, int]:
        """See `Layout`."""
        return await chats.last_seqs(self._executor, user_ids)

    async def load_removed(self, apply: Callable[[Iterable[tuple[int, int]]], object]) -> None:
        """See `Layout`."""
        apply((await chats.removed(self._executor)).items())

    def add_account(
        self, username: str, email: str, password_hash: str, at: int
    ) -> Deferred[Account]:
        """See `Layout`."""
        addition = statements.add_account(username, email, password_hash, at, accounts.ADD_ACCOUNT)
        return self._executor.execute(addition)

    def account(self, user_id: int) -> Deferred[Account | None]:
        """See `Layout`."""
        return self._executor.execute(statements.account(user_id, accounts.ACCOUNTS))

    def account_named(self, username: str) -> Deferred[Account | None]:
        """See `Layout`."""
        return self._executor.execute(statements.account_named(username, accounts.ACCOUNTS))

    def credentials(self, username: str) -> Deferred[Credentials | None]:
        """See `Layout`."""
        return self._executor.execute(statements.credentials(username))

    async def password_hashes(self, user_ids: Collection[int]) -> dict[int, str]:
        """See `Layout`."""
        return await accounts.password_hashes(self._executor, user_ids)

    def change_account(self, change: AccountChange, node_id: str) -> Deferred[Account | None]:
        """See `Layout`."""
        return self._execute(accounts.change_account(change, node_id))

    def find_users(self, prefix: str, limit: int) -> Deferred[list[UserName]]:
        """See `Layout`."""
        return self._executor.execute(statements.find_users(prefix, limit))

    def delete_account(self, user_id: int, at: int, node_id: str, erase: bool) -> Deferred[bool]:
        """See `Layout`."""
        return self._execute(accounts.delete_account(user_id, at, node_id, erase))

    def add_token(
        self,
        user_id: int,
        digest: bytes,
        options: TokenOptions,
        verified: str | None,
        now: int,
        node_id: str,
    ) -> Deferred[AddedToken | None]:
        """See `Layout`."""
        return self._execute(accounts.add_token(user_id, digest, options, verified, now, node_id))

    async def sessions(
        self, digests: Sequence[bytes], owners: Mapping[bytes, int], now: int
    ) -> list[Session | None]:
        """See `Layout`."""
        return await accounts.sessions(self._executor, digests, now)

    def tokens(self, user_id: int, now: int) -> Deferred[list[Token]]:
        """See `Layout`."""
        return self._executor.execute(token_statements.tokens(user_id, now))

    def encoded_tokens(
        self, user_id: int, now: int, current: int | None
    ) -> Deferred[EncodedTokens]:
        """See `Layout`."""
        return self._executor.execute(accounts.encoded_tokens(user_id, now, current))

    def delete_token(self, user_id: int, digest: bytes, node_id: str) -> Deferred[bool]:
        """See `Layout`."""
        return self._execute(accounts.delete_token(user_id, digest, node_id))

    def delete_token_by_id(
        self, user_id: int, token_id: int, now: int, node_id: str
    ) -> Deferred[bool]:
        """See `Layout`."""
        return self._execute(accounts.delete_token_by_id(user_id, token_id, now, node_id))

    def delete_other_tokens(self, user_id: int, kept: bytes | None, node_id: str) -> Deferred[None]:
        """See `Layout`."""
        return self._execute(accounts.delete_other_tokens(user_id, kept, node_id))

    async def record_seen(self, users: Mapping[int, int], tokens: Mapping[bytes, int]) -> None:
        """See `Layout`."""
        await accounts.record_seen(self._executor, users, tokens)

    def block(self, user_id: int, blocked_id: int) -> Deferred[None]:
        """See `Layout`."""
        return self._executor.execute(contacts.block(user_id, blocked_id))

    def unblock(self, user_id: int, blocked_id: int) -> Deferred[None]:
        """See `Layout`."""
        return self._executor.execute(contacts.unblock(user_id, blocked_id))

    def blocks(self, user_id: int) -> Deferred[EncodedRows]:
        """See `Layout`."""
        return self._executor.execute(contacts.blocks(user_id))

    def account_states(self, after: int, limit: int, now: int) -> Deferred[list[AccountState]]:
        """See `Layout`."""
        return self._executor.execute(
            admin_statements.accounts(after, limit, now, accounts.ACCOUNTS)
        )

    def account_state_named(self, username: str, now: int) -> Deferred[AccountState | None]:
        """See `Layout`."""
        return self._executor.execute(
            admin_statements.account_named(username, now, accounts.ACCOUNTS)
        )

    def set_password(self, user_id: int, password_hash: str, node_id: str) -> Deferred[bool]:
        """See `Layout`."""
        return self._execute(admin_sql.set_password(user_id, password_hash, node_id))

    def disable(self, user_id: int, at: int, node_id: str) -> Deferred[bool]:
        """See `Layout`."""
        return self._execute(admin_sql.disable(user_id, at, node_id))

    def enable(self, user_id: int) -> Deferred[bool]:
        """See `Layout`."""
        return self._executor.execute(admin_statements.enable(user_id))

    def recipients(self, user_id: int) -> Deferred[list[int]]:
        """See `Layout`."""
        return self._executor.execute(admin_statements.recipients(user_id))

    def retention_parts(self) -> Sequence[Execute]:
        """See `Layout`."""
        return (self._execute,)

    def retention_part(self, user_id: int) -> Execute:
        """See `Layout`."""
        return self._execute

    async def delete_removed(self, inboxes: Sequence[tuple[int, int]]) -> Deleted:
        """See `Layout`."""
        return await delete_removed(self._execute, inboxes)

    async def now(self) -> int:
        """See `Layout`."""
        [[now]] = await self._executor.run(NOW)
        return int(now)

    async def delete_old(self, now: int) -> None:
        """See `Layout`."""
        await self._appender.delete_old(now)

    async def delete_expired(self, now: int) -> None:
        """See `Layout`."""
        while await self._executor.execute(
            token_statements.delete_expired(now, DELETE_TOKENS_STEP)
        ):
            pass

    async def purge_step(self) -> bool:
        """See `Layout`."""
        return await self._executor.execute(accounts.purge())

    async def database_bytes(self) -> int:
        """See `Layout`."""
        [[size]] = await self._executor.run(DATABASE_BYTES)
        return int(size)

    async def backed_up_at(self) -> int | None:
        """See `Layout`."""
        at: int | None
        [[at]] = await self._executor.run(_BACKED_UP_AT)
        return at

    def _execute(self, statement: Statement[T]) -> Deferred[T]:
        """Run a statement that notifies other processes, unless an announcer does."""
        if not self._notifying:
            statement = silenced(statement)
        return self._executor.execute(statement)
