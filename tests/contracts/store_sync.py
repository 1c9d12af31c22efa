"""Contract of `ISyncStore`: conversations, positions and changes."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from zope.interface.verify import verifyObject

from chatd.errors import CursorEpoch, InvalidBody, UserNotFound
from chatd.interfaces import IStore, ISyncStore
from chatd.model import (
    ALL_CHANGES,
    ChangesPosition,
    ConversationCursor,
    Message,
    ReadAfter,
    ReadConversation,
    Revision,
)
from chatd.model_sync import (
    Change,
    ChangesSlice,
    ConversationsCursor,
    ConversationSummary,
    ListConversations,
    MarkRead,
    MessageChange,
    PeerChange,
    PeerPositions,
    ReadChange,
    ReadChanges,
)
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    read_conversation,
    read_inbox,
    send,
    send_many,
)


async def changes(
    store: IStore, user_id: int, after: ChangesPosition | None, limit: int = 100
) -> ChangesSlice:
    """Changes of an account that exists."""
    found = await store.sync.changes(ReadChanges(user_id, after, limit))
    assert found is not None
    return found


async def all_changes(
    store: IStore, user_id: int, after: ChangesPosition = ALL_CHANGES, limit: int = 100
) -> tuple[list[Change], ChangesPosition]:
    """All changes after a position, `limit` at a time, and the position after them."""
    found: list[Change] = []
    while True:
        part = await changes(store, user_id, after, limit)
        assert len(part.changes) <= limit
        found += part.changes
        after = part.position
        if not part.more:
            return found, after


async def conversations(store: IStore, user_id: int) -> list[ConversationSummary]:
    """All conversations of an account that exists."""
    found = await store.sync.conversations(ListConversations(user_id, 100))
    assert found is not None
    assert found.older is None
    return list(found.conversations)


def check_bytes(
    messages: list[Message], count: int, limit: int, max_bytes: int, more: bool
) -> None:
    """A part of a list of so many entries ends with the message with which it has `max_bytes`."""
    sizes = [len(each.text.encode("utf-8")) for each in messages]
    assert count > 0
    assert sum(sizes[:-1]) < max_bytes
    assert not more or count == limit or sum(sizes) >= max_bytes


class SyncContract:
    """Conversations, positions and changes; random operations are in `tests.model_sync`."""

    @ensureDeferred
    async def test_the_interface_of_changes_is_provided(self, open_store: OpenStore) -> None:
        verifyObject(ISyncStore, (await open_store()).sync)

    @ensureDeferred
    async def test_a_conversation_is_summarised(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        sent = await send_many(store, ann, bob, 3)
        first = await send(store, cat, bob, "from cat")
        # From before the account asks, and after.
        for _ in range(2):
            assert await conversations(store, bob) == [
                ConversationSummary(cat, "cat", first, 1, 0, 0, 0, first.sent_at),
                ConversationSummary(ann, "ann", sent[-1], 3, 0, 0, 0, sent[-1].sent_at),
            ] or (first.sent_at == sent[-1].sent_at)
        answer = await send(store, bob, ann, "answer")
        await send(store, ann, bob, "again")
        found = await conversations(store, ann)
        assert [(each.peer, each.last_message.text) for each in found] == [(bob, "again")]
        assert found[0].unread == 1
        assert answer.received_by == ann

    @ensureDeferred
    async def test_unread_messages_are_counted_up_to_a_hundred(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await send_many(store, ann, bob, 250)
        for read, unread in ((1, 100), (149, 100), (151, 99), (200, 50), (10, 50), (250, 0)):
            await store.sync.mark_read(MarkRead(bob, ann, read))
            [found] = await conversations(store, bob)
            assert found.unread == unread
        assert found.read == 250
        await send_many(store, ann, bob, 7)
        [found] = await conversations(store, bob)
        assert found.unread == 7

    @ensureDeferred
    async def test_lists_end_with_the_message_with_which_they_have_so_many_bytes(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        names = ["ann", "bob", "cat", "dan", "eve", "fay"]
        ann, *peers = await add_accounts(store, *names)

        async def exchange(times: int) -> None:
            for number in range(times):
                for peer in peers:
                    # A hundred bytes each, and a short one.
                    await send(store, ann, peer, "é" * 50)
                    await send(store, peer, ann, "x" * 100 if number % 2 else "short")

        # From before the account has changes, and after.
        await exchange(3)
        await store.sync.synchronise(ann)
        await exchange(2)
        await send(store, ann, peers[0], "é" * 50)
        await store.sync.mark_read(MarkRead(ann, peers[0], 1))
        bob = peers[0]
        summaries = await conversations(store, ann)
        changed, _ = await all_changes(store, ann)
        received = await read_inbox(store, ann)
        exchanged = await read_conversation(store, ann, bob, 100)
        for limit, max_bytes in (
            (100, 1),
            (100, 100),
            (100, 101),
            (3, 250),
            (100, 450),
            (7, 10**6),
        ):
            listed: list[ConversationSummary] = []
            before: ConversationsCursor | None = None
            while before is not None or not listed:
                query = ListConversations(ann, limit, before, max_bytes)
                part = await store.sync.conversations(query)
                assert part is not None
                listed += part.conversations
                before = part.older
                messages = [each.last_message for each in part.conversations]
                check_bytes(messages, len(messages), limit, max_bytes, before is not None)
            assert listed == summaries

            found: list[Change] = []
            after, more = ALL_CHANGES, True
            while more:
                slice_ = await store.sync.changes(ReadChanges(ann, after, limit, max_bytes))
                assert slice_ is not None
                found += slice_.changes
                after, more = slice_.position, slice_.more
                check_bytes(slice_.messages, len(slice_.changes), limit, max_bytes, more)
            assert found == changed

            inbox: list[Message] = []
            while len(inbox) < len(received):
                [part_of_inbox] = await store.read([ReadAfter(ann, len(inbox), limit, max_bytes)])
                assert part_of_inbox is not None
                messages = list(part_of_inbox.messages)
                inbox += messages
                more = len(inbox) < part_of_inbox.last_seq
                check_bytes(messages, len(messages), limit, max_bytes, more)
                query_again = ReadAfter(ann, messages[0].seq - 1, limit, max_bytes)
                cached = store.read_cached(query_again)
                assert cached is None or cached == part_of_inbox
            assert inbox == received

            read: list[Message] = []
            place: ConversationCursor | None = None
            while place is not None or not read:
                of_bob = ReadConversation(ann, bob, limit, place, max_bytes)
                conversation = await store.conversation(of_bob)
                assert conversation is not None
                read += conversation.messages
                place = ConversationCursor.of(read[-1]) if conversation.older else None
                messages = list(conversation.messages)
                check_bytes(messages, len(messages), limit, max_bytes, conversation.older)
            assert read == exchanged

    @ensureDeferred
    async def test_positions_tell_of_own_messages_only(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        await store.sync.synchronise(ann)
        await send(store, ann, bob, "1")
        await send_many(store, cat, bob, 5)
        await send(store, ann, bob, "7")
        assert await store.sync.peer_positions(ann, bob) == PeerPositions(0, 0)
        assert ann in await store.sync.record_delivered({bob: 6})
        told = await store.sync.mark_read(MarkRead(bob, cat, 4))
        assert told is not None
        for user_id, positions in ((ann, PeerPositions(1, 0)), (cat, PeerPositions(6, 4))):
            assert await store.sync.peer_positions(user_id, bob) == positions
            [found] = await conversations(store, user_id)
            assert (found.peer_delivered, found.peer_read) == (positions.delivered, positions.read)
        # Read implies delivered.
        await store.sync.mark_read(MarkRead(bob, ann, 7))
        assert await store.sync.peer_positions(ann, bob) == PeerPositions(7, 7)
        told_changes, _ = await all_changes(store, ann)
        assert PeerChange(bob, PeerPositions(7, 7)) in told_changes

    @ensureDeferred
    async def test_positions_move_forward_only_and_not_past_the_end(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        await send_many(store, ann, bob, 5)
        await store.sync.record_delivered({bob: 6, cat: 1, 4711: 1})
        assert await store.sync.peer_positions(ann, bob) == PeerPositions(0, 0)
        await store.sync.record_delivered({bob: 4})
        await store.sync.record_delivered({bob: 3})
        assert await store.sync.peer_positions(ann, bob) == PeerPositions(4, 0)
        await store.sync.mark_read(MarkRead(bob, ann, 3))
        await store.sync.mark_read(MarkRead(bob, ann, 2))
        assert await store.sync.peer_positions(ann, bob) == PeerPositions(4, 3)
        with pytest.raises(InvalidBody):
            await store.sync.mark_read(MarkRead(bob, ann, 6))
        with pytest.raises(UserNotFound):
            await store.sync.mark_read(MarkRead(bob, 4711, 1))
        assert await store.sync.mark_read(MarkRead(4711, ann, 1)) is None

    @ensureDeferred
    async def test_changes_begin_with_everything_or_with_now(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        before = [*await send_many(store, ann, bob, 5), *await send_many(store, ann, cat, 5)]
        await send_many(store, bob, ann, 5)
        await store.sync.record_delivered({bob: 2})
        now = await changes(store, ann, None)
        assert now.changes == ()
        assert not now.more
        after = await send_many(store, ann, bob, 3)
        for limit in (1, 2, 4, 100):
            found, _ = await all_changes(store, ann, limit=limit)
            assert found == [
                *[MessageChange("sent", each) for each in before],
                PeerChange(bob, PeerPositions(2, 0)),
                *[MessageChange("sent", each) for each in after],
            ]
            found, end = await all_changes(store, ann, now.position, limit)
            assert found == [MessageChange("sent", each) for each in after]
        assert (await changes(store, ann, end)).changes == ()

    @ensureDeferred
    async def test_a_change_that_is_overtaken_is_told_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        start = (await changes(store, ann, None)).position
        await send_many(store, ann, bob, 5)
        await send_many(store, bob, ann, 5)
        for seq in range(1, 6):
            await store.sync.record_delivered({bob: seq})
            await store.sync.mark_read(MarkRead(ann, bob, seq))
        found, end = await all_changes(store, ann, start)
        assert found[5:] == [PeerChange(bob, PeerPositions(5, 0)), ReadChange(bob, 5)]
        with pytest.raises(CursorEpoch):
            await store.sync.changes(ReadChanges(ann, ChangesPosition(end.number + 1), 10))

    @ensureDeferred
    async def test_edits_and_deletions_are_told_to_both_sides(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        starts = [(await changes(store, each, None)).position for each in (ann, bob, cat)]
        await send_many(store, ann, bob, 2)
        own = await send(store, ann, ann, "a note")
        edited = await store.revise(Revision(ann, bob, 1, "edited"))
        deleted = await store.revise(Revision(ann, bob, 2, None))
        note = await store.revise(Revision(ann, ann, own.seq, "edited"))
        by_ann, by_bob, by_cat = [
            (await all_changes(store, each, start))[0]
            for each, start in zip((ann, bob, cat), starts, strict=True)
        ]
        assert by_bob == [MessageChange("changed", edited), MessageChange("changed", deleted)]
        # Also what was sent is told as it is now.
        assert by_ann == [
            *[MessageChange("sent", each) for each in (edited, deleted, note)],
            *[MessageChange("changed", each) for each in (edited, deleted, note)],
        ]
        assert by_cat == []

    @ensureDeferred
    async def test_changes_survive_a_restart(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        start = (await changes(store, ann, None)).position
        await store.close()
        store = await open_store()
        sent = await send(store, ann, bob, "after the restart")
        found, _ = await all_changes(store, ann, start)
        assert found == [MessageChange("sent", sent)]

    @ensureDeferred
    async def test_a_large_move_is_told_to_all_senders(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        await store.sync.synchronise(ann)
        first = await send(store, ann, bob, "first")
        for _ in range(3):
            await send_many(store, cat, bob, 400)
        await store.sync.record_delivered({bob: 1201})
        assert await store.sync.peer_positions(ann, bob) == PeerPositions(first.seq, 0)
        [found] = await conversations(store, ann)
        assert found.peer_delivered == first.seq

    @ensureDeferred
    async def test_a_deleted_account_leaves_no_changes(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        received = await send(store, bob, ann, "stays")
        await send(store, ann, bob, "is deleted")
        await conversations(store, ann)
        await conversations(store, bob)
        await store.delete_account(bob)
        assert await store.sync.conversations(ListConversations(bob, 10)) is None
        assert await store.sync.changes(ReadChanges(bob, ALL_CHANGES, 10)) is None
        assert not await store.sync.synchronise(bob)
        [found] = await conversations(store, ann)
        assert (found.username, found.last_message) == (None, received)
        assert (await all_changes(store, ann))[0] == []
