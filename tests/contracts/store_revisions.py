"""Contract of `IStore`: editing and deleting messages."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from chatd.errors import (
    Blocked,
    DomainError,
    IdempotencyKeyReused,
    MessageDeleted,
    MessageNotFound,
    NotTheSender,
    TooLate,
)
from chatd.interfaces import IStore
from chatd.model import (
    MAX_INTEGER,
    Appended,
    InboxSlice,
    Message,
    ReadAfter,
    ReadConversation,
    ReadPage,
    Revision,
)
from tests.contracts.helpers import TEXTS, OpenStore, add_accounts, draft, send, send_many
from tests.examples import examples


def revised(message: Message, text: str, edited_at: int | None, deleted_at: int | None) -> Message:
    """The message with another text and other times."""
    return Message(
        message.received_by,
        message.seq,
        message.sent_by,
        message.sent_at,
        text,
        edited_at,
        deleted_at,
    )


async def edit(store: IStore, message: Message, text: str, by: int | None = None) -> Message:
    """Edit a message, as its sender or somebody else."""
    by = message.sent_by if by is None else by
    return await store.revise(Revision(by, message.received_by, message.seq, text))


async def delete(store: IStore, message: Message, by: int | None = None) -> Message:
    """Delete a message, as its sender or somebody else."""
    by = message.sent_by if by is None else by
    return await store.revise(Revision(by, message.received_by, message.seq, None))


async def read_everywhere(store: IStore, message: Message) -> set[Message]:
    """What every way to read a message returns."""
    seq = message.seq
    queries: list[ReadAfter | ReadPage] = [
        ReadAfter(message.received_by, seq - 1, 1),
        ReadPage(message.received_by, 1, 1, seq),
    ]
    found = [store.read_cached(query) for query in queries]
    found += await store.read(queries)
    found += [store.read_cached(query, listening=True) for query in queries]
    messages = [inbox.messages for inbox in found if inbox is not None]
    for one, other in (
        (message.received_by, message.sent_by),
        (message.sent_by, message.received_by),
    ):
        conversation = await store.conversation(ReadConversation(one, other, 100))
        assert conversation is not None
        messages.append(
            tuple(
                each
                for each in conversation.messages
                if (each.received_by, each.seq) == (message.received_by, seq)
            )
        )
    return {each for found in messages for each in found}


class RevisionsContract:
    """Editing and deleting messages."""

    @ensureDeferred
    async def test_an_edited_message_is_read_with_its_new_text_everywhere(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 3)
        assert await read_everywhere(store, sent[1]) == {sent[1]}
        edited = await edit(store, sent[1], "new")
        assert edited.edited_at is not None
        assert edited.edited_at >= edited.sent_at
        assert edited == revised(sent[1], "new", edited.edited_at, None)
        assert await read_everywhere(store, edited) == {edited}
        again = await edit(store, sent[1], "newer")
        assert again.edited_at is not None
        assert again.edited_at >= edited.edited_at
        assert await read_everywhere(store, again) == {again}
        assert await store.read([ReadAfter(bob, 0, 10)]) == [
            InboxSlice(3, (sent[0], again, sent[2]))
        ]

    @ensureDeferred
    async def test_a_deleted_message_keeps_its_place_without_its_text(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 3)
        assert await read_everywhere(store, sent[2]) == {sent[2]}
        deleted = await delete(store, sent[2])
        assert deleted.deleted_at is not None
        assert deleted.deleted_at >= deleted.sent_at
        assert deleted == revised(sent[2], "", None, deleted.deleted_at)
        assert await read_everywhere(store, deleted) == {deleted}
        assert await delete(store, sent[2]) == deleted
        assert await store.last_seqs([bob]) == {bob: 3}
        assert (await send(store, ann, bob, "next")).seq == 4

    @ensureDeferred
    async def test_an_edited_message_can_be_deleted_and_not_edited_any_more(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send(store, ann, bob, "old")
        edited = await edit(store, sent, "new")
        deleted = await delete(store, sent)
        assert deleted == revised(sent, "", edited.edited_at, deleted.deleted_at)
        for text in ("newer", "new", "x"):
            with pytest.raises(MessageDeleted):
                await edit(store, sent, text)
        assert await read_everywhere(store, sent) == {deleted}

    @ensureDeferred
    async def test_an_edit_to_the_same_text_changes_nothing(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send(store, ann, bob, "same")
        assert await edit(store, sent, "same") == sent
        edited = await edit(store, sent, "other")
        assert await edit(store, sent, "other") == edited
        assert await read_everywhere(store, sent) == {edited}

    @ensureDeferred
    async def test_only_the_sender_can_revise_a_message(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        sent = await send(store, ann, bob, "x")
        expected: list[tuple[Message, int, type[DomainError]]] = [
            (sent, bob, NotTheSender),
            (sent, cat, MessageNotFound),
            (revised_place(sent, bob, 2), ann, MessageNotFound),
            (revised_place(sent, bob, MAX_INTEGER), ann, MessageNotFound),
            (revised_place(sent, ann, 1), ann, MessageNotFound),
            (revised_place(sent, cat, 1), ann, MessageNotFound),
            (revised_place(sent, 4711, 1), ann, MessageNotFound),
            (revised_place(sent, MAX_INTEGER, 1), ann, MessageNotFound),
        ]
        for message, by, error in expected:
            with pytest.raises(error):
                await edit(store, message, "y", by)
            with pytest.raises(error):
                await delete(store, message, by)
        assert await read_everywhere(store, sent) == {sent}
        # The same once it is deleted.
        deleted = await delete(store, sent)
        for by, error in ((bob, NotTheSender), (cat, MessageNotFound)):
            with pytest.raises(error):
                await edit(store, sent, "y", by)
            with pytest.raises(error):
                await delete(store, sent, by)
        assert await read_everywhere(store, sent) == {deleted}

    @ensureDeferred
    async def test_a_message_to_oneself_can_be_revised(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        sent = await send(store, ann, ann, "x")
        edited = await edit(store, sent, "y")
        assert await read_everywhere(store, sent) == {edited}
        assert await read_everywhere(store, await delete(store, sent)) == {
            revised(sent, "", edited.edited_at, (await delete(store, sent)).deleted_at)
        }

    @ensureDeferred
    async def test_a_message_can_be_too_old_to_be_revised(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        old = await send(store, ann, bob, "old")
        deleted = await delete(store, await send(store, ann, bob, "deleted"))
        while (await send(store, ann, ann, "time passes")).sent_at - old.sent_at <= 2000:
            pass
        for text in ("new", "old", None):
            with pytest.raises(TooLate):
                await store.revise(Revision(ann, bob, old.seq, text, 1000))
        with pytest.raises(NotTheSender):
            await store.revise(Revision(bob, bob, old.seq, "new", 1000))
        # What is deleted already stays so.
        assert await store.revise(Revision(ann, bob, deleted.seq, None, 1)) == deleted
        with pytest.raises(MessageDeleted):
            await store.revise(Revision(ann, bob, deleted.seq, "new", 1))
        hour = 3600 * 1_000_000
        assert (await store.revise(Revision(ann, bob, old.seq, "new", hour))).text == "new"

    @ensureDeferred
    async def test_a_blocked_sender_can_delete_but_not_edit(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send(store, ann, bob, "x")
        await store.block(bob, ann)
        for text in ("y", "x"):
            with pytest.raises(Blocked):
                await edit(store, sent, text)
        assert await read_everywhere(store, sent) == {sent}
        assert (await delete(store, sent)).text == ""

    @ensureDeferred
    async def test_messages_of_deleted_accounts(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        received = await send(store, ann, bob, "x")
        sent = await send(store, bob, ann, "y")
        await store.delete_account(bob)
        for text in ("z", None):
            with pytest.raises(MessageNotFound):
                await store.revise(Revision(ann, bob, received.seq, text))
            with pytest.raises(NotTheSender):
                await store.revise(Revision(ann, ann, sent.seq, text))

    @ensureDeferred
    async def test_a_replayed_send_returns_the_message_as_it_is_now(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send(store, ann, bob, "old", "key")
        other = await send(store, ann, bob, "other", "other")
        edited = await edit(store, sent, "new")
        again = draft(ann, bob, "old", "key")
        assert await store.append([again]) == [Appended(edited, True)]
        [result] = await store.append([draft(ann, bob, "new", "key")])
        assert isinstance(result, IdempotencyKeyReused)
        deleted = await delete(store, sent)
        assert await store.append([again, draft(ann, bob, "other", "other")]) == [
            Appended(deleted, True),
            Appended(other, True),
        ]

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    @ensureDeferred
    async def test_text_is_changed_to_and_from_anything(
        self, open_store: OpenStore, text: str
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send(store, ann, bob, "short", "key")
        edited = await edit(store, sent, text)
        assert edited.text == text
        assert await read_everywhere(store, sent) == {edited}
        assert await store.append([draft(ann, bob, "short", "key")]) == [Appended(edited, True)]
        assert await read_everywhere(store, await edit(store, sent, "short")) == {
            await edit(store, sent, "short")
        }

    @ensureDeferred
    async def test_concurrent_revisions_are_executed_one_after_another(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send(store, ann, bob, "x")
        results = await gatherResults(
            [store.revise(Revision(ann, bob, 1, f"{n}")) for n in range(10)]
        )
        times = [result.edited_at or 0 for result in results]
        assert len({result.text for result in results}) == 10
        last = results[times.index(max(times))]
        assert await read_everywhere(store, sent) == {last}

        edits = [
            store.revise(Revision(ann, bob, 1, text)).addErrback(
                lambda failure: failure.trap(MessageDeleted)
            )
            for text in ("a", "b")
        ]
        await delete(store, sent)
        for each in edits:
            await each
        [found] = await read_everywhere(store, sent)
        assert (found.text, found.deleted_at is None) == ("", False)

    @ensureDeferred
    async def test_nothing_that_is_returned_later_contains_the_old_text(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        for number in range(1, examples(9, deep=20)):
            sent = await send(store, ann, bob, "old")
            assert sent.seq == number
            query = ReadAfter(bob, number - 1, 10)
            both = [ReadConversation(ann, bob, 1), ReadConversation(bob, ann, 1)]
            calls: list[Deferred[Any]] = [store.read([query]) for _ in range(3)]
            calls += [store.conversation(each) for each in both]
            revision = store.revise(Revision(ann, bob, number, None if number % 2 else "new"))
            calls += [store.read([query]) for _ in range(3)]
            calls += [store.conversation(each) for each in both]
            message = await revision
            # They may have read before the revision was committed.
            for each in [each for each in calls if not each.called]:
                result = await each
                inbox = result[0] if isinstance(result, list) else result
                assert inbox.messages == (message,)
            known = store.read_cached(query)
            assert known is None or known.messages == (message,)
            [found] = await store.read([query])
            assert found is not None
            assert (found.last_seq, found.messages) == (number, (message,))
            await gatherResults(calls)

    @ensureDeferred
    async def test_revisions_are_kept_when_the_store_is_reopened(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 2)
        expected = (await edit(store, sent[0], "new"), await delete(store, sent[1]))
        await store.close()
        store = await open_store()
        assert await store.read([ReadAfter(bob, 0, 10)]) == [InboxSlice(2, expected)]


def revised_place(message: Message, received_by: int, seq: int) -> Message:
    """A message that may not exist: the given one elsewhere."""
    return Message(received_by, seq, message.sent_by, message.sent_at, message.text)
