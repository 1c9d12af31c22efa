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
    add_accounts,
    add_token,
    digest,
    draft,
    owners,
    read_inbox,
    send,
    send_many,
)
from tests.examples import examples


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
    async def test_ids_start_at_one_and_increase(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await add_accounts(store, "ann", "bob", "cat")
        assert ids[0] == 1
        assert ids == sorted(set(ids))

    @ensureDeferred
    async def test_accounts_are_found_by_name_ignoring_case(self, open_store: OpenStore) -> None:
        store = await open_store()
        account = await store.add_account("Ann", "ann@example.org", "hash")
        for name in ("ann", "ANN", "aNn"):
            assert await store.account_named(name) == account
            assert await store.credentials(name) == Credentials(account.id, "hash")

    @ensureDeferred
    async def test_similar_names_are_not_confused(self, open_store: OpenStore) -> None:
        store = await open_store()
        # `_` and `.` match any character in LIKE patterns and regular expressions.
        a_b, a_dot_b, a_dash_b, axb = await add_accounts(store, "a_b", "a.b", "a-b", "axb")
        for name, user_id in {"a_b": a_b, "a.b": a_dot_b, "a-b": a_dash_b, "axb": axb}.items():
            account = await store.account_named(name)
            assert account is not None
            assert account.id == user_id

    @ensureDeferred
    async def test_names_are_unique_ignoring_case(self, open_store: OpenStore) -> None:
        store = await open_store()
        await add_accounts(store, "ann")
        for name in ("ann", "ANN", "Ann"):
            with pytest.raises(UsernameTaken):
                await store.add_account(name, "other@example.org", "hash")

    @ensureDeferred
    async def test_only_one_of_concurrent_registrations_of_a_name_succeeds(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        results = await gatherResults(
            [
                store.add_account(name, "a@example.org", "hash").addErrback(
                    lambda failure: failure.check(UsernameTaken)
                )
                for name in ("ann", "Ann", "ANN", "aNN")
            ]
        )
        kinds = Counter(type(result) for result in results)
        assert kinds[Account] == 1
        assert results.count(UsernameTaken) == 3

    @ensureDeferred
    async def test_a_rejected_name_changes_nothing(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        with pytest.raises(UsernameTaken):
            await store.add_account("ann", "x@example.org", "other")
        assert await store.credentials("ann") == Credentials(ann, "hash of ann")
        [cat] = await add_accounts(store, "cat")
        assert cat > bob
        assert (await send(store, ann, cat, "hello")).seq == 1

    @ensureDeferred
    async def test_several_accounts_may_have_the_same_email_address(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        address = "Grüße.%s'\"\\@exämple.org"
        for name in ("ann", "bob"):
            account = await store.add_account(name, address, "hash")
            assert (await store.account(account.id)) == account
            assert account.email == address

    @ensureDeferred
    async def test_unknown_accounts_are_not_found(self, open_store: OpenStore) -> None:
        store = await open_store()
        for user_id in (1, 2, MAX_INTEGER):
            assert await store.account(user_id) is None
        assert await store.account_named("ann") is None
        assert await store.credentials("ann") is None

    @ensureDeferred
    async def test_credentials_contain_the_hash_unchanged(self, open_store: OpenStore) -> None:
        store = await open_store()
        encoded = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"
        account = await store.add_account("ann", "a@example.org", encoded)
        assert await store.credentials("ann") == Credentials(account.id, encoded)


class DeletionContract:
    """Deletion of accounts."""

    @ensureDeferred
    async def test_a_deleted_account_is_not_found(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        await store.add_token(ann, digest("token"))
        assert await store.delete_account(ann) is True
        assert await store.account(ann) is None
        assert await store.account_named("ann") is None
        assert await store.credentials("ann") is None
        assert await owners(store, digest("token")) == [None]

    @ensureDeferred
    async def test_an_account_can_be_deleted_only_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        assert await store.delete_account(ann) is True
        assert await store.delete_account(ann) is False
        assert await store.delete_account(MAX_INTEGER) is False

    @ensureDeferred
    async def test_only_one_of_concurrent_deletions_finds_the_account(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        results = await gatherResults([store.delete_account(ann) for _ in range(4)])
        assert sorted(results) == [False, False, False, True]

    @ensureDeferred
    async def test_the_inbox_is_deleted_with_the_account(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await send_many(store, bob, ann, 30)
        await store.delete_account(ann)
        assert await store.read([ReadAfter(ann, 0, 100), ReadPage(ann, 1, 10)]) == [None, None]
        assert await store.last_seqs([ann, bob]) == {bob: 0}
        [result] = await store.append([draft(bob, ann, "too late")])
        assert isinstance(result, UserNotFound)

    @ensureDeferred
    async def test_messages_sent_by_a_deleted_account_remain(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 12)
        await store.delete_account(ann)
        assert await read_inbox(store, bob) == sent

    @ensureDeferred
    async def test_the_name_of_a_deleted_account_remains_taken(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "Ann")
        await store.delete_account(ann)
        for name in ("Ann", "ann", "ANN"):
            with pytest.raises(UsernameTaken):
                await store.add_account(name, "a@example.org", "hash")
        assert await store.account_named("ann") is None

    @ensureDeferred
    async def test_the_id_of_a_deleted_account_is_never_reused(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await add_accounts(store, "ann", "bob")
        for number in range(4):
            await store.delete_account(ids[-1])
            ids += await add_accounts(store, f"next{number}")
        assert ids == sorted(set(ids))
        assert await read_inbox(store, ids[-1]) == []

    @ensureDeferred
    async def test_a_deletion_does_not_affect_other_accounts(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await store.add_token(bob, digest("bob's"))
        mine = await send_many(store, ann, bob, 3)
        await store.delete_account(ann)
        assert await owners(store, digest("bob's")) == [bob]
        assert await store.credentials("bob") == Credentials(bob, "hash of bob")
        assert await read_inbox(store, bob) == mine
        assert (await send(store, bob, bob, "a note")).seq == 4

    @ensureDeferred
    async def test_a_read_during_a_deletion_sees_all_messages_or_none(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, bob, ann, 100)
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
    async def test_the_owner_of_a_token_is_found(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        token = await add_token(store, ann, "1")
        assert token.created_at > 0
        await store.add_token(bob, digest("2"))
        await store.add_token(ann, digest("3"))
        digests = [digest(text) for text in ("3", "unknown", "2", "1", "2")]
        assert await owners(store, *digests) == [ann, None, bob, ann, bob]

    @ensureDeferred
    async def test_many_tokens_are_looked_up_in_one_call(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await add_accounts(store, "ann", "bob", "cat")
        count = examples(100, deep=300)
        expected = [ids[number % 3] for number in range(count)]
        for number, owner in enumerate(expected):
            await store.add_token(owner, digest(f"{number}"))
        digests = [digest(f"{number}") for number in range(1000)]
        assert await owners(store, *digests) == expected + [None] * (1000 - count)

    @ensureDeferred
    async def test_any_32_bytes_are_a_valid_token(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        for token in (bytes(32), b"\xff" * 32, bytes(range(32)), b"'\\%" + bytes(29)):
            assert await owners(store, token) == [None]
            await store.add_token(ann, token)
            assert await owners(store, token) == [ann]

    @ensureDeferred
    async def test_revoking_a_token_does_not_affect_the_others(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        await store.add_token(ann, digest("1"))
        await store.add_token(ann, digest("2"))
        assert await store.delete_token(ann, digest("1")) is True
        assert await store.delete_token(ann, digest("1")) is False
        assert await owners(store, digest("1"), digest("2")) == [None, ann]

    @ensureDeferred
    async def test_a_token_can_be_revoked_only_by_its_owner(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await store.add_token(ann, digest("1"))
        assert await store.delete_token(bob, digest("1")) is False
        assert await store.delete_token(ann, digest("unknown")) is False
        assert await owners(store, digest("1")) == [ann]

    @ensureDeferred
    async def test_tokens_of_missing_accounts_are_not_stored(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        await store.delete_account(ann)
        assert await store.add_token(ann, digest("1")) is None
        assert await store.add_token(MAX_INTEGER, digest("2")) is None
        assert await owners(store, digest("1"), digest("2")) == [None, None]

    @ensureDeferred
    async def test_tokens_added_during_a_deletion_do_not_survive_it(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ids = await add_accounts(store, *(f"user{number}" for number in range(8)))
        calls: list[Deferred[Any]] = []
        for user_id in ids:
            calls += [
                store.add_token(user_id, digest(f"a{user_id}")),
                store.delete_account(user_id),
                store.add_token(user_id, digest(f"b{user_id}")),
            ]
        await gatherResults(calls)
        digests = [digest(f"{which}{user_id}") for user_id in ids for which in "ab"]
        assert await owners(store, *digests) == [None] * 16


class LastSeenContract:
    """The time of an account's last request."""

    @ensureDeferred
    async def test_last_seen_is_recorded_for_many_accounts(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await add_accounts(store, *(f"user{number}" for number in range(20)))
        seen = {user_id: 1_700_000_000_000_000 + user_id for user_id in ids[1:]}
        await store.record_seen(seen, {})
        for user_id in ids:
            account = await store.account(user_id)
            assert account is not None
            assert account.last_seen_at == seen.get(user_id)

    @ensureDeferred
    async def test_last_seen_never_goes_backwards(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        for at, expected in ((1000, 1000), (999, 1000), (1000, 1000), (1001, 1001)):
            await store.record_seen({ann: at}, {})
            account = await store.account(ann)
            assert account is not None
            assert account.last_seen_at == expected

    @ensureDeferred
    async def test_last_seen_is_ignored_for_deleted_and_unknown_accounts(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await store.delete_account(ann)
        await store.record_seen({ann: 1000, bob: 2000, MAX_INTEGER: 3000}, {})
        assert await store.account(ann) is None
        assert await store.account(MAX_INTEGER) is None
        account = await store.account(bob)
        assert account is not None
        assert account.last_seen_at == 2000
