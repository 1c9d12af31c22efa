"""The two seams of chatd: where messages are kept, and how processes tell each other of them.

Every implementation passes the contract suite in `tests/contracts.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from chatd.errors import DomainError
from chatd.model import (
    Account,
    Appended,
    ConversationSlice,
    Credentials,
    Draft,
    InboxSlice,
    ReadAfter,
    ReadConversation,
    ReadPage,
)


class IStore(Interface):
    """Accounts and inboxes, durable.

    Methods may be called between `open` and `close`. Their Deferreds are not to be cancelled:
    what is under way completes. `chatd.domain.batch` and `chatd.runtime.shield` stand
    between them and callers that may go away. Any method may fail with `StoreUnavailable`.
    """

    epoch: str = Attribute("Names this database history, `[a-z2-7]{8,32}`; set by `open`.")
    location: str = Attribute("Where the data is, for people; holds no password.")

    def open() -> Deferred[None]:
        """Open the database and bring its schema up to date; fails with `StartError`."""

    def close() -> Deferred[None]:
        """Finish what is under way, then release everything."""

    def check() -> Deferred[None]:
        """Succeed if the store can answer now (readiness), fail with the reason otherwise."""

    def add_account(username: str, email: str, password_hash: str) -> Deferred[Account]:
        """Create an account; `UsernameTaken` if anyone ever had that name, whatever its case."""

    def account(user_id: int) -> Deferred[Account | None]:
        """The account, or None where there is none or it was deleted."""

    def account_named(username: str) -> Deferred[Account | None]:
        """The account of that name, whatever its case, or None."""

    def credentials(username: str) -> Deferred[Credentials | None]:
        """What checks a password of that name, or None."""

    def delete_account(user_id: int) -> Deferred[bool]:
        """Delete the account with its inbox and tokens; False if there was none.

        What it sent stays in the inboxes of others; its id and name are never given out again.
        """

    def add_token(user_id: int, digest: bytes) -> Deferred[int | None]:
        """Store a token's SHA-256 and return its creation time; None if the account is gone."""

    def token_owners(digests: Sequence[bytes]) -> Deferred[list[int | None]]:
        """The owner of each token, None for one that is unknown or revoked."""

    def delete_token(user_id: int, digest: bytes) -> Deferred[bool]:
        """Revoke a token; False if it was not there."""

    def record_seen(seen: Mapping[int, int]) -> Deferred[None]:
        """Set `last_seen_at` of many accounts, never backwards."""

    def append(drafts: Sequence[Draft]) -> Deferred[list[Appended | DomainError]]:
        """Append many messages in one durable transaction; one outcome for each draft, in order.

        Each inbox numbers its messages 1, 2, 3 ... in the order of commit; drafts of one call to
        one inbox are numbered in their order. A draft whose recipient is missing gives
        `UserNotFound`, one whose key was used for another request `IdempotencyKeyReused`, one
        whose key was used for the same request the first message, replayed. Such a draft does
        not disturb the others. Succeeds only after the transaction is on stable storage.
        """

    def read(queries: Sequence[ReadAfter | ReadPage]) -> Deferred[list[InboxSlice | None]]:
        """Answer many queries from one snapshot; None where the inbox is gone.

        A slice's `last_seq` and `messages` belong together. For a `ReadPage` with `at` beyond the
        end of the inbox, or a `ReadAfter` from there, `messages` is empty.
        """

    def conversation(query: ReadConversation) -> Deferred[ConversationSlice | None]:
        """What two accounts sent each other, from one snapshot; None if the asker's inbox is gone.

        Ordered by `ConversationCursor`. What was sent to an account that was deleted is gone with
        its inbox, what it sent is still in the asker's. The cost does not grow with the depth.
        """

    def read_cached(query: ReadAfter | ReadPage, *, listening: bool = False) -> InboxSlice | None:
        """What `read` would answer to the query, if that is known without asking, else None.

        Never behind any answer that this store has given before. For an asker who is `listening`
        to the bus it may be behind what other processes have been answered: whatever it lacks, the
        asker will be woken for.
        """

    def last_seqs(user_ids: Collection[int]) -> Deferred[dict[int, int]]:
        """The seq of the last message of each inbox that exists."""


class ISubscriber(Interface):
    """Who is told by a bus; the calls come from the reactor and never raise."""

    def wake(user_ids: Collection[int]) -> None:
        """Messages were committed to these inboxes."""

    def wake_all() -> None:
        """Something may have been missed: look at every inbox and forget every session."""

    def revoked(user_id: int, token: bytes | None) -> None:
        """A token of the user was revoked or, with None, everything of the user."""


class IBus(Interface):
    """Tells every process that serves one store which inboxes have new messages."""

    def start(subscriber: ISubscriber) -> Deferred[None]:
        """Begin telling; succeeds once nothing committed from now on can be missed."""

    def stop() -> Deferred[None]:
        """Tell nothing more."""

    def problem() -> str | None:
        """Why wake-ups from other processes do not arrive now, or None when they do."""

    def publish(user_ids: Collection[int]) -> None:
        """Messages to these inboxes are durable."""

    def publish_revoked(user_id: int, token: bytes | None) -> None:
        """The revocation of a token or, with None, of everything of the user, is durable."""
