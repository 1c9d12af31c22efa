"""A model of what a correct store is, walked through at random beside a real one.

`StoreMachine` is a `hypothesis.stateful` machine. A test module subclasses it, says how its store
is opened and how to wait for it, and collects `Machine.TestCase`:

    class SqliteMachine(StoreMachine): ...
    TestSqliteModel = SqliteMachine.TestCase

`run` may block (`pytest_twisted.blockon` does, as such a test case runs outside the reactor).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.defer import Deferred

from chatd.errors import DomainError, IdempotencyKeyReused, UsernameTaken, UserNotFound
from chatd.interfaces import IStore
from chatd.model import (
    Account,
    Appended,
    ConversationCursor,
    Credentials,
    Draft,
    IdempotencyKey,
    InboxSlice,
    Message,
    ReadAfter,
    ReadConversation,
    ReadPage,
)

T = TypeVar("T")

NAMES = ("ann", "Ann", "ANN", "bob", "BoB", "cat", "dan", "eve", "x_1", "x-1", "x.1")

# People are drawn by number: the low ones are accounts in order of creation, deleted ones too,
# whatever is left are strangers.
people = st.integers(0, 5)
places = st.one_of(st.integers(0, 12), st.integers(0, 10**6))
limits = st.sampled_from([1, 2, 3, 10, 100])
texts = st.one_of(st.sampled_from(["x", "y"]), st.text(st.characters(exclude_categories=["Cs"])))
drafts = st.tuples(
    people, people, texts.filter(lambda text: "\0" not in text), st.sampled_from([None, "k", "K"])
)


@dataclass
class Person:
    """An account that was made at some time, and its inbox."""

    account: Account
    password_hash: str
    deleted: bool = False
    inbox: list[Message] = field(default_factory=list)


@dataclass
class Follower:
    """A client that passes each cursor on; `None` until it has its first one."""

    person: int
    seq: int | None


class StoreMachine(RuleBasedStateMachine):
    """Random accounts, sends, reads, deletions and restarts against a model of them."""

    # What a subclass gives

    def open_store(self) -> IStore:
        """An open store: on a new database first, on the same one after each `close`."""
        raise NotImplementedError

    def run(self, deferred: Deferred[T]) -> T:
        """Wait for a result."""
        raise NotImplementedError

    def pass_time(self, seconds: float) -> None:
        """Let time pass, or run backwards, where the store's clock can be set."""

    def discard(self) -> None:
        """The example is over and its store closed."""

    # The walk

    def __init__(self) -> None:
        super().__init__()
        self.people: dict[int, Person] = {}
        self.names: set[str] = set()
        self.tokens: dict[bytes, int | None] = {}
        self.keys: dict[tuple[int, str], tuple[bytes, Message]] = {}
        self.followers: list[Follower] = []
        self.newest = 0
        self.store: IStore | None = None

    @property
    def s(self) -> Any:
        assert self.store is not None
        return self.store

    def id_of(self, number: int) -> int:
        ids = list(self.people)
        return ids[number] if number < len(ids) else 4711 + number

    def living(self, number: int) -> Person | None:
        person = self.people.get(self.id_of(number))
        return None if person is None or person.deleted else person

    @initialize()
    def open(self) -> None:
        self.store = self.open_store()
        self.epoch = self.store.epoch

    @initialize(count=st.integers(1, 3))
    def begin_with_some(self, count: int) -> None:
        self.beginners = count

    @rule()
    def reopen(self) -> None:
        self.run(self.s.close())
        self.store = self.open_store()
        assert self.store.epoch == self.epoch

    @rule(seconds=st.sampled_from([0.000001, 0.5, 60.0, -60.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(name=st.sampled_from(NAMES))
    def register(self, name: str) -> None:
        if name.lower() in self.names:
            with pytest.raises(UsernameTaken):
                self.run(self.s.add_account(name, "e@example.org", "hash"))
            return
        account = self.run(self.s.add_account(name, f"{name}@example.org", f"hash of {name}"))
        assert account.id > max(self.people, default=0)
        assert account == Account(
            account.id, name, f"{name}@example.org", account.date_joined, None
        )
        self.names.add(name.lower())
        self.people[account.id] = Person(account, f"hash of {name}")

    @rule(number=people)
    def delete(self, number: int) -> None:
        person = self.living(number)
        assert self.run(self.s.delete_account(self.id_of(number))) is (person is not None)
        if person is not None:
            person.deleted = True
            for token, owner in self.tokens.items():
                if owner == person.account.id:
                    self.tokens[token] = None

    @rule(number=people, token=st.binary(min_size=32, max_size=32))
    def issue_token(self, number: int, token: bytes) -> None:
        if token in self.tokens:
            return
        created_at = self.run(self.s.add_token(self.id_of(number), token))
        person = self.living(number)
        assert (created_at is None) is (person is None)
        self.tokens[token] = None if person is None else person.account.id

    @rule(number=people, which=st.integers(0, 20))
    def revoke_token(self, number: int, which: int) -> None:
        token = [*self.tokens, bytes(32)][which % (len(self.tokens) + 1)]
        user_id = self.id_of(number)
        owned = self.tokens.get(token) == user_id
        assert self.run(self.s.delete_token(user_id, token)) is owned
        if owned:
            self.tokens[token] = None

    @rule(seen=st.dictionaries(people, st.integers(1, 50), max_size=4))
    def record_seen(self, seen: dict[int, int]) -> None:
        self.run(self.s.record_seen({self.id_of(number): at for number, at in seen.items()}))
        for number, at in seen.items():
            person = self.living(number)
            if person is not None and (person.account.last_seen_at or 0) < at:
                old = person.account
                person.account = Account(old.id, old.username, old.email, old.date_joined, at)

    @rule(asked=st.lists(drafts, max_size=8))
    def append(self, asked: list[tuple[int, int, str, str | None]]) -> None:
        batch = self.batch(asked)
        for one, outcome in zip(batch, self.run(self.s.append(batch)), strict=True):
            self.expect(one, outcome)

    @rule(asked=st.lists(drafts, max_size=4), again=st.lists(drafts, max_size=4))
    def append_concurrently(
        self,
        asked: list[tuple[int, int, str, str | None]],
        again: list[tuple[int, int, str, str | None]],
    ) -> None:
        # Without keys, so that what is expected does not depend on which call comes first.
        calls = [self.batch([(*each[:3], None) for each in call]) for call in (asked, again)]
        outcomes = [self.s.append(call) for call in calls]
        told = [
            (one, outcome)
            for call, deferred in zip(calls, outcomes, strict=True)
            for one, outcome in zip(call, self.run(deferred), strict=True)
        ]
        told.sort(key=lambda each: each[1].message.seq if isinstance(each[1], Appended) else 0)
        for one, outcome in told:
            self.expect(one, outcome)

    def batch(self, asked: list[tuple[int, int, str, str | None]]) -> list[Draft]:
        """Drafts of those senders that there are."""
        batch = []
        for sender, recipient, text, key in asked:
            if self.living(sender) is not None:
                received_by = self.id_of(recipient)
                fingerprint = hashlib.sha256(f"{received_by}:{text}".encode()).digest()
                idempotency = None if key is None else IdempotencyKey(key, fingerprint)
                batch.append(Draft(self.id_of(sender), received_by, text, idempotency))
        return batch

    def expect(self, draft: Draft, outcome: Appended | DomainError) -> None:
        """Compare one outcome with the model and bring the model up to date."""
        key = draft.idempotency
        if key is not None and (draft.sent_by, key.key) in self.keys:
            fingerprint, first = self.keys[draft.sent_by, key.key]
            if fingerprint == key.fingerprint:
                assert outcome == Appended(first, replayed=True)
            else:
                assert isinstance(outcome, IdempotencyKeyReused)
            return
        recipient = self.people.get(draft.received_by)
        if recipient is None or recipient.deleted:
            assert isinstance(outcome, UserNotFound)
            return
        assert isinstance(outcome, Appended)
        message = outcome.message
        seq = len(recipient.inbox) + 1
        expected = Message(draft.received_by, seq, draft.sent_by, message.sent_at, draft.text)
        assert outcome == Appended(expected, replayed=False)
        if recipient.inbox:
            assert message.sent_at >= recipient.inbox[-1].sent_at
        recipient.inbox.append(message)
        if key is not None:
            self.keys[draft.sent_by, key.key] = (key.fingerprint, message)

    @rule(asked=st.lists(st.tuples(people, places, limits), max_size=5))
    def read_after(self, asked: list[tuple[int, int, int]]) -> None:
        queries = [ReadAfter(self.id_of(number), seq, limit) for number, seq, limit in asked]
        expected = [self.after(*each) for each in asked]
        for query, inbox in zip(queries, expected, strict=True):
            assert self.s.read_cached(query) in (None, inbox)
        assert self.run(self.s.read(queries)) == expected

    def after(self, number: int, seq: int | None, limit: int) -> InboxSlice | None:
        person = self.living(number)
        if person is None:
            return None
        found = () if seq is None else tuple(person.inbox[seq : seq + limit])
        return InboxSlice(len(person.inbox), found)

    @rule(
        number=people,
        page=st.one_of(st.integers(1, 4), st.integers(1, 2**53 - 1)),
        limit=limits,
        at=st.one_of(st.none(), places),
    )
    def read_page(self, number: int, page: int, limit: int, at: int | None) -> None:
        query = ReadPage(self.id_of(number), page, limit, at)
        read_cached = self.s.read_cached(query)
        [found] = self.run(self.s.read([query]))
        person = self.living(number)
        if person is None:
            assert found is read_cached is None
            return
        assert read_cached in (None, found)
        inbox = person.inbox if at is None else person.inbox[:at]
        if at is not None and at > len(person.inbox):
            inbox = []
        newest_first = inbox[::-1][(page - 1) * limit : page * limit]
        assert found == InboxSlice(len(person.inbox), tuple(newest_first))

    @rule(number=people, other=people, limit=limits, at=st.one_of(st.none(), places))
    def converse(self, number: int, other: int, limit: int, at: int | None) -> None:
        user_id, peer = self.id_of(number), self.id_of(other)
        one, two = self.living(number), self.living(other)
        said = [] if one is None else [each for each in one.inbox if each.sent_by == peer]
        if two is not None and peer != user_id:
            said += [each for each in two.inbox if each.sent_by == user_id]
        said.sort(key=ConversationCursor.of, reverse=True)
        before = None if at is None or not said else ConversationCursor.of(said[at % len(said)])
        found = self.run(self.s.conversation(ReadConversation(user_id, peer, limit, before)))
        if one is None:
            assert found is None
            return
        if before is not None:
            said = [each for each in said if ConversationCursor.of(each) < before]
        assert found.messages == tuple(said[:limit])
        assert found.older is (len(said) > limit)
        assert found.peer_exists is (two is not None)

    @rule(number=people, beginning=st.booleans())
    def follow(self, number: int, beginning: bool) -> None:
        if self.living(number) is not None and len(self.followers) < 5:
            self.followers.append(Follower(self.id_of(number), 0 if beginning else None))

    @rule(limit=limits)
    def poll(self, limit: int) -> None:
        queries = [ReadAfter(each.person, each.seq, limit) for each in self.followers]
        for follower, found in zip(self.followers, self.run(self.s.read(queries)), strict=True):
            person = self.people[follower.person]
            if person.deleted:
                assert found is None
            elif follower.seq is None:
                assert found == InboxSlice(len(person.inbox), ())
                follower.seq = len(person.inbox)
            else:
                expected = tuple(person.inbox[follower.seq : follower.seq + limit])
                assert found == InboxSlice(len(person.inbox), expected)
                follower.seq += len(expected)

    @rule()
    def ends(self) -> None:
        asked = [*self.people, 4711]
        assert self.run(self.s.last_seqs(asked)) == {
            user_id: len(person.inbox)
            for user_id, person in self.people.items()
            if not person.deleted
        }

    @rule()
    def owners(self) -> None:
        asked = [*self.tokens, bytes(32)]
        expected = [*self.tokens.values(), None]
        if bytes(32) in self.tokens:
            expected[-1] = self.tokens[bytes(32)]
        assert self.run(self.s.token_owners(asked)) == expected

    @rule(name=st.sampled_from(NAMES), number=people)
    def look_up(self, name: str, number: int) -> None:
        named = [
            person
            for person in self.people.values()
            if not person.deleted and person.account.username.lower() == name.lower()
        ]
        assert self.run(self.s.account_named(name)) == (named[0].account if named else None)
        assert self.run(self.s.credentials(name)) == (
            Credentials(named[0].account.id, named[0].password_hash) if named else None
        )
        person = self.living(number)
        assert self.run(self.s.account(self.id_of(number))) == (person and person.account)

    @invariant()
    def some_are_there(self) -> None:
        # Most rules need somebody: an example should not have to find out.
        if self.store is not None and not self.people:
            for name in ("zoe", "yan", "xia")[: self.beginners]:
                self.register(name)

    def teardown(self) -> None:
        try:
            if self.store is not None:
                note(f"{len(self.people)} people, {len(self.keys)} keys")
                self.run(self.s.check())
                for user_id, person in self.people.items():
                    [found] = self.run(self.s.read([ReadAfter(user_id, 0, 10_000)]))
                    expected = InboxSlice(len(person.inbox), tuple(person.inbox))
                    assert found == (None if person.deleted else expected)
                self.ends()
                self.owners()
        finally:
            if self.store is not None:
                self.run(self.s.close())
            self.discard()
