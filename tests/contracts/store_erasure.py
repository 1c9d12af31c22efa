"""Contract of `IStore`: deleting an account with what it has sent."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from chatd.interfaces import IStore
from chatd.model import Draft, Erased, ErasedMessage, Message, ReadAfter, Revision
from chatd.model_sync import MessageChange
from chatd.store.erasure_statements import ERASE_INBOXES, ERASE_MESSAGES
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    read_conversation,
    read_inbox,
    send,
    send_many,
)
from tests.contracts.store_revisions import read_everywhere
from tests.contracts.store_sync import all_changes, conversations


async def erase(store: IStore, user_id: int) -> list[Erased]:
    """Delete an account, and what it has sent; returns the steps of that."""
    assert await store.delete_account(user_id, erase=True) is True
    return await steps(store, user_id)


async def steps(store: IStore, user_id: int) -> list[Erased]:
    """The remaining steps of an erasure."""
    found = [await store.erase(user_id)]
    while found[-1].more:
        found.append(await store.erase(user_id))
    return found


def places(found: list[Erased]) -> list[ErasedMessage]:
    """What was deleted by some steps, which is in no order, by inbox and number."""
    messages = [message for each in found for message in each.messages]
    return sorted(messages, key=lambda message: (message.received_by, message.seq))


def place(message: Message) -> ErasedMessage:
    return ErasedMessage(message.received_by, message.seq, message.sent_by)


class ErasureContract:
    """Deleting an account with what it has sent."""

    @ensureDeferred
    async def test_what_an_erased_account_sent_is_deleted_everywhere(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        sent = await send_many(store, ann, bob, 3)
        other = await send(store, cat, bob, "stays")
        to_cat = await send(store, ann, cat, "to cat")
        received = await send(store, bob, ann, "to ann")
        for message in (*sent, to_cat):
            assert await read_everywhere(store, message) == {message}
        assert places(await erase(store, ann)) == [place(each) for each in (*sent, to_cat)]
        inbox = await read_inbox(store, bob)
        assert inbox[3] == other
        for old, new in zip(
            [*sent, to_cat], [*inbox[:3], *await read_inbox(store, cat)], strict=True
        ):
            assert (new.text, new.sent_at, new.edited_at) == ("", old.sent_at, None)
            assert new.deleted_at is not None
            assert new.deleted_at >= old.sent_at
        cached = store.read_cached(ReadAfter(bob, 0, 10))
        assert cached is None or cached.messages == tuple(inbox)
        assert await read_conversation(store, bob, ann) == inbox[2::-1]
        assert (await send(store, cat, bob, "next")).seq == 5
        assert received.received_by == ann
        assert await steps(store, ann) == [Erased()]

    @ensureDeferred
    async def test_without_erase_nothing_is_deleted(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 2)
        await store.delete_account(ann)
        assert await store.erase(ann) == await store.erase() == Erased()
        assert await store.delete_account(ann, erase=True) is False
        assert await store.erase(bob) == await store.erase() == Erased()
        assert await read_inbox(store, bob) == sent

    @ensureDeferred
    async def test_edited_and_deleted_messages_are_erased_too(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await send_many(store, ann, bob, 3)
        edited = await store.revise(Revision(ann, bob, 1, "new"))
        deleted = await store.revise(Revision(ann, bob, 2, None))
        found = places(await erase(store, ann))
        assert found == [ErasedMessage(bob, 1, ann), ErasedMessage(bob, 3, ann)]
        inbox = await read_inbox(store, bob)
        assert (inbox[0].text, inbox[0].edited_at) == ("", edited.edited_at)
        assert (inbox[0].deleted_at or 0) >= (edited.edited_at or 0)
        assert inbox[1] == deleted

    @ensureDeferred
    async def test_recipients_are_told_of_every_deletion(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        await send_many(store, ann, bob, 2)
        await store.sync.synchronise(bob)
        _, position = await all_changes(store, bob)
        await send(store, ann, cat, "cat asks for nothing")
        await erase(store, ann)
        told, position = await all_changes(store, bob, position)
        inbox = await read_inbox(store, bob)
        assert told == [MessageChange("changed", message) for message in inbox]
        [summary] = await conversations(store, bob)
        assert (summary.username, summary.last_message) == (None, inbox[1])
        assert (await all_changes(store, bob, position))[0] == []

    @ensureDeferred
    async def test_a_large_erasure_goes_on_after_a_restart(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        for _ in range(3):
            await send_many(store, ann, bob, ERASE_MESSAGES - 1)
            await send_many(store, cat, bob, 20)
        await store.delete_account(ann, erase=True)
        first = await store.erase(ann)
        assert (len(first.messages), first.more) == (ERASE_MESSAGES, True)
        await store.close()
        store = await open_store()
        # Without the id, as any process does.
        second = await store.erase()
        assert (len(second.messages), second.more) == (ERASE_MESSAGES, True)
        rest = await steps(store, ann)
        assert max(len(each.messages) for each in rest) <= ERASE_MESSAGES
        found = places([first, second, *rest])
        inbox = await read_inbox(store, bob)
        assert found == [place(each) for each in inbox if each.sent_by == ann]
        assert all((each.text == "") is (each.sent_by == ann) for each in inbox)
        assert await store.erase(ann) == Erased()

    @ensureDeferred
    async def test_a_step_touches_a_bounded_number_of_inboxes(self, open_store: OpenStore) -> None:
        store = await open_store()
        count = 2 * ERASE_INBOXES
        ann, *others = await add_accounts(store, "ann", *(f"u{n}" for n in range(count)))
        await store.append([Draft(ann, other, "x") for other in others])
        found = await erase(store, ann)
        # A step begins with the inbox where the one before has ended.
        assert [len(each.messages) for each in found] == [ERASE_INBOXES, ERASE_INBOXES - 1, 1]
        for other in others:
            assert [each.text for each in await read_inbox(store, other)] == [""]

    @ensureDeferred
    async def test_inboxes_of_deleted_accounts_are_passed_over(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        for other in (bob, cat, ann):
            await send(store, ann, other, "x", f"key {other}")
        await store.delete_account(bob)
        assert places(await erase(store, ann)) == [ErasedMessage(cat, 1, ann)]

    @ensureDeferred
    async def test_several_accounts_are_erased_in_turn(self, open_store: OpenStore) -> None:
        store = await open_store()
        *senders, bob = await add_accounts(store, "ann", "cat", "dan", "bob")
        for sender in senders:
            await send(store, sender, bob, "x")
            await store.delete_account(sender, erase=True)
        found = []
        while (step := await store.erase()).more:
            found.append(step)
        assert {each.sent_by for each in places(found)} == set(senders)
        assert {each.text for each in await read_inbox(store, bob)} == {""}
