"""Contract of `IStore`: accounts, their deletion, tokens and last-seen times."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from chatd.errors import UsernameTaken, UserNotFound
from chatd.model import (
    MAX_INTEGER,
    Account,
    Credentials,
    InboxSlice,
    ReadAfter,
    ReadPage,
)
from tests.contracts.helpers import (
    OpenStore,
    digest,
    draft,
    fill,
    inbox,
    people,
    send,
)


class AccountsContract:
    """Registration and look-up."""

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


class DeletionContract:
    """Deletion of accounts."""

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


class TokensContract:
    """Bearer tokens."""

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


class LastSeenContract:
    """The time of an account's last request."""

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
