"""Interfaces of the store, which holds messages, and the bus, which announces them.

Every implementation passes the contract suite in `tests/contracts`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from chatd.errors import DomainError
from chatd.model import (
    UNLIMITED,
    Account,
    AccountChange,
    Appended,
    ConversationSlice,
    Credentials,
    Draft,
    InboxSlice,
    ReadAfter,
    ReadConversation,
    ReadPage,
    Session,
    Token,
    TokenOptions,
    UserName,
)

MAX_LISTED_TOKENS: Final = 1000


class IStore(Interface):
    """Durable storage of accounts, tokens and inboxes.

    Methods may be called between `open` and `close`, and any of them may fail with
    `StoreUnavailable`. Their Deferreds must not be cancelled: `chatd.domain.batch` and
    `chatd.runtime.shield` protect them from callers that are.
    """

    epoch: str = Attribute("Identifies this database's history, `[a-z2-7]{8,32}`; set by `open`.")
    location: str = Attribute("Where the data is, for display; contains no password.")

    def open() -> Deferred[None]:
        """Open the database and migrate its schema; fails with `StartError`."""

    def close() -> Deferred[None]:
        """Finish running calls, then release all resources."""

    def check() -> Deferred[None]:
        """Readiness check: succeeds if the store works, otherwise fails with the reason."""

    def add_account(username: str, email: str, password_hash: str) -> Deferred[Account]:
        """Create an account; `UsernameTaken` if the name was ever used, ignoring case."""

    def account(user_id: int) -> Deferred[Account | None]:
        """The account, or None if it does not exist or was deleted."""

    def account_named(username: str) -> Deferred[Account | None]:
        """The account with that name, ignoring case, or None."""

    def credentials(username: str) -> Deferred[Credentials | None]:
        """The password hash of the account with that name, ignoring case, or None."""

    def password_hashes(user_ids: Collection[int]) -> Deferred[dict[int, str]]:
        """The password hashes of those accounts that exist."""

    def change_account(change: AccountChange) -> Deferred[Account | None]:
        """Change an account and revoke tokens, in one transaction; returns the changed account.

        None if the account does not exist or has another password hash than `change.verified`.
        """

    def find_users(prefix: str, limit: int) -> Deferred[list[UserName]]:
        """The first `limit` users whose names begin with `prefix`, ignoring case, by name."""

    def delete_account(user_id: int) -> Deferred[bool]:
        """Delete an account with its inbox and tokens; False if there was none.

        Messages that it sent remain in other inboxes. Its id and name are never reused.
        """

    def add_token(
        user_id: int,
        digest: bytes,
        options: TokenOptions = UNLIMITED,
        verified: str | None = None,
    ) -> Deferred[Token | None]:
        """Store a token's SHA-256; None if there is no account.

        With `verified`, also None if that is not the account's password hash.
        """

    def sessions(digests: Sequence[bytes]) -> Deferred[list[Session | None]]:
        """The session of each token; None for unknown, revoked and expired ones."""

    def tokens(user_id: int) -> Deferred[list[Token]]:
        """The newest `MAX_LISTED_TOKENS` tokens of a user that have not expired, newest first."""

    def delete_token(user_id: int, digest: bytes) -> Deferred[bool]:
        """Revoke a token; False if the user does not own it."""

    def delete_token_by_id(user_id: int, token_id: int) -> Deferred[bool]:
        """Revoke a token; False if the user does not own it, or it has expired."""

    def delete_other_tokens(user_id: int, kept: bytes | None) -> Deferred[None]:
        """Revoke all tokens of the user but the one with the SHA-256 `kept`."""

    def record_seen(users: Mapping[int, int], tokens: Mapping[bytes, int]) -> Deferred[None]:
        """Set `last_seen_at` by account id, and `last_used_at` by the SHA-256 of tokens.

        Ignores times earlier than the stored ones.
        """

    def append(drafts: Sequence[Draft]) -> Deferred[list[Appended | DomainError]]:
        """Append messages in one durable transaction; returns one result per draft, in order.

        The messages of each inbox are numbered 1, 2, 3 ... in order of commit, and those of one
        call in the order of `drafts`. The result is `UserNotFound` if there is no recipient,
        `IdempotencyKeyReused` if the key was used for another request, and the first message,
        marked as replayed, if the key was used for the same request. Such drafts do not affect
        the others. Succeeds only once the transaction is on stable storage.
        """

    def read(queries: Sequence[ReadAfter | ReadPage]) -> Deferred[list[InboxSlice | None]]:
        """Answer queries from one snapshot; None for each inbox that does not exist.

        `last_seq` and `messages` of a slice are consistent. `messages` is empty for a `ReadPage`
        whose `at` is beyond the end of the inbox, and for a `ReadAfter` with such a `seq`.
        """

    def conversation(query: ReadConversation) -> Deferred[ConversationSlice | None]:
        """The messages between two accounts, from one snapshot; None if `user_id` has no inbox.

        Ordered by `ConversationCursor`. Messages to a deleted account are deleted with its inbox,
        those from it remain. The cost does not depend on how old the messages are.
        """

    def read_cached(query: ReadAfter | ReadPage, *, listening: bool = False) -> InboxSlice | None:
        """The result of `read` if it is known without a query, otherwise None.

        It is never older than any earlier result of this store. With `listening`, the caller is
        subscribed to the bus, and the result may be older than what other processes have returned:
        the bus will wake the caller for what is missing.
        """

    def last_seqs(user_ids: Collection[int]) -> Deferred[dict[int, int]]:
        """The seq of the last message of each inbox that exists."""


class ISubscriber(Interface):
    """Receives the events of a bus, in the reactor's thread; its methods never raise."""

    def wake(user_ids: Collection[int]) -> None:
        """Messages were committed to these inboxes."""

    def wake_all() -> None:
        """Events may have been missed: check every inbox and forget all cached sessions."""

    def revoked(user_id: int, token: bytes | None) -> None:
        """A token of the user was revoked; None: all tokens, because the account was deleted."""

    def sessions_changed(user_id: int) -> None:
        """Sessions of the user may have ended: the store knows which."""


class IBus(Interface):
    """Announces new messages and revocations to all processes that share a store."""

    def start(subscriber: ISubscriber) -> Deferred[None]:
        """Subscribe; succeeds once no later commit can be missed, or fails with `StartError`."""

    def stop() -> Deferred[None]:
        """Unsubscribe; the subscriber is not called any more."""

    def problem() -> str | None:
        """Why no events arrive from other processes at present, or None if they do."""

    def publish(user_ids: Collection[int]) -> None:
        """Announce that messages were committed to these inboxes."""

    def publish_revoked(user_id: int, token: bytes | None) -> None:
        """Announce a committed revocation; None: of all tokens of the user."""

    def publish_sessions_changed(user_id: int) -> None:
        """Announce that sessions of the user may have ended, see `ISubscriber`."""
