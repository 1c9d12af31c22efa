"""Contract of `IStore`: a database that is set back to an earlier state is noticed by cursors.

This is what a file put back from a copy, a restored snapshot of a machine, point-in-time recovery
and the promotion of a standby that lagged have in common.
"""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from chatd.errors import CursorEpoch
from chatd.model import (
    Draft,
    InboxSlice,
    ReadAfter,
    ReadPage,
    Revision,
)
from chatd.model_sync import MarkRead, MessageChange, ReadChanges
from tests.contracts.helpers import (
    CopyDatabase,
    OpenStore,
    add_accounts,
    appended,
    read_inbox,
    send,
    send_many,
)
from tests.inbox_slices import expected_slice, stamp_at


def one(slices: list[InboxSlice | None]) -> InboxSlice:
    """The only slice."""
    [found] = slices
    assert found is not None
    return found


class HistoryContract:
    """Needs the fixture `copy_database`: copies a closed database, and puts the copy back."""

    @ensureDeferred
    async def test_other_messages_at_the_same_place_have_other_stamps(
        self, open_store: OpenStore, copy_database: CopyDatabase
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        kept = await send_many(store, ann, bob, 3)
        await store.close()
        put_back = await copy_database()
        store = await open_store()
        epoch = store.epoch
        # Several transactions, and several messages in one.
        lost = [await send(store, ann, bob, f"lost {number}") for number in range(3)]
        lost += await send_many(store, ann, bob, 3)
        await store.close()
        await put_back()
        store = await open_store()
        assert store.epoch == epoch
        end = one(await store.read([ReadAfter(bob, None, 1)]))
        assert (end.last_seq, end.stamp) == (3, kept[2].sent_at)
        assert one(await store.read([ReadAfter(bob, 9, 100)])).stamp is None
        new = await send_many(store, ann, bob, 2)
        new += [await send(store, ann, bob, f"lost {number}") for number in range(8)]
        inbox = [*kept, *new]
        for seq, old in enumerate([*kept, *lost], 1):
            queries: list[ReadAfter | ReadPage] = [
                ReadAfter(bob, seq, 100),
                ReadPage(bob, 1, 10, seq),
                ReadPage(bob, 2, 1, seq),
            ]
            expected = [expected_slice(inbox, query) for query in queries]
            assert await store.read(queries) == expected
            for query, found in zip(queries, expected, strict=True):
                assert store.read_cached(query) in (None, found)
            assert (stamp_at(inbox, seq) == old.sent_at) is (seq <= 3)

    @ensureDeferred
    async def test_revisions_and_restarts_do_not_change_stamps(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 3)
        await store.revise(Revision(ann, bob, 3, "edited"))
        await store.revise(Revision(ann, bob, 2, None))
        for _ in range(2):
            for seq in range(4):
                found = one(await store.read([ReadAfter(bob, seq, 10)]))
                assert found.stamp == stamp_at(sent, seq)
            await store.close()
            store = await open_store()

    @ensureDeferred
    async def test_lost_changes_are_noticed_and_new_ones_are_not_skipped(
        self, open_store: OpenStore, copy_database: CopyDatabase
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await store.sync.synchronise(ann)
        await send_many(store, bob, ann, 5)
        await store.close()
        put_back = await copy_database()
        store = await open_store()
        for number in range(4):
            await send(store, ann, bob, f"lost {number}")
        await store.sync.mark_read(MarkRead(ann, bob, 5))
        await store.sync.synchronise(bob)
        lost = [await store.sync.changes(ReadChanges(each, None, 10)) for each in (ann, bob)]
        await store.close()
        await put_back()
        store = await open_store()
        before = [each.position for each in lost if each is not None]
        with pytest.raises(CursorEpoch):
            await store.sync.changes(ReadChanges(ann, before[0], 10))
        # As many as were lost, and more.
        await store.sync.synchronise(bob)
        sent = [
            appended(each)
            for each in await store.append([Draft(ann, bob, f"{number}") for number in range(9)])
        ]
        found = await store.sync.changes(ReadChanges(ann, before[0], 100))
        assert found is not None
        assert found.changes == tuple(MessageChange("sent", each) for each in sent)
        assert len(await read_inbox(store, bob)) == 9
        state = await store.sync.changes(ReadChanges(bob, None, 10))
        assert state is not None
        assert state.position.number > before[1].number
