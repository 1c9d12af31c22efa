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
from chatd.model_sync import (
    ChangesSlice,
    ConversationList,
    ListConversations,
    MarkRead,
    PeerPositions,
    ReadChanges,
)


class ISyncStore(Interface):
    """Durable storage of what the devices of an account need to show the same.

    Nothing of it is written for accounts that have never asked: an account has changes from its
    first call of `conversations`, `changes`, `mark_read` or `synchronise` on.
    """

    def synchronise(user_id: int) -> Deferred[bool]:
        """Record the changes of an account from now on; False if there is no such account."""

    def conversations(query: ListConversations) -> Deferred[ConversationList | None]:
        """The conversations of an account; None if there is no such account.

        The cost depends neither on the number of messages nor on that of conversations.
        """

    def changes(query: ReadChanges) -> Deferred[ChangesSlice | None]:
        """What has changed for an account after a position; None if there is no such account.

        Changes are numbered in the order of commit, so that none is ever missed. Fails with
        `CursorEpoch` for a position past the end.
        """

    def mark_read(query: MarkRead) -> Deferred[Collection[int] | None]:
        """Move a read position forward and return the accounts for which something has changed.

        None if there is no such account. Fails with `InvalidBody` past the end of the inbox, and
        with `UserNotFound` if the peer has never existed.
        """

    def peer_positions(user_id: int, peer: int) -> Deferred[PeerPositions]:
        """The last messages of `user_id` that were delivered to `peer`, and read by it."""

    def record_delivered(delivered: Mapping[int, int]) -> Deferred[Collection[int]]:
        """Move delivered positions, seq by user, forward; returns who has changes by that.

        Positions past the end of an inbox are ignored.
        """


class IAdminStore(Interface):
    """What only administrators do with accounts.

    Whatever ends sessions does so in the database; the bus announces it to processes.
    """

    def accounts(after: int, limit: int) -> Deferred[list[AccountState]]:
        """The first `limit` accounts whose ids are above `after`, in the order of ids."""

    def account_named(username: str) -> Deferred[AccountState | None]:
        """The account with that name, ignoring case, or None."""

    def set_password(user_id: int, password_hash: str) -> Deferred[bool]:
        """Change a password and revoke all tokens of the user; False if there is no account."""

    def disable(user_id: int) -> Deferred[bool]:
        """Refuse log-ins from now on and revoke all tokens; False if there is no account.

        `credentials` tells that the account is disabled, `password_hashes` does not know it, and
        `add_token` adds none. Messages to it are stored as before. Safe to repeat.
        """

    def remove_old(before: int) -> Deferred[int]:
        """Remove the messages that were sent before that time from all inboxes, in bounded steps.

        `IStore.removed` says what was removed before it is deleted. Returns how many messages were
        deleted.
        """

    def recipients(user_id: int) -> Deferred[list[int]]:
        """The accounts to which a user has sent messages, in the order of ids."""

    def enable(user_id: int) -> Deferred[bool]:
        """Undo `disable`, except that revoked tokens stay revoked; False if there is no account."""


MAX_TOKENS: Final = 1000
"""Valid tokens of a user."""


