"""Model-based test of stores: random operations on a store and on a simple model of it.

`StoreMachine` is a `hypothesis.stateful` machine. A test module subclasses it, defines how to open
the store and how to wait for its results, and collects `TestCase`:

    class SqliteMachine(StoreMachine): ...
    TestSqliteModel = SqliteMachine.TestCase

`run` may block, for example with `pytest_twisted.blockon`: the test runs outside the reactor.
"""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import msgspec
import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace
from twisted.internet.defer import Deferred

from chatd.domain.poll import verify
from chatd.errors import (
    Blocked,
    CursorEpoch,
    DomainError,
    FirstContactClosed,
    IdempotencyKeyReused,
    InboxStorageFull,
    MessageDeleted,
    MessageNotFound,
    NotTheSender,
    TooLate,
    UsernameTaken,
    UserNotFound,
)
from chatd.interfaces import IStore
from chatd.model import (
    ALL_SCOPES,
    MAX_INTEGER,
    Account,
    AccountChange,
    Appended,
    BlockedUser,
    ConversationCursor,
    Credentials,
    Draft,
    ErasedMessage,
    IdempotencyKey,
    InboxSlice,
    Message,
    ReadAfter,
    ReadConversation,
    ReadPage,
    Revision,
    Scope,
    Session,
    Token,
    TokenOptions,
    UserName,
)
from tests.inbox_slices import expected_slice

T = TypeVar("T")

NAMES = ("ann", "Ann", "ANN", "bob", "BoB", "cat", "dan", "eve", "x_1", "x-1", "x.1")

# Accounts are drawn by number, in order of creation and including deleted ones; numbers beyond the
# last account stand for unknown ids.
users = st.integers(0, 5)
places = st.one_of(st.integers(0, 12), st.integers(0, 10**6))
limits = st.sampled_from([1, 2, 3, 10, 100])
texts = st.one_of(st.sampled_from(["x", "y"]), st.text(st.characters(exclude_categories=["Cs"])))
drafts = st.tuples(
    users, users, texts.filter(lambda text: "\0" not in text), st.sampled_from([None, "k", "K"])
)


@dataclass
class User:
    """An account, possibly a deleted one, and its inbox."""

    account: Account
    password_hash: str
    deleted: bool = False
    inbox: list[Message] = field(default_factory=list)


