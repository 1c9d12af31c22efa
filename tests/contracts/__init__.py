"""The contract of `chatd.interfaces`: one suite for every `IStore`, one for every `IBus`.

A test module takes a suite by subclassing it, and offers a fixture:

* `open_store`: `await open_store()` gives an open store. Called again after that one was closed,
  it opens the same database once more. The fixture closes what is open when the test ends.
* `open_bus`: `await open_bus()` gives a bus that is not started. The fixture stops it.

The suites assume neither that results are there at once nor whose clock times come from.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeAlias

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer
from zope.interface.verify import verifyObject

from chatd.errors import IdempotencyKeyReused, UsernameTaken, UserNotFound
from chatd.interfaces import IBus, IStore, ISubscriber
from chatd.model import (
    MAX_INTEGER,
    Account,
    Appended,
    ConversationCursor,
    ConversationSlice,
    Credentials,
    Draft,
    IdempotencyKey,
    InboxSlice,
    Message,
    ReadAfter,
    ReadConversation,
    ReadPage,
)

OpenStore: TypeAlias = Callable[[], Awaitable[IStore]]
OpenBus: TypeAlias = Callable[[], Awaitable[IBus]]

BUS_SECONDS = 10.0
"""How long a wake-up may take before a test gives it up."""


def digest(text: str) -> bytes:
    """Something of the size and the bytes of a token's or a request's SHA-256."""
    return hashlib.sha256(text.encode("utf-8")).digest()


async def people(store: IStore, *names: str) -> list[int]:
    """The ids of new accounts of these names."""
    return [
        (await store.add_account(name, f"{name}@example.org", f"hash of {name}")).id
        for name in names
    ]


def draft(sent_by: int, received_by: int, text: str, key: str | None = None) -> Draft:
    """A draft; the fingerprint of a key is of recipient and text, as the domain makes it."""
    if key is None:
        return Draft(sent_by, received_by, text)
    return Draft(sent_by, received_by, text, IdempotencyKey(key, digest(f"{received_by}:{text}")))


def appended(outcome: object) -> Message:
    """The message of an outcome that must be a first append."""
    assert isinstance(outcome, Appended)
    assert outcome.replayed is False
    return outcome.message


async def send(
    store: IStore, sent_by: int, received_by: int, text: str, key: str | None = None
) -> Message:
    """Append one message."""
    [outcome] = await store.append([draft(sent_by, received_by, text, key)])
    return appended(outcome)


async def fill(store: IStore, sent_by: int, received_by: int, count: int) -> list[Message]:
    """Append numbered messages in one transaction."""
    drafts = [Draft(sent_by, received_by, f"message {number}") for number in range(1, count + 1)]
    return [appended(outcome) for outcome in await store.append(drafts)]


async def inbox(store: IStore, user_id: int) -> list[Message]:
    """A whole inbox, oldest first, proved dense."""
    messages: list[Message] = []
    while True:
        [found] = await store.read([ReadAfter(user_id, len(messages), 100)])
        assert found is not None
        assert [message.seq for message in found.messages] == list(
            range(len(messages) + 1, min(len(messages) + 100, found.last_seq) + 1)
        )
        messages += found.messages
        if len(messages) == found.last_seq:
            assert all(message.received_by == user_id for message in messages)
            return messages


async def talk(store: IStore, user_id: int, peer: int, limit: int = 100) -> list[Message]:
    """A whole conversation, newest first, read `limit` messages at a time."""
    messages: list[Message] = []
    before = None
    while True:
        found = await store.conversation(ReadConversation(user_id, peer, limit, before))
        assert found is not None
        assert len(found.messages) == limit or not found.older
        messages += found.messages
        if not found.older:
            return messages
        before = ConversationCursor.of(messages[-1])


def conversation_of(messages: Collection[Message]) -> list[Message]:
    """Messages in the order of a conversation by its definition."""
    return sorted(messages, key=lambda each: (each.sent_at, each.received_by, each.seq))[::-1]


def page_of(messages: list[Message], page: int, limit: int) -> tuple[Message, ...]:
    """What a page of an inbox holds by its definition: newest first."""
    return tuple(messages[::-1][(page - 1) * limit : page * limit])


TEXTS = {
    "one character": "x",
    "16 KiB of ASCII": "a" * 16384,
    "16 KiB of astral characters": "\U0001f600" * 4096,
    "the last characters of the planes": "\uffff \ufffe \U0010ffff \U0001fffe",
    "right to left with marks": "\u202e\u05e9\u05dc\u05d5\u05dd\u202c \u200f \u0645\u0631\u062d",
    "composed and decomposed, not normalised": "\u00e9 e\u0301 \ufb01 \u212b \uac00 \u1100\u1161",
    "a byte order mark and joiners": "\ufeffa\u200d\u200b\u2060b\ufeff",
    "every C0 and C1 control but NUL": "".join(map(chr, [*range(1, 32), *range(127, 160)])),
    "spaces around": "  \t x \r\n ",
    "line endings of all kinds": "a\nb\r\nc\rd\u2028e\u2029f\x0bg",
    "what SQL and formats would take": "'; DROP TABLE message; -- %s %(a)s {} \\ \\x41"
    " \\' \" $1 :x ?1 {a,b} NULL (1,2) \\N $$",
    "surrogates' neighbours": "\ud7ff\ue000",
    "a number": "007",
}


class StoreContract:
    """What every `IStore` does."""

    # What it is

    @ensureDeferred
    async def test_it_provides_the_interface(self, open_store: OpenStore) -> None:
        verifyObject(IStore, await open_store())

    @ensureDeferred
    async def test_the_epoch_fits_into_cursors(self, open_store: OpenStore) -> None:
        store = await open_store()
        assert re.fullmatch("[a-z2-7]{8,32}", store.epoch)

    @ensureDeferred
    async def test_the_location_is_text_of_one_line(self, open_store: OpenStore) -> None:
        store = await open_store()
        assert store.location
        assert "\n" not in store.location

    @ensureDeferred
    async def test_an_open_store_can_answer(self, open_store: OpenStore) -> None:
        store = await open_store()
        assert await store.check() is None  # type: ignore[func-returns-value]

    @ensureDeferred
    async def test_nothing_asked_is_nothing_answered(self, open_store: OpenStore) -> None:
        store = await open_store()
        assert await store.append([]) == []
        assert await store.read([]) == []
        assert await store.token_owners([]) == []
        assert await store.last_seqs([]) == {}
        assert await store.record_seen({}) is None  # type: ignore[func-returns-value]

    @ensureDeferred
    async def test_reopening_keeps_everything(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, gone = await people(store, "ann", "bob", "gone")
        await store.add_token(ann, digest("token"))
        await store.record_seen({ann: 1_700_000_000_000_000})
        first = await send(store, ann, bob, "first", "key")
        await store.delete_account(gone)
        epoch = store.epoch
        accounts = [await store.account(each) for each in (ann, bob, gone)]
        await store.close()
        store = await open_store()
        assert store.epoch == epoch
        assert [await store.account(each) for each in (ann, bob, gone)] == accounts
        assert await store.token_owners([digest("token")]) == [ann]
        assert await inbox(store, bob) == [first]
        assert await store.append([draft(ann, bob, "first", "key")]) == [Appended(first, True)]
        second = await send(store, ann, bob, "second")
        assert second.seq == 2
        with pytest.raises(UsernameTaken):
            await store.add_account("GONE", "g@example.org", "hash")
        [new] = await people(store, "new")
        assert new > gone

    @ensureDeferred
    async def test_closing_finishes_what_is_under_way(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        sends = [store.append([Draft(ann, bob, f"{number}")]) for number in range(20)]
        await store.close()
        outcomes = [await each for each in sends]
        store = await open_store()
        acknowledged = sorted(appended(outcome).seq for [outcome] in outcomes)
        assert acknowledged == list(range(1, 21))
        assert len(await inbox(store, bob)) == 20

    @ensureDeferred
    async def test_a_deletion_under_way_does_not_disturb_closing(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        deletion = store.delete_account(ann)
        await store.close()
        assert await deletion is True
        store = await open_store()
        assert await store.account(ann) is None

    # Accounts

    @ensureDeferred
    async def test_a_new_account_is_found_by_id_and_by_name(self, open_store: OpenStore) -> None:
        store = await open_store()
        account = await store.add_account("Ann.B_c-1", "ann@example.org", "hash")
        assert account == Account(
            account.id, "Ann.B_c-1", "ann@example.org", account.date_joined, None
        )
        assert account.date_joined > 0
        assert await store.account(account.id) == account
        assert await store.account_named("Ann.B_c-1") == account

    @ensureDeferred
    async def test_ids_begin_at_one_and_rise(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await people(store, "ann", "bob", "cat")
        assert ids[0] == 1
        assert ids == sorted(set(ids))

    @ensureDeferred
    async def test_names_are_found_whatever_their_case(self, open_store: OpenStore) -> None:
        store = await open_store()
        account = await store.add_account("Ann", "ann@example.org", "hash")
        for name in ("ann", "ANN", "aNn"):
            assert await store.account_named(name) == account
            assert await store.credentials(name) == Credentials(account.id, "hash")

    @ensureDeferred
    async def test_names_that_differ_are_not_mixed_up(self, open_store: OpenStore) -> None:
        store = await open_store()
        # In LIKE patterns `_` and `.` would stand for any character.
        a_b, a_dot_b, a_dash_b, axb = await people(store, "a_b", "a.b", "a-b", "axb")
        for name, user_id in {"a_b": a_b, "a.b": a_dot_b, "a-b": a_dash_b, "axb": axb}.items():
            account = await store.account_named(name)
            assert account is not None
            assert account.id == user_id

    @ensureDeferred
    async def test_a_name_is_given_once_whatever_its_case(self, open_store: OpenStore) -> None:
        store = await open_store()
        await people(store, "ann")
        for name in ("ann", "ANN", "Ann"):
            with pytest.raises(UsernameTaken):
                await store.add_account(name, "other@example.org", "hash")

    @ensureDeferred
    async def test_of_concurrent_registrations_of_a_name_one_succeeds(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        outcomes = await gatherResults(
            [
                store.add_account(name, "a@example.org", "hash").addErrback(
                    lambda failure: failure.check(UsernameTaken)
                )
                for name in ("ann", "Ann", "ANN", "aNN")
            ]
        )
        kinds = Counter(type(outcome) for outcome in outcomes)
        assert kinds[Account] == 1
        assert outcomes.count(UsernameTaken) == 3

    @ensureDeferred
    async def test_a_refused_name_disturbs_nothing(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        with pytest.raises(UsernameTaken):
            await store.add_account("ann", "x@example.org", "other")
        assert await store.credentials("ann") == Credentials(ann, "hash of ann")
        [cat] = await people(store, "cat")
        assert cat > bob
        assert (await send(store, ann, cat, "hello")).seq == 1

    @ensureDeferred
    async def test_an_address_may_belong_to_several_accounts(self, open_store: OpenStore) -> None:
        store = await open_store()
        address = "Grüße.%s'\"\\@exämple.org"
        for name in ("ann", "bob"):
            account = await store.add_account(name, address, "hash")
            assert (await store.account(account.id)) == account
            assert account.email == address

    @ensureDeferred
    async def test_nobody_is_found_where_nobody_is(self, open_store: OpenStore) -> None:
        store = await open_store()
        for user_id in (1, 2, MAX_INTEGER):
            assert await store.account(user_id) is None
        assert await store.account_named("ann") is None
        assert await store.credentials("ann") is None

    @ensureDeferred
    async def test_credentials_hold_the_hash_as_it_was_given(self, open_store: OpenStore) -> None:
        store = await open_store()
        encoded = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"
        account = await store.add_account("ann", "a@example.org", encoded)
        assert await store.credentials("ann") == Credentials(account.id, encoded)

    # Deletion

    @ensureDeferred
    async def test_a_deleted_account_is_gone(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        await store.add_token(ann, digest("token"))
        assert await store.delete_account(ann) is True
        assert await store.account(ann) is None
        assert await store.account_named("ann") is None
        assert await store.credentials("ann") is None
        assert await store.token_owners([digest("token")]) == [None]

    @ensureDeferred
    async def test_an_account_is_deleted_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        assert await store.delete_account(ann) is True
        assert await store.delete_account(ann) is False
        assert await store.delete_account(MAX_INTEGER) is False

    @ensureDeferred
    async def test_of_concurrent_deletions_one_finds_the_account(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        outcomes = await gatherResults([store.delete_account(ann) for _ in range(4)])
        assert sorted(outcomes) == [False, False, False, True]

    @ensureDeferred
    async def test_the_inbox_goes_with_the_account(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        await fill(store, bob, ann, 30)
        await store.delete_account(ann)
        assert await store.read([ReadAfter(ann, 0, 100), ReadPage(ann, 1, 10)]) == [None, None]
        assert await store.last_seqs([ann, bob]) == {bob: 0}
        [outcome] = await store.append([draft(bob, ann, "too late")])
        assert isinstance(outcome, UserNotFound)

    @ensureDeferred
    async def test_what_a_deleted_account_sent_stays(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        sent = await fill(store, ann, bob, 12)
        await store.delete_account(ann)
        assert await inbox(store, bob) == sent

    @ensureDeferred
    async def test_the_name_of_a_deleted_account_stays_taken(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await people(store, "Ann")
        await store.delete_account(ann)
        for name in ("Ann", "ann", "ANN"):
            with pytest.raises(UsernameTaken):
                await store.add_account(name, "a@example.org", "hash")
        assert await store.account_named("ann") is None

    @ensureDeferred
    async def test_the_id_of_a_deleted_account_is_never_given_again(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ids = await people(store, "ann", "bob")
        for number in range(4):
            await store.delete_account(ids[-1])
            ids += await people(store, f"next{number}")
        assert ids == sorted(set(ids))
        assert await inbox(store, ids[-1]) == []

    @ensureDeferred
    async def test_others_stay_as_they_are_when_one_is_deleted(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        await store.add_token(bob, digest("bob's"))
        mine = await fill(store, ann, bob, 3)
        await store.delete_account(ann)
        assert await store.token_owners([digest("bob's")]) == [bob]
        assert await store.credentials("bob") == Credentials(bob, "hash of bob")
        assert await inbox(store, bob) == mine
        assert (await send(store, bob, bob, "a note")).seq == 4

    @ensureDeferred
    async def test_a_read_beside_a_deletion_sees_all_or_nothing(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        sent = await fill(store, bob, ann, 100)
        reads = [store.read([ReadAfter(ann, 0, 100)]) for _ in range(5)]
        deletion = store.delete_account(ann)
        reads += [store.read([ReadAfter(ann, 0, 100)]) for _ in range(20)]
        assert await deletion is True
        for read in reads:
            [found] = await read
            assert found is None or found == InboxSlice(100, tuple(sent))

    # Tokens

    @ensureDeferred
    async def test_a_token_leads_to_its_owner(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        created_at = await store.add_token(ann, digest("1"))
        assert created_at is not None
        assert created_at > 0
        await store.add_token(bob, digest("2"))
        await store.add_token(ann, digest("3"))
        asked = [digest(text) for text in ("3", "unknown", "2", "1", "2")]
        assert await store.token_owners(asked) == [ann, None, bob, ann, bob]

    @ensureDeferred
    async def test_many_tokens_are_looked_up_at_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await people(store, "ann", "bob", "cat")
        owners = [ids[number % 3] for number in range(300)]
        for number, owner in enumerate(owners):
            await store.add_token(owner, digest(f"{number}"))
        digests = [digest(f"{number}") for number in range(1000)]
        assert await store.token_owners(digests) == owners + [None] * 700

    @ensureDeferred
    async def test_a_token_is_any_32_bytes(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        for token in (bytes(32), b"\xff" * 32, bytes(range(32)), b"'\\%" + bytes(29)):
            assert await store.token_owners([token]) == [None]
            await store.add_token(ann, token)
            assert await store.token_owners([token]) == [ann]

    @ensureDeferred
    async def test_a_revoked_token_is_unknown_and_the_others_stay(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        await store.add_token(ann, digest("1"))
        await store.add_token(ann, digest("2"))
        assert await store.delete_token(ann, digest("1")) is True
        assert await store.delete_token(ann, digest("1")) is False
        assert await store.token_owners([digest("1"), digest("2")]) == [None, ann]

    @ensureDeferred
    async def test_only_its_owner_revokes_a_token(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        await store.add_token(ann, digest("1"))
        assert await store.delete_token(bob, digest("1")) is False
        assert await store.delete_token(ann, digest("unknown")) is False
        assert await store.token_owners([digest("1")]) == [ann]

    @ensureDeferred
    async def test_there_is_no_token_without_an_account(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        await store.delete_account(ann)
        assert await store.add_token(ann, digest("1")) is None
        assert await store.add_token(MAX_INTEGER, digest("2")) is None
        assert await store.token_owners([digest("1"), digest("2")]) == [None, None]

    @ensureDeferred
    async def test_a_token_made_beside_a_deletion_does_not_outlive_it(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ids = await people(store, *(f"user{number}" for number in range(8)))
        asked: list[Deferred[Any]] = []
        for user_id in ids:
            asked += [
                store.add_token(user_id, digest(f"a{user_id}")),
                store.delete_account(user_id),
                store.add_token(user_id, digest(f"b{user_id}")),
            ]
        await gatherResults(asked)
        digests = [digest(f"{which}{user_id}") for user_id in ids for which in "ab"]
        assert await store.token_owners(digests) == [None] * 16

    # Last seen

    @ensureDeferred
    async def test_last_seen_is_recorded_for_many(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await people(store, *(f"user{number}" for number in range(20)))
        seen = {user_id: 1_700_000_000_000_000 + user_id for user_id in ids[1:]}
        await store.record_seen(seen)
        for user_id in ids:
            account = await store.account(user_id)
            assert account is not None
            assert account.last_seen_at == seen.get(user_id)

    @ensureDeferred
    async def test_last_seen_never_goes_backwards(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        for at, expected in ((1000, 1000), (999, 1000), (1000, 1000), (1001, 1001)):
            await store.record_seen({ann: at})
            account = await store.account(ann)
            assert account is not None
            assert account.last_seen_at == expected

    @ensureDeferred
    async def test_nobody_deleted_or_unknown_is_seen(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        await store.delete_account(ann)
        await store.record_seen({ann: 1000, bob: 2000, MAX_INTEGER: 3000})
        assert await store.account(ann) is None
        assert await store.account(MAX_INTEGER) is None
        account = await store.account(bob)
        assert account is not None
        assert account.last_seen_at == 2000

    # Appending

    @ensureDeferred
    async def test_an_appended_message_is_what_was_drafted(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        message = await send(store, ann, bob, "hello")
        assert message == Message(bob, 1, ann, message.sent_at, "hello")
        assert message.sent_at > 0
        assert await inbox(store, bob) == [message]
        assert await inbox(store, ann) == []

    @ensureDeferred
    async def test_one_may_write_to_oneself(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        message = await send(store, ann, ann, "a note")
        assert await inbox(store, ann) == [message]

    @ensureDeferred
    async def test_each_inbox_counts_for_itself(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        recipients = [bob, cat, bob, bob, ann, cat, bob]
        messages = [await send(store, ann, each, "x") for each in recipients]
        assert [message.seq for message in messages] == [1, 1, 2, 3, 1, 2, 4]

    @ensureDeferred
    async def test_drafts_of_one_call_are_numbered_in_their_order(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        for base in (0, 5):
            drafts = [Draft(cat, each, f"{number}") for number, each in enumerate([bob, ann] * 5)]
            messages = [appended(outcome) for outcome in await store.append(drafts)]
            assert [message.text for message in messages] == [each.text for each in drafts]
            for each in (ann, bob):
                seqs = [message.seq for message in messages if message.received_by == each]
                assert seqs == list(range(base + 1, base + 6))

    @ensureDeferred
    async def test_times_never_go_backwards_in_an_inbox(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        for _ in range(20):
            await send(store, ann, bob, "x")
        times = [message.sent_at for message in await inbox(store, bob)]
        assert times == sorted(times)

    @ensureDeferred
    async def test_a_missing_recipient_fails_alone(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, gone = await people(store, "ann", "bob", "gone")
        await store.delete_account(gone)
        recipients = [MAX_INTEGER, bob, gone, bob, 4711, ann, gone]
        outcomes = await store.append([Draft(ann, each, "x") for each in recipients])
        for recipient, outcome in zip(recipients, outcomes, strict=True):
            if recipient in (ann, bob):
                assert appended(outcome).received_by == recipient
            else:
                assert isinstance(outcome, UserNotFound)
        assert [message.seq for message in await inbox(store, bob)] == [1, 2]

    @ensureDeferred
    async def test_a_call_in_which_every_draft_fails_succeeds(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        outcomes = await store.append([Draft(ann, 4711, "x"), Draft(ann, 4712, "x")])
        assert [type(outcome) for outcome in outcomes] == [UserNotFound, UserNotFound]

    @ensureDeferred
    async def test_a_batch_of_600_over_50_inboxes_is_dense_everywhere(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ids = await people(store, *(f"user{number}" for number in range(50)))
        chance = random.Random(1)
        targets = [*ids, 4711, MAX_INTEGER]
        for start in (0, 600):
            drafts = [
                draft(
                    chance.choice(ids),
                    chance.choice(targets),
                    f"{start + number}",
                    f"key {start + number}" if number % 3 == 0 else None,
                )
                for number in range(600)
            ]
            outcomes = await store.append(drafts)
            assert len(outcomes) == 600
            for asked, outcome in zip(drafts, outcomes, strict=True):
                if asked.received_by in ids:
                    message = appended(outcome)
                    assert (message.sent_by, message.received_by, message.text) == (
                        asked.sent_by,
                        asked.received_by,
                        asked.text,
                    )
                else:
                    assert isinstance(outcome, UserNotFound)
        for each in ids:
            texts = [int(message.text) for message in await inbox(store, each)]
            assert texts == sorted(texts)

    @ensureDeferred
    async def test_concurrent_calls_leave_inboxes_dense(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        calls = []
        for number in range(30):
            # Both orders of recipients: locks taken in the order of drafts would deadlock.
            order = (ann, bob, ann) if number % 2 else (bob, ann, ann)
            calls.append(
                store.append([Draft(cat, each, f"{number}.{i}") for i, each in enumerate(order)])
            )
        outcomes = await gatherResults(calls)
        for each in (ann, bob):
            found = await inbox(store, each)
            assert len(found) == (60 if each == ann else 30)
            told = [appended(outcome) for call in outcomes for outcome in call]
            assert (
                sorted(
                    (message for message in told if message.received_by == each),
                    key=lambda message: message.seq,
                )
                == found
            )
        for call in outcomes:
            mine = [appended(outcome).seq for outcome in call]
            seqs = [s for s, o in zip(mine, call, strict=True) if appended(o).received_by == ann]
            assert seqs[1] == seqs[0] + 1

    @ensureDeferred
    async def test_appending_beside_a_deletion_is_refused_or_goes_with_the_inbox(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        calls = [store.append([Draft(ann, bob, "x"), Draft(ann, ann, "x")]) for _ in range(5)]
        deletion = store.delete_account(bob)
        calls += [store.append([Draft(ann, bob, "x"), Draft(ann, ann, "x")]) for _ in range(5)]
        assert await deletion is True
        for call in calls:
            theirs, mine = await call
            appended(mine)
            assert isinstance(theirs, Appended | UserNotFound)
        assert len(await inbox(store, ann)) == 10
        assert await store.read([ReadAfter(bob, 0, 100)]) == [None]

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    @ensureDeferred
    async def test_text_comes_back_as_it_was_given(self, open_store: OpenStore, text: str) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        message = await send(store, ann, bob, text, "key")
        assert message.text == text
        [after, page] = await store.read([ReadAfter(bob, 0, 1), ReadPage(bob, 1, 1)])
        assert after == page == InboxSlice(1, (message,))
        assert await store.append([draft(ann, bob, text, "key")]) == [Appended(message, True)]

    @ensureDeferred
    async def test_texts_of_one_batch_are_not_mixed_up(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        await store.append([Draft(ann, bob, text) for text in TEXTS.values()])
        assert [message.text for message in await inbox(store, bob)] == list(TEXTS.values())

    # Idempotency

    @ensureDeferred
    async def test_a_replay_gives_the_first_message(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        await send(store, ann, bob, "between")
        for _ in range(3):
            assert await store.append([draft(ann, bob, "once", "key")]) == [Appended(first, True)]

    @ensureDeferred
    async def test_a_replay_moves_nothing(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        for _ in range(3):
            await store.append([draft(ann, bob, "once", "key")])
        assert await store.last_seqs([bob]) == {bob: 1}
        second = await send(store, ann, bob, "twice")
        assert await inbox(store, bob) == [first, second]

    @ensureDeferred
    async def test_replays_and_new_messages_share_a_call(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        outcomes = await store.append(
            [
                draft(ann, bob, "2"),
                draft(ann, bob, "once", "key"),
                draft(ann, bob, "3", "another"),
                draft(ann, bob, "other text", "key"),
                draft(ann, bob, "4"),
            ]
        )
        assert [appended(outcomes[number]).seq for number in (0, 2, 4)] == [2, 3, 4]
        assert outcomes[1] == Appended(first, True)
        assert isinstance(outcomes[3], IdempotencyKeyReused)
        assert [message.text for message in await inbox(store, bob)] == ["once", "2", "3", "4"]

    @ensureDeferred
    async def test_a_key_stands_for_one_request(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        first = await send(store, ann, bob, "once", "key")
        for other in (draft(ann, bob, "other", "key"), draft(ann, cat, "once", "key")):
            [outcome] = await store.append([other])
            assert isinstance(outcome, IdempotencyKeyReused)
        assert await store.append([draft(ann, bob, "once", "key")]) == [Appended(first, True)]
        assert await inbox(store, cat) == []

    @ensureDeferred
    async def test_one_key_twice_in_a_call_appends_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        outcomes = await store.append(
            [
                draft(ann, bob, "once", "key"),
                draft(ann, bob, "once", "key"),
                draft(ann, bob, "other", "key"),
                draft(ann, bob, "next"),
                draft(ann, bob, "once", "key"),
            ]
        )
        first = appended(outcomes[0])
        assert outcomes[1] == outcomes[4] == Appended(first, True)
        assert isinstance(outcomes[2], IdempotencyKeyReused)
        assert appended(outcomes[3]).seq == 2
        assert [message.text for message in await inbox(store, bob)] == ["once", "next"]

    @ensureDeferred
    async def test_one_key_in_concurrent_calls_appends_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        calls = await gatherResults(
            [
                store.append([draft(ann, bob, "once", "key"), draft(ann, bob, f"{number}")])
                for number in range(10)
            ]
        )
        keyed = [outcome for [outcome, _] in calls if isinstance(outcome, Appended)]
        assert sorted(outcome.replayed for outcome in keyed) == [False] + [True] * 9
        assert len({outcome.message.seq for outcome in keyed}) == 1
        assert len(await inbox(store, bob)) == 11

    @ensureDeferred
    async def test_different_requests_with_one_key_in_concurrent_calls_append_one(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        calls = await gatherResults(
            [store.append([draft(ann, bob, f"{number}", "key")]) for number in range(10)]
        )
        kinds = Counter(type(outcome) for [outcome] in calls)
        assert kinds == {Appended: 1, IdempotencyKeyReused: 9}
        assert len(await inbox(store, bob)) == 1

    @ensureDeferred
    async def test_keys_are_per_sender(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        outcomes = await store.append(
            [draft(ann, cat, "same", "key"), draft(bob, cat, "same", "key")]
        )
        assert [appended(outcome).sent_by for outcome in outcomes] == [ann, bob]
        replays = await store.append(
            [draft(bob, cat, "same", "key"), draft(ann, cat, "same", "key")]
        )
        assert replays == [Appended(appended(each), True) for each in reversed(outcomes)]

    @ensureDeferred
    async def test_keys_differ_by_case_and_by_every_character(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        visible = "".join(map(chr, range(0x21, 0x7F)))
        keys = ["key", "Key", "KEY", "key_", "key%", visible, (visible * 3)[:255], "x" * 255]
        outcomes = await store.append([draft(ann, bob, "x", key) for key in keys])
        assert [appended(outcome).seq for outcome in outcomes] == list(range(1, len(keys) + 1))
        replays = await store.append([draft(ann, bob, "x", key) for key in keys])
        assert replays == [Appended(appended(outcome), True) for outcome in outcomes]

    @ensureDeferred
    async def test_a_refused_send_uses_no_key_up(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        [outcome] = await store.append([draft(ann, 4711, "x", "key")])
        assert isinstance(outcome, UserNotFound)
        await send(store, ann, bob, "y", "key")
        outcomes = await store.append([draft(ann, 4711, "x", "two"), draft(ann, bob, "y", "two")])
        assert isinstance(outcomes[0], UserNotFound)
        assert appended(outcomes[1]).seq == 2

    @ensureDeferred
    async def test_a_key_outlives_its_recipient(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        await store.delete_account(bob)
        assert await store.append([draft(ann, bob, "once", "key")]) == [Appended(first, True)]
        [outcome] = await store.append([draft(ann, bob, "other", "key")])
        assert isinstance(outcome, IdempotencyKeyReused)
        [outcome] = await store.append([draft(ann, bob, "once", "new key")])
        assert isinstance(outcome, UserNotFound)
        assert await store.read([ReadAfter(bob, 0, 10)]) == [None]

    # Reading

    @ensureDeferred
    async def test_reading_after_a_seq_gives_what_follows_oldest_first(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        sent = await fill(store, ann, bob, 12)
        for seq in range(12):
            for limit in (1, 3, 11, 12, 13, 100):
                [found] = await store.read([ReadAfter(bob, seq, limit)])
                assert found == InboxSlice(12, tuple(sent[seq : seq + limit]))

    @ensureDeferred
    async def test_there_is_nothing_after_the_end(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        await fill(store, ann, bob, 3)
        for seq in (3, 4, 100, MAX_INTEGER, None):
            assert await store.read([ReadAfter(bob, seq, 100)]) == [InboxSlice(3, ())]

    @ensureDeferred
    async def test_an_empty_inbox_is_there(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        queries: list[ReadAfter | ReadPage] = [
            ReadAfter(ann, 0, 1),
            ReadAfter(ann, None, 100),
            ReadAfter(ann, 5, 100),
            ReadPage(ann, 1, 10),
            ReadPage(ann, 2, 10),
            ReadPage(ann, 1, 10, 0),
            ReadPage(ann, 1, 10, 1),
        ]
        assert await store.read(queries) == [InboxSlice(0, ())] * len(queries)

    @ensureDeferred
    async def test_pages_are_newest_first_at_any_depth(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        sent = await fill(store, ann, bob, 253)
        for limit in (1, 7, 10, 100):
            deepest = -(-253 // limit)
            pages = {1, 2, 3, deepest // 2, deepest - 1, deepest, deepest + 1, MAX_INTEGER}
            queries = [ReadPage(bob, page, limit) for page in sorted(pages - {0})]
            found = await store.read(queries)
            assert found == [InboxSlice(253, page_of(sent, query.page, limit)) for query in queries]

    @ensureDeferred
    async def test_a_pinned_page_stays_as_messages_arrive(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        sent = await fill(store, ann, bob, 25)
        for arrived in range(25, 28):
            for page in (1, 2, 3, 4):
                for at in (0, 1, 9, 10, 11, 24, 25):
                    [found] = await store.read([ReadPage(bob, page, 10, at)])
                    assert found == InboxSlice(arrived, page_of(sent[:at], page, 10))
            await send(store, ann, bob, "more")

    @ensureDeferred
    async def test_a_page_pinned_beyond_the_end_is_empty(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        await fill(store, ann, bob, 25)
        for at in (26, 30, 35, 1000, MAX_INTEGER):
            for page in (1, 2, 3, 98, MAX_INTEGER):
                assert await store.read([ReadPage(bob, page, 10, at)]) == [InboxSlice(25, ())]

    @ensureDeferred
    async def test_one_read_answers_many_users_in_order(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await people(store, *(f"user{number}" for number in range(60)))
        sent = {each: await fill(store, ids[0], each, index % 7) for index, each in enumerate(ids)}
        await store.delete_account(ids[30])
        queries: list[ReadAfter | ReadPage] = []
        expected: list[InboxSlice | None] = []
        for index, each in enumerate([*reversed(ids), 4711, *ids]):
            messages = sent.get(each, [])
            gone = each in (ids[30], 4711)
            if index % 2:
                queries.append(ReadAfter(each, 2, 3))
                expected.append(None if gone else InboxSlice(len(messages), tuple(messages[2:5])))
            else:
                queries.append(ReadPage(each, 2, 3))
                expected.append(
                    None if gone else InboxSlice(len(messages), page_of(messages, 2, 3))
                )
        assert await store.read(queries) == expected

    @ensureDeferred
    async def test_the_same_question_may_be_asked_twice_at_once(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        sent = await fill(store, ann, bob, 3)
        queries: list[ReadAfter | ReadPage] = [ReadAfter(bob, 1, 5)] * 3
        found = await store.read([*queries, *[ReadPage(bob, 1, 5)] * 3])
        assert (
            found
            == [InboxSlice(3, tuple(sent[1:]))] * 3 + [InboxSlice(3, tuple(reversed(sent)))] * 3
        )

    @ensureDeferred
    async def test_many_large_answers_come_whole(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        await store.append([Draft(ann, bob, f"{number:03}" * 1000) for number in range(300)])
        found = await store.read([ReadAfter(bob, start, 100) for start in range(0, 300, 20)])
        for start, each in zip(range(0, 300, 20), found, strict=True):
            assert each is not None
            assert [message.text[:3] for message in each.messages] == [
                f"{number:03}" for number in range(start, min(start + 100, 300))
            ]

    @ensureDeferred
    async def test_what_was_acknowledged_is_read(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        for number in range(1, 31):
            message = await send(store, ann, bob, f"{number}")
            [found] = await store.read([ReadAfter(bob, number - 1, 10)])
            assert found == InboxSlice(number, (message,))
            assert await store.last_seqs([bob]) == {bob: number}

    @ensureDeferred
    async def test_a_slice_fits_its_end_while_messages_arrive(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        writes, reads = [], []
        for number in range(40):
            # One transaction: nobody may see it in one inbox and not in the others.
            writes.append(store.append([Draft(ann, each, f"{number}") for each in (ann, bob, cat)]))
            reads.append(
                store.read(
                    [
                        ReadAfter(ann, 0, 100),
                        ReadPage(bob, 1, 100),
                        ReadAfter(cat, None, 1),
                        ReadAfter(bob, 5, 100),
                    ]
                )
            )
        await gatherResults(writes)
        for read in reads:
            after, page, end, later = await read
            assert after is not None
            assert page is not None
            assert end is not None
            assert later is not None
            last = after.last_seq
            assert last == page.last_seq == end.last_seq == later.last_seq
            assert [message.seq for message in after.messages] == list(range(1, last + 1))
            assert [message.seq for message in page.messages] == list(range(last, 0, -1))
            assert [message.seq for message in later.messages] == list(range(6, last + 1))
            assert end.messages == ()

    @ensureDeferred
    async def test_what_was_read_once_stays(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        known: list[Message] = []
        writes = [store.append([Draft(ann, bob, f"{number}")]) for number in range(50)]
        while len(known) < 50:
            [found] = await store.read([ReadAfter(bob, 0, 100)])
            assert found is not None
            # Order of seq is order of commit: nothing becomes visible behind what was seen.
            assert list(found.messages[: len(known)]) == known
            known = list(found.messages)
        await gatherResults(writes)

    # Reading without asking

    @ensureDeferred
    async def test_what_is_at_hand_is_what_a_read_would_find(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        await fill(store, ann, bob, 45)
        seqs = (0, 1, 20, 43, 44, 45, 46, 100, None)
        queries: list[ReadAfter | ReadPage] = []
        for user_id in (ann, bob, cat, 4711):
            queries += [ReadAfter(user_id, seq, limit) for seq in seqs for limit in (1, 3, 100)]
            for limit in (1, 10, 100):
                for page in (1, 2, 5, 6, MAX_INTEGER):
                    queries += [ReadPage(user_id, page, limit, at) for at in seqs]
        for _ in range(3):
            for query in queries:
                known = store.read_cached(query)
                [found] = await store.read([query])
                assert known is None or known == found
                assert store.read_cached(query) in (None, found)
            await send(store, ann, bob, "one more")

    @ensureDeferred
    async def test_what_is_at_hand_is_never_behind_what_was_told(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")

        def look(outcomes: list[Any]) -> None:
            for outcome in outcomes:
                seq = appended(outcome).seq
                known = store.read_cached(ReadAfter(bob, seq - 1, 1))
                assert known is None or known.messages == (appended(outcome),)
                assert known is None or known.last_seq >= seq

        def look_again(inboxes: list[InboxSlice | None]) -> None:
            for told in inboxes:
                assert told is not None
                known = store.read_cached(ReadAfter(bob, None, 1))
                assert known is None or known.last_seq >= told.last_seq

        asked: list[Deferred[Any]] = []
        for number in range(60):
            drafts = [Draft(ann, bob, f"{number}.{i}") for i in range(number % 3 + 1)]
            asked.append(store.append(drafts).addCallback(look))
            asked.append(
                store.read([ReadAfter(bob, number, 5), ReadPage(bob, 1, 10)]).addCallback(
                    look_again
                )
            )
            if number % 10 == 0:
                await asked[-1]
        await gatherResults(asked)

    @ensureDeferred
    async def test_nothing_is_at_hand_of_a_deleted_account(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await people(store, *(f"user{number}" for number in range(6)))
        for user_id in ids:
            await fill(store, ids[0], user_id, 3)
            queries: list[ReadAfter | ReadPage]
            queries = [ReadAfter(user_id, 0, 10), ReadPage(user_id, 1, 10)]
            await store.read(queries)
            asked: list[Deferred[Any]] = [store.read(queries) for _ in range(3)]
            asked.append(store.append([Draft(user_id, user_id, "x")]))
            deletion = store.delete_account(user_id)
            asked.append(store.append([Draft(user_id, user_id, "x")]))
            asked += [store.read(queries) for _ in range(3)]
            assert await deletion is True
            assert [store.read_cached(query) for query in queries] == [None, None]
            await gatherResults(asked)
            assert [store.read_cached(query) for query in queries] == [None, None]

    @ensureDeferred
    async def test_what_is_at_hand_after_a_restart_is_right_too(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        sent = await fill(store, ann, bob, 3)
        await store.close()
        store = await open_store()
        query = ReadAfter(bob, 0, 10)
        assert store.read_cached(query) in (None, InboxSlice(3, tuple(sent)))
        sent.append(await send(store, ann, bob, "more"))
        assert store.read_cached(query) in (None, InboxSlice(4, tuple(sent)))

    # The ends of inboxes

    @ensureDeferred
    async def test_ends_of_inboxes_are_told_for_those_that_exist(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, gone = await people(store, "ann", "bob", "gone")
        await fill(store, ann, bob, 4)
        await store.delete_account(gone)
        assert await store.last_seqs([ann, bob, gone, 4711]) == {ann: 0, bob: 4}
        assert await store.last_seqs({bob}) == {bob: 4}

    @ensureDeferred
    async def test_ends_of_a_thousand_inboxes_are_told_at_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        await fill(store, ann, bob, 2)
        assert await store.last_seqs(range(1, 1001)) == {ann: 0, bob: 2}

    # Conversations

    @ensureDeferred
    async def test_a_conversation_has_both_directions_and_nobody_else(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        said = []
        for number in range(20):
            said.append(await send(store, ann, bob, f"{number} from ann"))
            await send(store, ann, cat, "not for bob")
            said.append(await send(store, bob, ann, f"{number} from bob"))
            await send(store, cat, bob, "not from ann")
        for user_id, peer in ((ann, bob), (bob, ann)):
            for limit in (1, 3, 7, 40, 100):
                assert await talk(store, user_id, peer, limit) == conversation_of(said)

    @ensureDeferred
    async def test_messages_of_one_moment_are_each_read_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        said: list[Message] = []
        for _ in range(3):
            # Where a transaction has one time, only recipient and seq tell them apart.
            pairs = [(ann, bob), (bob, ann), (ann, bob), (ann, bob), (bob, ann)]
            drafts = [Draft(*pair, f"{number}") for number, pair in enumerate(pairs)]
            said += [appended(outcome) for outcome in await store.append(drafts)]
        for limit in range(1, 17):
            assert await talk(store, ann, bob, limit) == conversation_of(said)
            assert await talk(store, bob, ann, limit) == conversation_of(said)

    @ensureDeferred
    async def test_arrivals_do_not_move_what_is_older(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        said = await fill(store, ann, bob, 10) + await fill(store, bob, ann, 10)
        newest = await store.conversation(ReadConversation(ann, bob, 5))
        assert newest is not None
        await fill(store, ann, bob, 3)
        await fill(store, bob, ann, 3)
        before = ConversationCursor.of(newest.messages[-1])
        older = await store.conversation(ReadConversation(ann, bob, 100, before))
        assert older is not None
        assert [*newest.messages, *older.messages] == conversation_of(said)
        assert (newest.older, older.older) == (True, False)

    @ensureDeferred
    async def test_what_one_says_to_oneself_is_there_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        said = await fill(store, ann, ann, 5)
        await send(store, bob, ann, "not from ann")
        for limit in (1, 2, 5, 100):
            assert await talk(store, ann, ann, limit) == conversation_of(said)

    @ensureDeferred
    async def test_a_deleted_peer_leaves_what_was_received(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        received = await fill(store, bob, ann, 5)
        await fill(store, ann, bob, 5)
        await store.delete_account(bob)
        found = await store.conversation(ReadConversation(ann, bob, 100))
        assert found is not None
        assert list(found.messages) == conversation_of(received)
        assert not found.peer_exists
        assert await store.conversation(ReadConversation(bob, ann, 100)) is None

    @ensureDeferred
    async def test_an_empty_conversation_tells_whether_the_peer_exists(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, gone = await people(store, "ann", "bob", "gone")
        await store.delete_account(gone)
        for peer, exists in ((bob, True), (gone, False), (4711, False), (MAX_INTEGER, False)):
            found = await store.conversation(ReadConversation(ann, peer, 10))
            assert found == ConversationSlice((), False, exists)
        assert await store.conversation(ReadConversation(4711, ann, 10)) is None

    @ensureDeferred
    async def test_before_the_first_message_there_is_nothing(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        first, *_ = await fill(store, ann, bob, 3)
        for place in (ConversationCursor.of(first), ConversationCursor(1, 1, 1)):
            found = await store.conversation(ReadConversation(ann, bob, 10, place))
            assert found == ConversationSlice((), False, True)
        after_all = ConversationCursor(MAX_INTEGER, MAX_INTEGER, MAX_INTEGER)
        found = await store.conversation(ReadConversation(ann, bob, 10, after_all))
        assert found is not None
        assert len(found.messages) == 3


@implementer(ISubscriber)
class Recorder:
    """A subscriber that notes what it is told; a test waits for what it expects."""

    def __init__(self) -> None:
        self.woken: Counter[int] = Counter()
        self.all = 0
        self.ended: list[tuple[int, bytes | None]] = []
        self._waiting: list[tuple[Callable[[Recorder], object], Deferred[None]]] = []

    def wake(self, user_ids: Collection[int]) -> None:
        self.woken.update(user_ids)
        self._look()

    def wake_all(self) -> None:
        self.all += 1
        self._look()

    def revoked(self, user_id: int, token: bytes | None) -> None:
        self.ended.append((user_id, token))
        self._look()

    def until(self, condition: Callable[[Recorder], object]) -> Deferred[None]:
        """Fires when the condition holds; fails with `TimeoutError` if it never does."""
        from twisted.internet import reactor

        clock = IReactorTime(reactor)
        told: Deferred[None] = Deferred()
        self._waiting.append((condition, told))
        told.addTimeout(BUS_SECONDS, clock)
        self._look()
        return told

    def heard(self, *user_ids: int) -> Deferred[None]:
        """Fires when all of these users were woken."""
        return self.until(lambda told: told.woken.keys() >= set(user_ids))

    def _look(self) -> None:
        for waiting in tuple(self._waiting):
            condition, told = waiting
            if not told.called and condition(self):
                self._waiting.remove(waiting)
                told.callback(None)


class BusContract:
    """What every `IBus` does for the process that publishes; other processes are its own tests."""

    @ensureDeferred
    async def test_it_provides_the_interface(self, open_bus: OpenBus) -> None:
        verifyObject(IBus, await open_bus())

    @ensureDeferred
    async def test_it_has_a_problem_unless_it_is_started(self, open_bus: OpenBus) -> None:
        bus = await open_bus()
        assert bus.problem()
        await bus.start(Recorder())
        assert bus.problem() is None
        await bus.stop()
        assert bus.problem()

    @ensureDeferred
    async def test_what_is_published_after_the_start_wakes(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        bus.publish([7])
        await told.heard(7)
        bus.publish({1, 2, MAX_INTEGER})
        await told.heard(1, 2, 7, MAX_INTEGER)
        assert told.woken.keys() == {1, 2, 7, MAX_INTEGER}

    @ensureDeferred
    async def test_publishing_nothing_wakes_nobody(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        bus.publish([])
        bus.publish([7])
        await told.heard(7)
        assert told.woken.keys() == {7}

    @ensureDeferred
    async def test_thousands_are_woken_at_once(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        everyone = [MAX_INTEGER - number for number in range(5000)]
        before = told.all
        bus.publish(everyone)
        await told.until(lambda told: told.all > before or told.woken.keys() >= set(everyone))

    @ensureDeferred
    async def test_a_burst_loses_nobody(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        for user_id in range(1, 501):
            bus.publish([user_id])
        await told.heard(*range(1, 501))

    @ensureDeferred
    async def test_revocations_are_told_each_and_exactly(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        revocations = [
            (1, digest("1")),
            (1, None),
            (MAX_INTEGER, bytes(32)),
            (2, b"\xff" * 32),
            (2, bytes(range(32))),
            (3, None),
        ]
        for user_id, token in revocations:
            bus.publish_revoked(user_id, token)
        await told.until(lambda told: len(told.ended) >= len(revocations))
        assert set(told.ended) == set(revocations)
        assert not told.woken

    @ensureDeferred
    async def test_a_stopped_bus_tells_nothing(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        bus.publish([1])
        await told.heard(1)
        await bus.stop()
        bus.publish([2])
        bus.publish_revoked(2, None)
        assert 2 not in told.woken
        assert told.ended == []

    @ensureDeferred
    async def test_stopping_what_was_never_started_is_no_fault(self, open_bus: OpenBus) -> None:
        bus = await open_bus()
        await bus.stop()