class IStore(Interface):
    """Durable storage of accounts, tokens and inboxes.

    Methods may be called between `open` and `close`, and any of them may fail with
    `StoreUnavailable`. Their Deferreds must not be cancelled: `chatd.domain.batch` and
    `chatd.runtime.shield` protect them from callers that are.
    """

    epoch: str = Attribute("Identifies this database's history, `[a-z2-7]{8,32}`; set by `open`.")
    location: str = Attribute("Where the data is, for display; contains no password.")
    sync: ISyncStore = Attribute("Conversations and changes; it is open while the store is.")
    admin: IAdminStore = Attribute("What administrators do; it is open while the store is.")
    limits: InboxLimits = Attribute(
        "How large inboxes may become, without what was `removed`; its fields may be changed. With "
        "several processes, what is appended at the same time may exceed them a little."
    )
    keep: int | None = Attribute(
        "How many microseconds messages are kept, None: always; it may be changed."
    )
    parallel: int = Attribute(
        "How many calls it should be given at once, besides those that are made in batches."
    )
    removed: Mapping[int, int] = Attribute(
        "By user, the last seq of the messages that were removed from the beginning of the inbox, "
        "because they were old or by its owner. A read may still return those after that."
    )

    def open() -> Deferred[None]:
        """Open the database and migrate its schema; fails with `StartError`."""

    def close() -> Deferred[None]:
        """Finish running calls, then release all resources."""

    def lane(user_id: int) -> int:
        """Where the data of a user is; users of other places are not affected by its failures.

        Calls for users of different lanes should not be made together. It may change.
        """

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
        """The password hashes of those accounts that exist and are not disabled."""

    def change_account(change: AccountChange) -> Deferred[Account | None]:
        """Change an account and revoke tokens, in one transaction; returns the changed account.

        None if the account does not exist or has another password hash than `change.verified`.
        """

    def find_users(prefix: str, limit: int) -> Deferred[list[UserName]]:
        """The first `limit` users whose names begin with `prefix`, ignoring case, by name."""

    def delete_account(user_id: int, *, erase: bool = False) -> Deferred[bool]:
        """Delete an account with its inbox and tokens; False if there was none.

        Messages that it sent remain in other inboxes, unless `erase` is called until it has deleted
        them. Its id and name are never reused.
        """

    def erase(user_id: int | None = None) -> Deferred[Erased]:
        """Delete some messages that accounts deleted with `erase` have sent, in one step.

        Each becomes as `revise` leaves a deleted one. It goes on where the last call in any process
        stopped, with the messages of `user_id`, else of any such account. Of `user_id`, there is
        `more` until everything is deleted that was committed before its account was deleted.
        What is committed later is deleted by calls without an id, a minute afterwards.
        """

    def add_token(
        user_id: int,
        digest: bytes,
        options: TokenOptions = UNLIMITED,
        verified: str | None = None,
    ) -> Deferred[AddedToken | None]:
        """Store a token's SHA-256; None if there is no account, or it is disabled.

        With `verified`, also None if that is not the account's password hash. In the same
        transaction those of the user's other valid tokens that were used longest ago are revoked if
        there would be more than `MAX_TOKENS`; a token counts as used when it is created.
        """

    def sessions(
        digests: Sequence[bytes], owners: Mapping[bytes, int] | None = None
    ) -> Deferred[list[Session | None]]:
        """The session of each token; None for unknown, revoked and expired ones.

        `owners` says of some whose they are; where that is wrong they may be unknown.
        """

    def tokens(user_id: int) -> Deferred[list[Token]]:
        """The newest `MAX_TOKENS` tokens of a user that have not expired, newest first."""

    def encoded_tokens(user_id: int, current: int | None) -> Deferred[EncodedTokens]:
        """The same as the API shows them; the one of the id `current` as the current one."""

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

    def append(
        drafts: Sequence[Draft], within: float | None = None
    ) -> Deferred[list[Appended | DomainError]]:
        """Append messages, in one durable transaction of each lane; returns results in order.

        The messages of each inbox are numbered 1, 2, 3 ... in order of commit, and those of one
        call in the order of `drafts`. The result is `UserNotFound` if there is no recipient,
        `IdempotencyKeyReused` if the key was used for another request, and the first message as it
        is now, marked as replayed, if the key was used for the same request. Otherwise it is
        `Blocked` if the recipient has blocked the sender, and, unless the store lets everybody
        write first, `FirstContactClosed` if neither had sent the other a message before this
        call, and they are not the same. It is `InboxFull` or `InboxStorageFull` if the inbox would
        exceed the `limits`. Such drafts do not affect the others. Succeeds only once the
        transaction is on stable storage. A draft that is appended after a `block` has succeeded is
        subject to it. Where a server has to be waited for, it fails after `within` seconds, or
        after a default.
        """

    def revise(revision: Revision) -> Deferred[Message]:
        """Edit or delete a message; returns it as it is then, once that is on stable storage.

        The former text is not stored any more, and no result that this store returns from now on
        contains it. An edit to the same text and the deletion of a deleted message change nothing.
        Fails with `MessageNotFound` if there is no such inbox or
        message, or the message is neither from nor to `revised_by`; else with `NotTheSender`;
        else, for an edit, with `MessageDeleted`; else, unless it is deleted already, with
        `TooLate`; else, for an edit, with `Blocked` if the recipient has blocked the sender; else
        with `InboxStorageFull` if the inbox would grow beyond the `limits`.
        """

    def remove_oldest(user_id: int, up_to: int) -> Deferred[bool | None]:
        """Remove the oldest messages of an inbox, up to the seq `up_to`, as `remove_old` does.

        Removes some, at most a thousand, in one transaction, and returns whether there are more;
        None if there is no inbox. Their rows are deleted later. Fails with `InvalidQuery` past the
        end of the inbox. Safe to repeat, also by several at once.
        """

    def block(user_id: int, blocked_id: int) -> Deferred[None]:
        """From now on `append` refuses what `blocked_id` sends to `user_id`; safe to repeat.

        Fails with `UserNotFound` if either has no account, and with `TooManyBlocks`.
        """

    def unblock(user_id: int, blocked_id: int) -> Deferred[None]:
        """Undo `block`; does nothing if there is nothing to undo."""

    def blocks(user_id: int) -> Deferred[EncodedRows]:
        """The accounts that a user has blocked, without deleted ones, in the order of names: each a
        `BlockedUser`."""

    def read(
        queries: Sequence[ReadAfter | ReadPage], within: float | None = None
    ) -> Deferred[list[InboxSlice | None]]:
        """Answer queries, from one snapshot of each lane; None for an inbox that does not exist.

        For `within` see `append`.

        `last_seq` and `messages` of a slice are consistent. `messages` is empty for a `ReadPage`
        whose `at` is beyond the end of the inbox, and for a `ReadAfter` with such a `seq`.
        """

    def conversation(query: ReadConversation) -> Deferred[ConversationSlice | None]:
        """The messages between two accounts; None if `user_id` has no inbox.

        What each has sent is from one snapshot, but if they are in different lanes, both are not
        from the same: a message may be missing while a later one of the other side is there. It is
        newer than all that is returned of its own side. Ordered by `ConversationCursor`. Messages
        to a deleted account are deleted with its inbox, those from it remain. The cost does not
        depend on how old the messages are.
        """

    def read_cached(query: ReadAfter | ReadPage, *, listening: bool = False) -> InboxSlice | None:
        """The result of `read` if it is known without a query, otherwise None.

        It is never older than any earlier result of this store, and contains no text that was
        revised through this store, or through another as far as the bus has told. With `listening`,
        the caller is subscribed to the bus, and the result may be older than what other processes
        have returned: the bus will wake the caller for what is missing.
        """

    def last_seqs(user_ids: Collection[int]) -> Deferred[dict[int, int]]:
        """The seq of the last message of each inbox that exists."""


