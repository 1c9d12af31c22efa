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
    appended,
    digest,
    draft,
    inbox,
    people,
    send,
)


class LifecycleContract:
    """Opening, closing and reopening."""

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
