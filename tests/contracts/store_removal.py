"""Contract of `IStore.remove_oldest`: what owners remove from the beginning of their inboxes."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from chatd.errors import InboxFull, InvalidQuery, MessageNotFound
from chatd.interfaces import IStore
from chatd.model import ALL_CHANGES, InboxLimits, Message, ReadAfter, Revision
from chatd.model_sync import ListConversations, MessageChange, ReadChanges
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    draft,
    read_conversation,
    read_inbox,
    send,
    send_many,
)


async def remove(store: IStore, user_id: int, up_to: int) -> int:
    """Remove messages in as many steps as it takes; returns how many those were."""
    steps = 1
    while await store.remove_oldest(user_id, up_to):
        steps += 1
    return steps


async def delete_rows(store: IStore) -> None:
    """Delete the rows of what was removed now, rather than soon."""
    await store.admin.remove_old(0)


async def expect_bytes(store: IStore) -> None:
    """Check that the bytes of Bob's inbox are those of the messages that are there."""
    state = await store.admin.account_named("bob")
    assert state is not None
    inbox = await read_inbox(store, state.account.id)
    assert state.bytes == sum(len(message.text.encode()) for message in inbox)


class RemovalContract:
    """Removal of the oldest messages of an inbox by its owner."""

    @ensureDeferred
    async def test_the_oldest_messages_are_removed(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 5)
        answer = await send(store, bob, ann, "answer")
        await store.read([ReadAfter(bob, 0, 10)])
        assert await store.remove_oldest(bob, 3) is False
        assert store.removed == {bob: 3}
        assert store.read_cached(ReadAfter(bob, 0, 10), listening=True) is None
        await delete_rows(store)
        assert await read_inbox(store, bob) == sent[3:]
        [at_the_edge] = await store.read([ReadAfter(bob, 3, 10)])
        assert at_the_edge is not None
        assert at_the_edge.stamp == sent[2].sent_at
        with pytest.raises(MessageNotFound):
            await store.revise(Revision(ann, bob, 3, "edited"))
        # Of nobody else's inbox.
        assert await read_inbox(store, ann) == [answer]
        for user_id, peer in ((ann, bob), (bob, ann)):
            found = await read_conversation(store, user_id, peer)
            assert found == [answer, sent[4], sent[3]]
        # Numbers go on.
        assert await store.last_seqs([bob]) == {bob: 5}
        assert (await send(store, ann, bob, "next")).seq == 6
        state = await store.admin.account_named("bob")
        assert state is not None
        assert state.messages == 3

    @ensureDeferred
    async def test_a_removal_can_be_repeated(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 5)
        for up_to in (4, 4, 1):
            assert await store.remove_oldest(bob, up_to) is False
            assert store.removed == {bob: 4}
        await delete_rows(store)
        assert await store.remove_oldest(bob, 4) is False
        assert await read_inbox(store, bob) == sent[4:]
        # All of an inbox.
        assert await store.remove_oldest(bob, 5) is False
        assert await read_inbox(store, bob) == []

    @ensureDeferred
    async def test_what_is_not_there_cannot_be_removed(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        sent = await send_many(store, ann, bob, 2)
        for user_id, up_to in ((bob, 3), (bob, 2**53 - 1), (ann, 1)):
            with pytest.raises(InvalidQuery):
                await store.remove_oldest(user_id, up_to)
        assert await read_inbox(store, bob) == sent
        assert store.removed == {}
        await store.delete_account(bob)
        assert await store.remove_oldest(bob, 1) is None
        assert await store.remove_oldest(cat + 1, 1) is None

    @ensureDeferred
    async def test_a_large_removal_takes_several_steps(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await send_many(store, ann, bob, 2105)
        assert await store.remove_oldest(bob, 2100) is True
        assert store.removed == {bob: 1000}
        assert await remove(store, bob, 2100) == 2
        assert store.removed == {bob: 2100}
        await delete_rows(store)
        assert [message.seq for message in await read_inbox(store, bob)] == [*range(2101, 2106)]
        await expect_bytes(store)

    @ensureDeferred
    async def test_removal_makes_room_at_once(self, open_store: OpenStore) -> None:
        store = await open_store(limits=InboxLimits(3))
        ann, bob = await add_accounts(store, "ann", "bob")
        await send_many(store, ann, bob, 3)
        [refused] = await store.append([draft(ann, bob, "fourth")])
        assert isinstance(refused, InboxFull)
        assert await store.remove_oldest(bob, 2) is False
        for seq in (4, 5):
            assert (await send(store, ann, bob, "room")).seq == seq
        [refused] = await store.append([draft(ann, bob, "no more")])
        assert isinstance(refused, InboxFull)
        await expect_bytes(store)

    @ensureDeferred
    async def test_what_was_removed_outlives_the_process(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 3)
        await store.remove_oldest(bob, 2)
        await store.close()
        store = await open_store()
        assert store.removed == {bob: 2}
        await delete_rows(store)
        assert await read_inbox(store, bob) == sent[2:]
        assert await store.admin.remove_old(0) == 0

    @ensureDeferred
    async def test_conversations_and_changes_lose_what_is_removed(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        for user_id in (ann, bob):
            await store.sync.synchronise(user_id)
        await send(store, ann, bob, "1")
        await store.revise(Revision(ann, bob, 1, "edited"))
        await store.remove_oldest(bob, 1)
        await delete_rows(store)
        kept = await send(store, ann, bob, "2")
        listed = await store.sync.conversations(ListConversations(bob, 10))
        assert listed is not None
        [summary] = listed.conversations
        assert (summary.last_message, summary.unread) == (kept, 1)
        changes = await store.sync.changes(ReadChanges(ann, ALL_CHANGES, 10))
        assert changes is not None
        assert changes.changes == (MessageChange("sent", kept),)

    @ensureDeferred
    async def test_others_write_and_remove_meanwhile(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent: list[Message] = []
        for _ in range(3):
            sent += await send_many(store, ann, bob, 500)

        async def edit() -> None:
            for seq in range(1, 1500, 30):
                try:
                    await store.revise(Revision(ann, bob, seq, "longer than it was before"))
                except MessageNotFound:
                    assert store.removed[bob] >= seq

        async def write() -> None:
            for number in range(20):
                await send(store, ann, bob, f"new {number}")

        async def expire() -> None:
            for message in sent[100:1100:200]:
                await store.admin.remove_old(message.sent_at)

        work = [edit(), write(), expire(), remove(store, bob, 1203), remove(store, bob, 1100)]
        await gatherResults([Deferred.fromCoroutine(each) for each in work])
        assert store.removed == {bob: 1203}
        await delete_rows(store)
        inbox = await read_inbox(store, bob)
        assert [message.seq for message in inbox] == [*range(1204, 1521)]
        await expect_bytes(store)

    @ensureDeferred
    async def test_an_account_may_be_deleted_meanwhile(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await send_many(store, ann, bob, 2500)
        removing = Deferred.fromCoroutine(remove(store, bob, 2500))
        assert await store.delete_account(bob) is True
        await removing
        await delete_rows(store)
        assert await store.remove_oldest(bob, 2500) is None
        assert await store.last_seqs([ann, bob]) == {ann: 0}
        assert await read_conversation(store, ann, bob) == []
