"""Contract of `IStore`: opening, closing and reopening."""

from __future__ import annotations

import re

import pytest
from pytest_twisted import ensureDeferred
from zope.interface.verify import verifyObject

from chatd.errors import UsernameTaken
from chatd.interfaces import IStore
from chatd.model import (
    Appended,
    Draft,
)
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    appended,
    digest,
    draft,
    owners,
    read_inbox,
    send,
)


class LifecycleContract:
    """Opening, closing and reopening."""

    @ensureDeferred
    async def test_the_interface_is_provided(self, open_store: OpenStore) -> None:
        verifyObject(IStore, await open_store())

    @ensureDeferred
    async def test_the_epoch_has_the_format_that_cursors_require(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        assert re.fullmatch("[a-z2-7]{8,32}", store.epoch)

    @ensureDeferred
    async def test_the_location_is_one_line_of_text(self, open_store: OpenStore) -> None:
        store = await open_store()
        assert store.location
        assert "\n" not in store.location

    @ensureDeferred
    async def test_an_open_store_passes_its_check(self, open_store: OpenStore) -> None:
        store = await open_store()
        assert await store.check() is None  # type: ignore[func-returns-value]

    @ensureDeferred
    async def test_calls_without_items_return_nothing(self, open_store: OpenStore) -> None:
        store = await open_store()
        assert await store.append([]) == []
        assert await store.read([]) == []
        assert await owners(store) == []
        assert await store.last_seqs([]) == {}
        assert await store.record_seen({}, {}) is None  # type: ignore[func-returns-value]

    @ensureDeferred
    async def test_everything_is_kept_when_the_store_is_reopened(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, deleted = await add_accounts(store, "ann", "bob", "deleted")
        await store.add_token(ann, digest("token"))
        await store.record_seen({ann: 1_700_000_000_000_000}, {})
        first = await send(store, ann, bob, "first", "key")
        await store.delete_account(deleted)
        epoch = store.epoch
        accounts = [await store.account(each) for each in (ann, bob, deleted)]
        await store.close()
        store = await open_store()
        assert store.epoch == epoch
        assert [await store.account(each) for each in (ann, bob, deleted)] == accounts
        assert await owners(store, digest("token")) == [ann]
        assert await read_inbox(store, bob) == [first]
        assert await store.append([draft(ann, bob, "first", "key")]) == [Appended(first, True)]
        second = await send(store, ann, bob, "second")
        assert second.seq == 2
        with pytest.raises(UsernameTaken):
            await store.add_account("DELETED", "g@example.org", "hash")
        [new] = await add_accounts(store, "new")
        assert new > deleted

    @ensureDeferred
    async def test_closing_waits_for_running_calls(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sends = [store.append([Draft(ann, bob, f"{number}")]) for number in range(20)]
        await store.close()
        results = [await each for each in sends]
        store = await open_store()
        acknowledged = sorted(appended(result).seq for [result] in results)
        assert acknowledged == list(range(1, 21))
        assert len(await read_inbox(store, bob)) == 20

    @ensureDeferred
    async def test_closing_waits_for_a_running_deletion(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        deletion = store.delete_account(ann)
        await store.close()
        assert await deletion is True
        store = await open_store()
        assert await store.account(ann) is None
