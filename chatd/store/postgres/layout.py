"""How the tables of a PostgreSQL database are laid out: what `PostgresStore` reaches its rows by.

Caches, announcements and notices are those of the store, whatever the layout. There are two: all
tables in one database (`plain`), and shards on several servers (`chatd.store.sharded`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from chatd.errors import DomainError
from chatd.interfaces import ISyncStore
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
from chatd.store.postgres.retention import Inboxes


class Layout(Inboxes, Protocol):
    """The methods are those of `IStore` and `IAdminStore`, and their errors; see there.

    Times are microseconds. `node_id` is the sender of the notices of a transaction. Times called
    `at` are unique to a call, and so identify what it did. All calls are safe to repeat, unless
    they say otherwise.
    """

    @property
    def sync(self) -> ISyncStore:
        """See `IStore`."""
        ...

    @property
    def pools(self) -> Sequence[Pool]:
        """The pools of connections; the first is that of `--db`."""
        ...

    async def open(self) -> None:
        """Connect; raises `Unreachable` or `StartError`."""
        ...

    async def close(self) -> None:
        """Finish running calls, then close all connections."""
        ...

    def lane(self, user_id: int) -> int:
        """See `IStore.lane`."""
        ...

    def countdown(self, seconds: float | None) -> Callable[[], float]:
        """See `RetryingExecutor.countdown`."""
        ...

    async def check(self, deadline: float) -> None:
        """Raises `StoreUnavailable` if nothing can be stored."""
        ...

    async def version(self, deadline: float) -> int:
        """The version of the schema."""
        ...

    def append(
        self, drafts: Sequence[Draft], node_id: str, within: float | None
    ) -> Awaitable[list[Appended | DomainError]]: ...

    def revise(self, revision: Revision, node_id: str) -> Awaitable[Message | DomainError]: ...

    def erase(self, user_id: int | None, node_id: str) -> Awaitable[Erased]: ...

    def read(
        self, queries: Sequence[ReadAfter | ReadPage], deadline: float
    ) -> Awaitable[list[InboxSlice | None]]: ...

    def conversation(self, query: ReadConversation) -> Awaitable[ConversationSlice | None]: ...

    def last_seqs(self, user_ids: Collection[int]) -> Awaitable[dict[int, int]]: ...

    async def load_removed(self, apply: Callable[[Iterable[tuple[int, int]]], object]) -> None:
        """Call `apply` with the users and seqs of `IStore.removed`.

        Those of a server that cannot be reached now follow as soon as it can.
        """
        ...

    def add_account(
        self, username: str, email: str, password_hash: str, at: int
    ) -> Awaitable[Account]: ...

    def account(self, user_id: int) -> Awaitable[Account | None]: ...

    def account_named(self, username: str) -> Awaitable[Account | None]: ...

    def credentials(self, username: str) -> Awaitable[Credentials | None]: ...

    def password_hashes(self, user_ids: Collection[int]) -> Awaitable[dict[int, str]]: ...

    def change_account(self, change: AccountChange, node_id: str) -> Awaitable[Account | None]: ...

    def find_users(self, prefix: str, limit: int) -> Awaitable[list[UserName]]: ...

    def delete_account(
        self, user_id: int, at: int, node_id: str, erase: bool
    ) -> Awaitable[bool]: ...

    def add_token(
        self,
        user_id: int,
        digest: bytes,
        options: TokenOptions,
        verified: str | None,
        now: int,
        node_id: str,
    ) -> Awaitable[AddedToken | None]: ...

    def sessions(
        self, digests: Sequence[bytes], owners: Mapping[bytes, int], now: int
    ) -> Awaitable[list[Session | None]]: ...

    def tokens(self, user_id: int, now: int) -> Awaitable[list[Token]]: ...

    def encoded_tokens(
        self, user_id: int, now: int, current: int | None
    ) -> Awaitable[EncodedTokens]: ...

    def delete_token(self, user_id: int, digest: bytes, node_id: str) -> Awaitable[bool]: ...

    def delete_token_by_id(
        self, user_id: int, token_id: int, now: int, node_id: str
    ) -> Awaitable[bool]: ...

    def delete_other_tokens(
        self, user_id: int, kept: bytes | None, node_id: str
    ) -> Awaitable[None]: ...

    def record_seen(
        self, users: Mapping[int, int], tokens: Mapping[bytes, int]
    ) -> Awaitable[None]: ...

    def block(self, user_id: int, blocked_id: int) -> Awaitable[None]: ...

    def unblock(self, user_id: int, blocked_id: int) -> Awaitable[None]: ...

    def blocks(self, user_id: int) -> Awaitable[EncodedRows]: ...

    def account_states(self, after: int, limit: int, now: int) -> Awaitable[list[AccountState]]: ...

    def account_state_named(self, username: str, now: int) -> Awaitable[AccountState | None]: ...

    def set_password(self, user_id: int, password_hash: str, node_id: str) -> Awaitable[bool]: ...

    def disable(self, user_id: int, at: int, node_id: str) -> Awaitable[bool]: ...

    def enable(self, user_id: int) -> Awaitable[bool]: ...

    def recipients(self, user_id: int) -> Awaitable[list[int]]: ...

    async def now(self) -> int:
        """The time of the server, in microseconds since the Unix epoch."""
        ...

    async def delete_old(self, now: int) -> None:
        """Delete old idempotency keys and results of batches."""
        ...

    async def delete_expired(self, now: int) -> None:
        """Delete tokens that have expired."""
        ...

    async def purge_step(self) -> bool:
        """Delete some data of deleted accounts; True if there may be more."""
        ...

    async def database_bytes(self) -> int:
        """The size of the database."""
        ...

    async def backed_up_at(self) -> int | None:
        """The moment that the newest copy shows, in microseconds; None: there is none."""
        ...
