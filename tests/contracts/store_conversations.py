"""Contract of `IStore`: conversations between two accounts."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from chatd.model import (
    MAX_INTEGER,
    ConversationCursor,
    ConversationSlice,
    Draft,
    Message,
    ReadConversation,
)
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    appended,
    conversation_of,
    read_conversation,
    send,
    send_many,
)
from tests.examples import examples


class ConversationContract:
    """Conversations between two accounts."""

    @ensureDeferred
    async def test_a_conversation_contains_both_directions_and_nothing_else(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        messages = []
        for number in range(examples(10, deep=20)):
            messages.append(await send(store, ann, bob, f"{number} from ann"))
            await send(store, ann, cat, "not for bob")
            messages.append(await send(store, bob, ann, f"{number} from bob"))
            await send(store, cat, bob, "not from ann")
        for user_id, peer in ((ann, bob), (bob, ann)):
            for limit in (1, 3, 7, 40, 100):
                assert await read_conversation(store, user_id, peer, limit) == conversation_of(
                    messages
                )

    @ensureDeferred
    async def test_messages_with_equal_times_are_each_returned_once(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        messages: list[Message] = []
        for _ in range(3):
            # If all messages of a transaction have the same time, only recipient and seq differ.
            pairs = [(ann, bob), (bob, ann), (ann, bob), (ann, bob), (bob, ann)]
            drafts = [Draft(*pair, f"{number}") for number, pair in enumerate(pairs)]
            messages += [appended(result) for result in await store.append(drafts)]
        for limit in range(1, 17, examples(5, deep=1)):
            assert await read_conversation(store, ann, bob, limit) == conversation_of(messages)
            assert await read_conversation(store, bob, ann, limit) == conversation_of(messages)

    @ensureDeferred
    async def test_new_messages_do_not_shift_older_pages(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        messages = await send_many(store, ann, bob, 10) + await send_many(store, bob, ann, 10)
        newest = await store.conversation(ReadConversation(ann, bob, 5))
        assert newest is not None
        await send_many(store, ann, bob, 3)
        await send_many(store, bob, ann, 3)
        before = ConversationCursor.of(newest.messages[-1])
        older = await store.conversation(ReadConversation(ann, bob, 100, before))
        assert older is not None
        assert [*newest.messages, *older.messages] == conversation_of(messages)
        assert (newest.older, older.older) == (True, False)

    @ensureDeferred
    async def test_messages_to_oneself_are_returned_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        messages = await send_many(store, ann, ann, 5)
        await send(store, bob, ann, "not from ann")
        for limit in (1, 2, 5, 100):
            assert await read_conversation(store, ann, ann, limit) == conversation_of(messages)

    @ensureDeferred
    async def test_messages_received_from_a_deleted_peer_remain(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        received = await send_many(store, bob, ann, 5)
        await send_many(store, ann, bob, 5)
        await store.delete_account(bob)
        found = await store.conversation(ReadConversation(ann, bob, 100))
        assert found is not None
        assert list(found.messages) == conversation_of(received)
        assert not found.peer_exists
        assert await store.conversation(ReadConversation(bob, ann, 100)) is None

    @ensureDeferred
    async def test_an_empty_conversation_says_whether_the_peer_exists(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, deleted = await add_accounts(store, "ann", "bob", "deleted")
        await store.delete_account(deleted)
        for peer, exists in ((bob, True), (deleted, False), (4711, False), (MAX_INTEGER, False)):
            found = await store.conversation(ReadConversation(ann, peer, 10))
            assert found == ConversationSlice((), False, exists)
        assert await store.conversation(ReadConversation(4711, ann, 10)) is None

    @ensureDeferred
    async def test_there_is_nothing_before_the_first_message(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        first, *_ = await send_many(store, ann, bob, 3)
        for place in (ConversationCursor.of(first), ConversationCursor(1, 1, 1)):
            found = await store.conversation(ReadConversation(ann, bob, 10, place))
            assert found == ConversationSlice((), False, True)
        after_all = ConversationCursor(MAX_INTEGER, MAX_INTEGER, MAX_INTEGER)
        found = await store.conversation(ReadConversation(ann, bob, 10, after_all))
        assert found is not None
        assert len(found.messages) == 3