@dataclass
class Follower:
    """A polling client; `seq` and `stamp` are its cursor, None before the first poll."""

    user: int
    seq: int | None
    stamp: int | None = None
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Sender and time of each message that it has received, by seq."""


class StoreMachine(RuleBasedStateMachine):
    """Random operations, whose results are compared with those of the model."""

    # Implemented by subclasses

    def open_store(self, *, known_only: bool = False) -> IStore:
        """Open a store, on a new database first and later on the same one."""
        raise NotImplementedError

    def run(self, deferred: Deferred[T]) -> T:
        """Wait for the Deferred and return its result."""
        raise NotImplementedError

    def pass_time(self, seconds: float) -> None:
        """Change the store's clock, if possible; `seconds` may be negative."""

    def copy_database(self) -> None:
        """Copy the database, which is not open."""
        raise NotImplementedError

    def put_back_database(self) -> None:
        """Replace the database, which is not open, by the copy."""
        raise NotImplementedError

    def discard(self) -> None:
        """Clean up after an example, whose store is closed."""

    # Rules and the model

    STATE: ClassVar[tuple[str, ...]] = (
        *("users", "names", "tokens", "digests", "last_token_id", "keys", "blocks"),
        "known_only",
    )
    """The attributes that are a model of the database."""

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[int, User] = {}
        self.names: set[str] = set()
        self.tokens: dict[bytes, tuple[int, Token]] = {}
        # The valid ones above, those that were revoked or have expired here, too.
        self.digests: set[bytes] = set()
        self.last_token_id = 0
        self.keys: dict[tuple[int, str], tuple[bytes, Message]] = {}
        self.followers: list[Follower] = []
        self.blocks: set[tuple[int, int]] = set()
        self.known_only = False
        self.copied: dict[str, Any] | None = None
        # They cost time, so their number is limited.
        self.copies = self.put_backs = 0
        self.store: IStore | None = None

    @property
    def opened(self) -> Any:
        assert self.store is not None
        return self.store

    def id_of(self, number: int) -> int:
        ids = list(self.users)
        return ids[number] if number < len(ids) else 4711 + number

    def existing(self, number: int) -> User | None:
        user = self.users.get(self.id_of(number))
        return None if user is None or user.deleted else user

    @initialize()
    def open(self) -> None:
        self.store = self.open_store()
        self.epoch = self.store.epoch

    @initialize(count=st.integers(1, 3))
    def set_initial_accounts(self, count: int) -> None:
        self.initial_accounts = count

    # Rarely, because then most messages are refused.
    @rule(known_only=st.sampled_from([False, False, False, True]))
    def reopen(self, known_only: bool) -> None:
        self.run(self.opened.close())
        self.store = self.open_store(known_only=known_only)
        self.known_only = known_only
        assert self.store.epoch == self.epoch

    @precondition(lambda self: self.store is not None and self.copies < 2)
    @rule()
    def copy(self) -> None:
        self.copies += 1
        self.run(self.opened.close())
        self.copy_database()
        self.copied = deepcopy({name: getattr(self, name) for name in self.STATE})
        self.store = self.open_store(known_only=self.known_only)

    @precondition(lambda self: self.copied is not None and self.put_backs < 2)
    @rule()
    def put_back(self) -> None:
        assert self.copied is not None
        self.put_backs += 1
        # Let clients see what will be lost.
        self.follow(0, True)
        self.poll(100)
        self.run(self.opened.close())
        self.put_back_database()
        for name, value in deepcopy(self.copied).items():
            setattr(self, name, value)
        # Time goes on meanwhile.
        self.pass_time(0.000001)
        self.store = self.open_store(known_only=self.known_only)
        assert self.store.epoch == self.epoch

    @rule(seconds=st.sampled_from([0.000001, 0.5, 60.0, -60.0]))
    def change_time(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(name=st.sampled_from(NAMES))
    def register(self, name: str) -> None:
        if name.lower() in self.names:
            with pytest.raises(UsernameTaken):
                self.run(self.opened.add_account(name, "e@example.org", "hash"))
            return
        account = self.run(self.opened.add_account(name, f"{name}@example.org", f"hash of {name}"))
        assert account.id > max(self.users, default=0)
        assert account == Account(
            account.id, name, f"{name}@example.org", account.date_joined, None
        )
        self.names.add(name.lower())
        self.users[account.id] = User(account, f"hash of {name}")

    @rule(number=users, erase=st.booleans())
    def delete(self, number: int, erase: bool) -> None:
        user, user_id = self.existing(number), self.id_of(number)
        deletion = self.opened.delete_account(user_id, erase=erase)
        assert self.run(deletion) is (user is not None)
        if user is not None:
            user.deleted = True
            self.forget_tokens(user_id, None)
            self.blocks -= {each for each in self.blocks if each[0] == user_id}
        erased: list[ErasedMessage] = []
        more = True
        while more:
            step = self.run(self.opened.erase(user_id))
            erased += step.messages
            more = step.more
        if user is not None and erase:
            self.expect_erased(user_id, erased)
        else:
            assert not erased

    def expect_erased(self, user_id: int, erased: list[ErasedMessage]) -> None:
        """Compare what was erased with the model, and update the model."""
        sent = [
            (owner, place)
            for owner in self.users.values()
            for place, message in enumerate(owner.inbox)
            if message.sent_by == user_id and message.deleted_at is None and not owner.deleted
        ]
        assert erased == [
            ErasedMessage(owner.account.id, place + 1, user_id) for owner, place in sent
        ]
        for owner, place in sent:
            old = owner.inbox[place]
            [inbox] = self.run(self.opened.read([ReadAfter(old.received_by, place, 1)]))
            [new] = inbox.messages
            assert new.deleted_at >= (old.edited_at or old.sent_at)
            assert new == replace(old, text="", deleted_at=new.deleted_at)
            owner.inbox[place] = new

    @rule(
        number=users,
        digest=st.binary(min_size=32, max_size=32),
        label=st.sampled_from([None, "phone", "Grüße '%s"]),
        scopes=st.integers(1, ALL_SCOPES).map(Scope),
        # At most a token of the past: the clock of a server cannot be changed.
        lifetime=st.sampled_from([None, None, -(10**11), 10**15]),
        verified=st.sampled_from([None, True, False]),
    )
    def issue_token(
        self,
        number: int,
        digest: bytes,
        label: str | None,
        scopes: Scope,
        lifetime: int | None,
        verified: bool | None,
    ) -> None:
        if digest in self.digests:
            return
        user = self.existing(number)
        password_hash = None if verified is None else "another hash"
        if verified and user is not None:
            password_hash = user.password_hash
        options = TokenOptions(label, scopes, lifetime)
        added = self.run(self.opened.add_token(self.id_of(number), digest, options, password_hash))
        if user is None or verified is False:
            assert added is None
            return
        assert added is not None
        token = added.token
        assert token.id > self.last_token_id
        self.last_token_id = token.id
        expires_at = None if lifetime is None else token.created_at + lifetime
        assert token == Token(token.id, digest, label, scopes, token.created_at, None, expires_at)
        self.digests.add(digest)
        if lifetime is None or lifetime > 0:
            self.tokens[digest] = (user.account.id, token)

    def drawn_token(self, which: int) -> tuple[bytes, int, int | None]:
        """The digest, id and owner of some token, perhaps one that does not exist."""
        known = [
            *((digest, token.id, owner) for digest, (owner, token) in self.tokens.items()),
            (bytes(32), self.last_token_id + 1, None),
        ]
        return known[which % len(known)]

    @rule(number=users, which=st.integers(0, 20), by_id=st.booleans())
    def revoke_token(self, number: int, which: int, by_id: bool) -> None:
        digest, token_id, owner = self.drawn_token(which)
        user_id = self.id_of(number)
        deletion = (
            self.opened.delete_token_by_id(user_id, token_id)
            if by_id
            else self.opened.delete_token(user_id, digest)
        )
        assert self.run(deletion) is (owner == user_id)
        if owner == user_id:
            del self.tokens[digest]

    @rule(number=users, which=st.one_of(st.none(), st.integers(0, 20)))
    def revoke_other_tokens(self, number: int, which: int | None) -> None:
        kept = None if which is None else self.drawn_token(which)[0]
        self.run(self.opened.delete_other_tokens(self.id_of(number), kept))
        self.forget_tokens(self.id_of(number), kept)

    def forget_tokens(self, user_id: int, kept: bytes | None) -> None:
        for digest, (owner, _) in [*self.tokens.items()]:
            if owner == user_id and digest != kept:
                del self.tokens[digest]

    @rule(
        number=users,
        password=st.one_of(st.none(), st.sampled_from(["hash of x", "hash of y"])),
        email=st.one_of(st.none(), st.sampled_from(["x@y", "Grüße@x"])),
        verified=st.booleans(),
        which=st.one_of(st.none(), st.integers(0, 20)),
    )
    def change_account(
        self,
        number: int,
        password: str | None,
        email: str | None,
        verified: bool,
        which: int | None,
    ) -> None:
        user_id, user = self.id_of(number), self.existing(number)
        password_hash = None if password is None else f"{password} {len(self.users)} {user_id}"
        kept = None if which is None else self.drawn_token(which)[0]
        present = user.password_hash if verified and user is not None else "another hash"
        if password_hash is not None and user is not None and password_hash == user.password_hash:
            return  # New hashes are always different.
        change = AccountChange(user_id, present, password_hash, email, kept)
        account = self.run(self.opened.change_account(change))
        if user is None or not verified:
            assert account is None
            return
        old = user.account
        user.account = Account(
            old.id, old.username, email or old.email, old.date_joined, old.last_seen_at
        )
        assert account == user.account
        if password_hash is not None:
            user.password_hash = password_hash
            self.forget_tokens(user_id, kept)

    @rule(
        seen=st.dictionaries(users, st.integers(1, 50), max_size=4),
        used=st.dictionaries(st.integers(0, 20), st.integers(1, 50), max_size=4),
    )
    def record_seen(self, seen: dict[int, int], used: dict[int, int]) -> None:
        tokens = {self.drawn_token(which)[0]: at for which, at in used.items()}
        self.run(
            self.opened.record_seen({self.id_of(number): at for number, at in seen.items()}, tokens)
        )
        for number, at in seen.items():
            user = self.existing(number)
            if user is not None and (user.account.last_seen_at or 0) < at:
                old = user.account
                user.account = Account(old.id, old.username, old.email, old.date_joined, at)
        for digest, at in tokens.items():
            if digest in self.tokens:
                owner, token = self.tokens[digest]
                if (token.last_used_at or 0) < at:
                    self.tokens[digest] = (owner, replace(token, last_used_at=at))

    @rule(drawn=st.lists(drafts, max_size=8))
    def append(self, drawn: list[tuple[int, int, str, str | None]]) -> None:
        batch = self.batch(drawn)
        contacts = self.contacts()
        for one, result in zip(batch, self.run(self.opened.append(batch)), strict=True):
            self.expect(one, result, contacts)

    @rule(drawn=st.lists(drafts, max_size=4), again=st.lists(drafts, max_size=4))
    def append_concurrently(
        self,
        drawn: list[tuple[int, int, str, str | None]],
        again: list[tuple[int, int, str, str | None]],
    ) -> None:
        # The results must not depend on the order of the calls, so there are no keys.
        if self.known_only:
            return
        calls = [self.batch([(*each[:3], None) for each in call]) for call in (drawn, again)]
        deferreds = [self.opened.append(call) for call in calls]
        results = [
            (one, result)
            for call, deferred in zip(calls, deferreds, strict=True)
            for one, result in zip(call, self.run(deferred), strict=True)
        ]
        results.sort(key=lambda each: each[1].message.seq if isinstance(each[1], Appended) else 0)
        for one, result in results:
            self.expect(one, result, self.contacts())

    def batch(self, drawn: list[tuple[int, int, str, str | None]]) -> list[Draft]:
        """Drafts, without those of unknown senders."""
        batch = []
        for sender, recipient, text, key in drawn:
            if self.existing(sender) is not None:
                received_by = self.id_of(recipient)
                fingerprint = hashlib.sha256(f"{received_by}:{text}".encode()).digest()
                idempotency = None if key is None else IdempotencyKey(key, fingerprint)
                batch.append(Draft(self.id_of(sender), received_by, text, idempotency))
        return batch

    def contacts(self) -> set[tuple[int, int]]:
        """The pairs of accounts of which one has sent the other a message, in both orders."""
        pairs = {
            (user_id, each.sent_by) for user_id, user in self.users.items() for each in user.inbox
        }
        return pairs | {(one, other) for other, one in pairs}

    def current(self, message: Message) -> Message:
        """A message as it is now; as it was sent if its inbox is gone."""
        user = self.users[message.received_by]
        return message if user.deleted else user.inbox[message.seq - 1]

    def expect(
        self,
        draft: Draft,
        result: Appended | DomainError,
        contacts: set[tuple[int, int]],
        *,
        fits: bool = True,
    ) -> None:
        """Compare a result with the model and update the model."""
        key = draft.idempotency
        if key is not None and (draft.sent_by, key.key) in self.keys:
            fingerprint, first = self.keys[draft.sent_by, key.key]
            if fingerprint == key.fingerprint:
                assert result == Appended(self.current(first), replayed=True)
            else:
                assert isinstance(result, IdempotencyKeyReused)
            return
        recipient = self.users.get(draft.received_by)
        if recipient is None or recipient.deleted:
            assert isinstance(result, UserNotFound)
            return
        if (draft.received_by, draft.sent_by) in self.blocks:
            assert isinstance(result, Blocked)
            return
        known = draft.sent_by == draft.received_by or (draft.sent_by, draft.received_by) in contacts
        if self.known_only and not known:
            assert isinstance(result, FirstContactClosed)
            return
        if not fits:
            assert isinstance(result, InboxStorageFull)
            return
        assert isinstance(result, Appended)
        message = result.message
        seq = len(recipient.inbox) + 1
        expected = Message(draft.received_by, seq, draft.sent_by, message.sent_at, draft.text)
        assert result == Appended(expected, replayed=False)
        if recipient.inbox:
            assert message.sent_at >= recipient.inbox[-1].sent_at
        recipient.inbox.append(message)
        if key is not None:
            self.keys[draft.sent_by, key.key] = (key.fingerprint, message)

    def bytes_of(self, user: User) -> int:
        return sum(len(each.text.encode()) for each in user.inbox)

    @rule(number=users, recipient=users, room=st.integers(0, 3))
    def append_to_limited_inbox(self, number: int, recipient: int, room: int) -> None:
        owner = self.existing(recipient)
        if self.existing(number) is None or owner is None:
            return
        self.opened.limits.bytes = self.bytes_of(owner) + room
        draft = Draft(self.id_of(number), self.id_of(recipient), "\u00e4")
        [result] = self.run(self.opened.append([draft]))
        self.opened.limits.bytes = MAX_INTEGER
        self.expect(draft, result, self.contacts(), fits=room >= 2)

    @rule(number=users)
    def measure_inbox(self, number: int) -> None:
        user = self.existing(number)
        if user is not None:
            state = self.run(self.opened.admin.account_named(user.account.username))
            assert (state.messages, state.bytes) == (len(user.inbox), self.bytes_of(user))

    @rule(
        number=users,
        recipient=users,
        place=st.integers(0, 12),
        text=st.one_of(st.none(), texts.filter(lambda text: "\0" not in text)),
        too_late=st.booleans(),
    )
    def revise(
        self, number: int, recipient: int, place: int, text: str | None, too_late: bool
    ) -> None:
        by, received_by = self.id_of(number), self.id_of(recipient)
        within = 1 if too_late else None
        user = self.existing(recipient)
        seq = 1 + place % len(user.inbox) if user is not None and user.inbox else 1 + place
        if self.existing(number) is None:
            return
        deferred = self.opened.revise(Revision(by, received_by, seq, text, within))
        old = None if user is None or seq > len(user.inbox) else user.inbox[seq - 1]
        if old is None or by not in (old.sent_by, old.received_by):
            with pytest.raises(MessageNotFound):
                self.run(deferred)
        elif by != old.sent_by:
            with pytest.raises(NotTheSender):
                self.run(deferred)
        elif old.deleted_at is not None:
            if text is None:
                assert self.run(deferred) == old
            else:
                with pytest.raises(MessageDeleted):
                    self.run(deferred)
        else:
            self.expect_revised(old, text, within, deferred)

    def expect_revised(
        self, old: Message, text: str | None, within: int | None, deferred: Deferred[Message]
    ) -> None:
        """Compare the revision of a message that is the caller's with the model."""
        try:
            new = self.run(deferred)
        except TooLate:
            assert within is not None
            return
        except Blocked:
            assert text is not None
            assert (old.received_by, old.sent_by) in self.blocks
            return
        assert text is None or (old.received_by, old.sent_by) not in self.blocks
        edited_at, deleted_at = new.edited_at, new.deleted_at
        if text == old.text:
            assert new == old
        elif text is None:
            assert edited_at == old.edited_at
            assert deleted_at is not None
            assert deleted_at >= (edited_at or old.sent_at)
        else:
            assert deleted_at is None
            assert edited_at is not None
            assert edited_at >= (old.edited_at or old.sent_at)
        assert new == Message(
            old.received_by,
            old.seq,
            old.sent_by,
            old.sent_at,
            text or "",
            edited_at,
            deleted_at,
        )
        self.users[old.received_by].inbox[old.seq - 1] = new

    @rule(number=users, other=users)
    def block(self, number: int, other: int) -> None:
        user_id, blocked_id = self.id_of(number), self.id_of(other)
        deferred = self.opened.block(user_id, blocked_id)
        if number == other or not (self.existing(number) and self.existing(other)):
            with pytest.raises(UserNotFound):
                self.run(deferred)
        else:
            self.run(deferred)
            self.blocks.add((user_id, blocked_id))

    @rule(number=users, other=users)
    def unblock(self, number: int, other: int) -> None:
        self.run(self.opened.unblock(self.id_of(number), self.id_of(other)))
        self.blocks.discard((self.id_of(number), self.id_of(other)))

    @rule(number=users)
    def list_blocks(self, number: int) -> None:
        user_id = self.id_of(number)
        expected = [
            BlockedUser(each.account.id, each.account.username)
            for each in self.users.values()
            if (user_id, each.account.id) in self.blocks and not each.deleted
        ]
        expected.sort(key=lambda each: each.username.lower())
        found = self.run(self.opened.blocks(user_id))
        assert msgspec.json.decode(found.text, type=list[BlockedUser]) == expected

    @rule(drawn=st.lists(st.tuples(users, places, limits), max_size=5))
    def read_after(self, drawn: list[tuple[int, int, int]]) -> None:
        queries = [ReadAfter(self.id_of(number), seq, limit) for number, seq, limit in drawn]
        expected = [self.expected(each) for each in queries]
        for query, inbox in zip(queries, expected, strict=True):
            assert self.opened.read_cached(query) in (None, inbox)
        assert self.run(self.opened.read(queries)) == expected

    def expected(self, query: ReadAfter | ReadPage) -> InboxSlice | None:
        user = self.users.get(query.user_id)
        return None if user is None or user.deleted else expected_slice(user.inbox, query)

    @rule(
        number=users,
        page=st.one_of(st.integers(1, 4), st.integers(1, 2**53 - 1)),
        limit=limits,
        at=st.one_of(st.none(), places),
    )
    def read_page(self, number: int, page: int, limit: int, at: int | None) -> None:
        query = ReadPage(self.id_of(number), page, limit, at)
        cached = self.opened.read_cached(query)
        [found] = self.run(self.opened.read([query]))
        assert found == self.expected(query)
        assert cached in (None, found)

    @rule(number=users, other=users, limit=limits, at=st.one_of(st.none(), places))
    def read_conversation(self, number: int, other: int, limit: int, at: int | None) -> None:
        user_id, peer = self.id_of(number), self.id_of(other)
        one, two = self.existing(number), self.existing(other)
        messages = [] if one is None else [each for each in one.inbox if each.sent_by == peer]
        if two is not None and peer != user_id:
            messages += [each for each in two.inbox if each.sent_by == user_id]
        messages.sort(key=ConversationCursor.of, reverse=True)
        before = (
            None
            if at is None or not messages
            else ConversationCursor.of(messages[at % len(messages)])
        )
        found = self.run(self.opened.conversation(ReadConversation(user_id, peer, limit, before)))
        if one is None:
            assert found is None
            return
        if before is not None:
            messages = [each for each in messages if ConversationCursor.of(each) < before]
        assert found.messages == tuple(messages[:limit])
        assert found.older is (len(messages) > limit)
        assert found.peer_exists is (two is not None)

    @rule(number=users, beginning=st.booleans())
    def follow(self, number: int, beginning: bool) -> None:
        if self.existing(number) is not None and len(self.followers) < 5:
            self.followers.append(Follower(self.id_of(number), 0 if beginning else None))

    @rule(limit=limits)
    def poll(self, limit: int) -> None:
        queries = [ReadAfter(each.user, each.seq, limit) for each in self.followers]
        for follower, found in zip(
            [*self.followers], self.run(self.opened.read(queries)), strict=True
        ):
            assert found == self.expected(ReadAfter(follower.user, follower.seq, limit))
            if found is not None:
                self.receive_messages(follower, found)

    def receive_messages(self, follower: Follower, found: InboxSlice) -> None:
        """What a client has seen is still there, or it is told to begin again."""
        inbox = self.users[follower.user].inbox
        held = {each.seq: (each.sent_by, each.sent_at) for each in inbox}
        if follower.seq is None:
            follower.seq = found.last_seq
            follower.seen = {seq: held[seq] for seq in range(1, follower.seq + 1)}
        try:
            verify(follower.seq, follower.stamp, found)
        except CursorEpoch:
            assert not follower.seen.items() <= held.items()
            self.followers.remove(follower)
            return
        assert follower.seen.items() <= held.items()
        follower.stamp = found.stamp
        for message in found.messages:
            assert message.seq == follower.seq + 1
            follower.seq, follower.stamp = message.seq, message.sent_at
            follower.seen[message.seq] = (message.sent_by, message.sent_at)

    @rule()
    def read_last_seqs(self) -> None:
        user_ids = [*self.users, 4711]
        assert self.run(self.opened.last_seqs(user_ids)) == {
            user_id: len(user.inbox) for user_id, user in self.users.items() if not user.deleted
        }

    @rule()
    def look_up_tokens(self) -> None:
        expected: dict[bytes, Session | None] = dict.fromkeys([bytes(32), *self.digests])
        for user_id in (*self.users, 4711):
            tokens = [token for owner, token in self.tokens.values() if owner == user_id]
            assert self.run(self.opened.tokens(user_id)) == tokens[::-1]
            for token in tokens:
                expected[token.digest] = Session(
                    user_id, token.digest, token.id, token.scopes.value, token.expires_at
                )
        assert self.run(self.opened.sessions([*expected])) == [*expected.values()]

    @rule(prefix=st.sampled_from(["a", "An", "x", "X-", "b_", "zoe", "~"]), limit=limits)
    def find_users(self, prefix: str, limit: int) -> None:
        named = {
            user.account.username.lower(): UserName(user_id, user.account.username)
            for user_id, user in self.users.items()
            if not user.deleted
        }
        found = [named[name] for name in sorted(named) if name.startswith(prefix.lower())]
        assert self.run(self.opened.find_users(prefix, limit)) == found[:limit]

    @rule(name=st.sampled_from(NAMES), number=users)
    def look_up(self, name: str, number: int) -> None:
        named = [
            user
            for user in self.users.values()
            if not user.deleted and user.account.username.lower() == name.lower()
        ]
        assert self.run(self.opened.account_named(name)) == (named[0].account if named else None)
        assert self.run(self.opened.credentials(name)) == (
            Credentials(named[0].account.id, named[0].password_hash) if named else None
        )
        user = self.existing(number)
        assert self.run(self.opened.account(self.id_of(number))) == (user and user.account)
        hashes = {
            user_id: user.password_hash for user_id, user in self.users.items() if not user.deleted
        }
        assert self.run(self.opened.password_hashes([*self.users, 4711])) == hashes

    @invariant()
    def there_are_accounts(self) -> None:
        # Most rules need an account.
        if self.store is not None and not self.users:
            for name in ("zoe", "yan", "xia")[: self.initial_accounts]:
                self.register(name)

    def teardown(self) -> None:
        try:
            if self.store is not None:
                note(f"{len(self.users)} users, {len(self.keys)} keys")
                self.poll(100)
                self.run(self.opened.check())
                for user_id in self.users:
                    query = ReadAfter(user_id, 0, 10_000)
                    assert self.run(self.opened.read([query])) == [self.expected(query)]
                self.read_last_seqs()
                self.look_up_tokens()
        finally:
            if self.store is not None:
                self.run(self.opened.close())
            self.discard()