class ISubscriber(Interface):
    """Receives the events of a bus, in the reactor's thread; its methods never raise."""

    def wake(user_ids: Collection[int]) -> None:
        """Messages were committed to these inboxes."""

    def wake_for_changes(user_ids: Collection[int]) -> None:
        """Changes of these accounts were committed."""

    def changed(received_by: int, seq: int, sent_by: int) -> None:
        """A message was edited or deleted, or may have been."""

    def wake_all() -> None:
        """Events may have been missed: check every inbox and forget all cached sessions."""

    def check(user_ids: Collection[int]) -> None:
        """Messages and changes of these users may have been missed: wake whom they concern."""

    def revoked(user_id: int, token: bytes | None) -> None:
        """A token of the user was revoked; None: all tokens, because the account was deleted."""

    def sessions_changed(user_id: int) -> None:
        """Sessions of the user may have ended: the store knows which."""


class IInterest(Interface):
    """Whose events a process wants to receive; the methods are called in turns for a user."""

    def watch(user_id: int) -> None:
        """The events of this user are wanted from now on."""

    def unwatch(user_id: int) -> None:
        """They are not wanted any more."""


class IAnnouncer(Interface):
    """Tells other processes what this one has committed, for a store that does not itself.

    The methods never raise. They may be called at any time; what is announced while there is no
    connection makes the others check everything later.
    """

    def announce_messages(messages: Sequence[Message]) -> None:
        """Messages were committed; those of one inbox are in the order of their seq."""

    def announce_changes(user_ids: Collection[int]) -> None:
        """Changes of these accounts were committed."""

    def announce_changed(received_by: int, seq: int, sent_by: int) -> None:
        """A message was edited or deleted."""

    def announce_revoked(user_id: int, token: bytes | None) -> None:
        """A token was revoked; None: all tokens of the user."""

    def announce_sessions_changed(user_id: int) -> None:
        """Sessions of the user may have ended."""

    def announce_removed(inboxes: Sequence[tuple[int, int]]) -> None:
        """Messages were removed: pairs of user and the last seq that was."""

    def announce_unknown(user_ids: Collection[int], *, sessions: bool = False) -> None:
        """Something concerning these users, or their sessions, may be committed now or later."""


class IBus(Interface):
    """Announces new and revised messages and revocations to all processes that share a store."""

    interest: IInterest | None = Attribute(
        "What is told whose events this process wants; None if it receives those of all users."
    )

    def start(subscriber: ISubscriber) -> Deferred[None]:
        """Subscribe; succeeds once no later commit can be missed, or fails with `StartError`."""

    def stop() -> Deferred[None]:
        """Unsubscribe; the subscriber is not called any more."""

    def problem() -> str | None:
        """Why no events arrive from other processes at present, or None if they do."""

    def publish(user_ids: Collection[int]) -> None:
        """Announce that messages were committed to these inboxes."""

    def publish_changes(user_ids: Collection[int]) -> None:
        """Announce that changes of these accounts were committed."""

    def publish_changed(received_by: int, seq: int, sent_by: int) -> None:
        """Announce that a message was edited or deleted, or may have been."""

    def publish_revoked(user_id: int, token: bytes | None) -> None:
        """Announce a committed revocation; None: of all tokens of the user."""

    def publish_sessions_changed(user_id: int) -> None:
        """Announce that sessions of the user may have ended, see `ISubscriber`."""
