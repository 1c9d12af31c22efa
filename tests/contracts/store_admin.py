"""Contract of `IAdminStore`: what administrators do with accounts."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from chatd.model import MAX_INTEGER, AccountState, Credentials, TokenOptions
from tests.contracts.helpers import OpenStore, add_accounts, digest, owners, send


class AdminContract:
    """Administration of accounts."""

    @ensureDeferred
    async def test_accounts_are_listed_by_id(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat, dan = await add_accounts(store, "Ann", "bob", "cat", "dan")
        await send(store, ann, bob, "1")
        await send(store, bob, bob, "2")
        await store.add_token(bob, digest("valid"))
        await store.add_token(bob, digest("expired"), TokenOptions(lifetime=0))
        await store.delete_account(cat)
        states = {}
        for name, messages, tokens in [("ann", 0, 0), ("bob", 2, 1), ("dan", 0, 0)]:
            account = await store.account_named(name)
            assert account is not None
            states[name] = AccountState(account, None, messages, messages, tokens)
        assert await store.admin.accounts(0, 10) == list(states.values())
        assert await store.admin.accounts(ann, 1) == [states["bob"]]
        assert await store.admin.accounts(dan, 10) == []
        assert await store.admin.account_named("ANN") == states["ann"]
        assert await store.admin.account_named("cat") is None
        assert await store.admin.account_named("nobody") is None

    @ensureDeferred
    async def test_a_password_is_set_and_all_tokens_are_revoked(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await store.add_token(ann, digest("1"))
        await store.add_token(ann, digest("2"))
        await store.add_token(bob, digest("bob's"))
        assert await store.admin.set_password(ann, "new") is True
        assert await store.credentials("ann") == Credentials(ann, "new")
        assert await store.credentials("bob") == Credentials(bob, "hash of bob")
        assert await owners(store, *map(digest, ("1", "2", "bob's"))) == [None, None, bob]
        assert await store.admin.set_password(MAX_INTEGER, "new") is False
        await store.delete_account(ann)
        assert await store.admin.set_password(ann, "newer") is False

    @ensureDeferred
    async def test_a_disabled_account_has_no_sessions(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await store.add_token(ann, digest("ann's"))
        await store.add_token(bob, digest("bob's"))
        for _ in range(2):
            assert await store.admin.disable(ann) is True
            assert await store.credentials("ann") == Credentials(ann, "hash of ann", True)
            assert await store.password_hashes([ann, bob]) == {bob: "hash of bob"}
            assert await store.add_token(ann, digest("new")) is None
            assert await store.add_token(ann, digest("new"), verified="hash of ann") is None
            assert await owners(store, *map(digest, ("ann's", "new", "bob's"))) == [None, None, bob]
        assert await store.admin.disable(MAX_INTEGER) is False
        assert await store.admin.enable(MAX_INTEGER) is False

    @ensureDeferred
    async def test_a_disabled_account_is_found_and_receives(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        before = await store.account(ann)
        await store.admin.disable(ann)
        assert await store.account(ann) == await store.account_named("ann") == before
        assert [each.id for each in await store.find_users("a", 10)] == [ann]
        assert (await send(store, bob, ann, "later")).seq == 1
        state = await store.admin.account_named("ann")
        assert state is not None
        assert state.disabled_at is not None
        assert state.messages == 1
        # A second time changes nothing.
        await store.admin.disable(ann)
        assert await store.admin.account_named("ann") == state

    @ensureDeferred
    async def test_an_account_is_enabled_again(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        await store.add_token(ann, digest("old"))
        await store.admin.disable(ann)
        for _ in range(2):
            assert await store.admin.enable(ann) is True
            assert await store.credentials("ann") == Credentials(ann, "hash of ann")
            assert await store.password_hashes([ann]) == {ann: "hash of ann"}
        state = await store.admin.account_named("ann")
        assert state is not None
        assert state.disabled_at is None
        await store.add_token(ann, digest("new"))
        assert await owners(store, digest("old"), digest("new")) == [None, ann]

    @ensureDeferred
    async def test_a_disabled_account_can_be_deleted(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        await store.admin.disable(ann)
        assert await store.delete_account(ann) is True
        assert await store.admin.disable(ann) is False
        assert await store.admin.enable(ann) is False
        assert await store.credentials("ann") is None
