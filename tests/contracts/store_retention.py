"""Contract of `IAdminStore.remove_old`: messages that are older than they are kept."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from chatd.errors import MessageNotFound
from chatd.model import ALL_CHANGES, Appended, ReadAfter, ReadConversation, Revision
from chatd.model_sync import ListConversations, MessageChange, ReadChanges
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    draft,
    read_inbox,
    send,
    send_many,
)


class RetentionContract:
    """Removal of old messages."""

    @ensureDeferred
    async def test_the_beginning_of_an_inbox_is_removed(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        assert store.removed == {}
        sent = [await send(store, ann, bob, f"{number}") for number in range(6)]
        quiet = await send(store, cat, ann, "as old as the second")
        edge = sent[3].sent_at
        kept = [message for message in sent if message.sent_at >= edge]
        removed = sent[-1].seq - len(kept)
        for expected in (removed, 0):
            deleted = await store.admin.remove_old(edge)
            assert deleted == expected + (expected > 0 and quiet.sent_at < edge)
            assert [m.seq for m in await read_inbox(store, bob)] == [m.seq for m in kept]
            assert store.removed.get(bob, 0) == removed
        assert await store.last_seqs([bob]) == {bob: 6}
        # The numbers go on.
        assert (await send(store, ann, bob, "next")).seq == 7
        state = await store.admin.account_named("bob")
        assert state is not None
        assert state.messages == len(kept) + 1

    @ensureDeferred
    async def test_everything_is_removed_in_steps(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        await send_many(store, ann, bob, 1200)
        await send_many(store, bob, ann, 3)
        last = await send(store, cat, bob, "last")
        assert await store.admin.remove_old(last.sent_at + 1) == 1204
        assert store.removed == {ann: 3, bob: 1201}
        assert await read_inbox(store, bob) == []
        assert await store.conversation(ReadConversation(ann, bob, 10)) is not None
        next_ = await send(store, ann, bob, "next")
        assert next_.seq == 1202
        [slice_] = await store.read([ReadAfter(bob, 1201, 10)])
        assert slice_ is not None
        assert slice_.messages == (next_,)
        found = await store.conversation(ReadConversation(ann, bob, 10))
        assert found is not None
        assert found.messages == (next_,)

    @ensureDeferred
    async def test_where_inboxes_begin_outlives_the_process(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send(store, ann, bob, "1")
        await store.admin.remove_old(sent.sent_at + 1)
        await store.close()
        store = await open_store()
        assert store.removed == {bob: 1}
        assert store.read_cached(ReadAfter(bob, 0, 10)) is None
        await store.delete_account(bob)
        assert store.removed == {}

    @ensureDeferred
    async def test_a_cursor_at_the_last_removed_message_can_be_verified(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        old = await send(store, ann, bob, "1")
        await store.admin.remove_old(old.sent_at + 1)
        for _ in range(2):
            [found] = await store.read([ReadAfter(bob, 1, 10)])
            assert found is not None
            assert found.stamp == old.sent_at
            await send(store, ann, bob, "2")
            await store.close()
            store = await open_store()

    @ensureDeferred
    async def test_what_is_removed_is_not_cached(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send(store, ann, bob, "1")
        await store.read([ReadAfter(bob, 0, 10)])
        await store.admin.remove_old(sent.sent_at + 1)
        assert store.read_cached(ReadAfter(bob, 0, 10), listening=True) is None

    @ensureDeferred
    async def test_removed_messages_cannot_be_revised(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send(store, ann, bob, "1")
        await store.admin.remove_old(sent.sent_at + 1)
        with pytest.raises(MessageNotFound):
            await store.revise(Revision(ann, bob, 1, "edited"))

    @ensureDeferred
    async def test_a_key_is_replayed_after_its_message_was_removed(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        [first] = await store.append([draft(ann, bob, "1", "key")])
        assert isinstance(first, Appended)
        await store.admin.remove_old(first.message.sent_at + 1)
        assert await store.append([draft(ann, bob, "1", "key")]) == [Appended(first.message, True)]
        assert await store.last_seqs([bob]) == {bob: 1}

    @ensureDeferred
    async def test_contacts_outlive_messages(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send(store, ann, bob, "1")
        await store.admin.remove_old(sent.sent_at + 1)
        await store.close()
        strict = await open_store(known_only=True)
        assert (await send(strict, bob, ann, "answer")).seq == 1

    @ensureDeferred
    async def test_conversations_and_changes_lose_what_is_removed(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        for user_id in (ann, bob):
            await store.sync.synchronise(user_id)
        await send(store, ann, bob, "1")
        await send(store, bob, ann, "2")
        await store.revise(Revision(ann, bob, 1, "edited"))
        last = await send(store, cat, ann, "3")
        await store.admin.remove_old(last.sent_at + 1)
        kept = await send(store, bob, ann, "4")
        listed = await store.sync.conversations(ListConversations(ann, 10))
        assert listed is not None
        assert [each.last_message for each in listed.conversations] == [kept]
        assert [each.unread for each in listed.conversations] == [1]
        changes = await store.sync.changes(ReadChanges(bob, ALL_CHANGES, 10))
        assert changes is not None
        assert changes.changes == (MessageChange("sent", kept),)
        assert not changes.more
