"""Contract of `IStore`: appending messages and idempotency keys."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from chatd.errors import IdempotencyKeyReused, InboxFull, InboxStorageFull, UserNotFound
from chatd.interfaces import IStore
from chatd.model import (
    MAX_INTEGER,
    Appended,
    Draft,
    InboxLimits,
    Message,
    ReadAfter,
    ReadPage,
    Revision,
)
from tests.contracts.helpers import (
    TEXTS,
    OpenStore,
    add_accounts,
    appended,
    draft,
    read_inbox,
    send,
)
from tests.inbox_slices import expected_slice


class AppendContract:
    """Order, atomicity and text of appended messages."""

    @ensureDeferred
    async def test_an_appended_message_matches_its_draft(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        message = await send(store, ann, bob, "hello")
        assert message == Message(bob, 1, ann, message.sent_at, "hello")
        assert message.sent_at > 0
        assert await read_inbox(store, bob) == [message]
        assert await read_inbox(store, ann) == []

    @ensureDeferred
    async def test_users_can_send_messages_to_themselves(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        message = await send(store, ann, ann, "a note")
        assert await read_inbox(store, ann) == [message]

    @ensureDeferred
    async def test_each_inbox_has_its_own_sequence(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        recipients = [bob, cat, bob, bob, ann, cat, bob]
        messages = [await send(store, ann, each, "x") for each in recipients]
        assert [message.seq for message in messages] == [1, 1, 2, 3, 1, 2, 4]

    @ensureDeferred
    async def test_drafts_of_one_call_are_numbered_in_order(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        for base in (0, 5):
            drafts = [Draft(cat, each, f"{number}") for number, each in enumerate([bob, ann] * 5)]
            messages = [appended(result) for result in await store.append(drafts)]
            assert [message.text for message in messages] == [each.text for each in drafts]
            for each in (ann, bob):
                seqs = [message.seq for message in messages if message.received_by == each]
                assert seqs == list(range(base + 1, base + 6))

    @ensureDeferred
    async def test_times_never_decrease_within_an_inbox(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        for _ in range(20):
            await send(store, ann, bob, "x")
        times = [message.sent_at for message in await read_inbox(store, bob)]
        assert times == sorted(times)

    @ensureDeferred
    async def test_a_missing_recipient_fails_only_its_own_draft(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, deleted = await add_accounts(store, "ann", "bob", "deleted")
        await store.delete_account(deleted)
        recipients = [MAX_INTEGER, bob, deleted, bob, 4711, ann, deleted]
        results = await store.append([Draft(ann, each, "x") for each in recipients])
        for recipient, result in zip(recipients, results, strict=True):
            if recipient in (ann, bob):
                assert appended(result).received_by == recipient
            else:
                assert isinstance(result, UserNotFound)
        assert [message.seq for message in await read_inbox(store, bob)] == [1, 2]

    @ensureDeferred
    async def test_a_call_succeeds_even_if_every_draft_fails(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        results = await store.append([Draft(ann, 4711, "x"), Draft(ann, 4712, "x")])
        assert [type(result) for result in results] == [UserNotFound, UserNotFound]

    @ensureDeferred
    async def test_batches_of_600_leave_50_inboxes_dense(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await add_accounts(store, *(f"user{number}" for number in range(50)))
        rng = random.Random(1)
        targets = [*ids, 4711, MAX_INTEGER]
        for start in (0, 600):
            drafts = [
                draft(
                    rng.choice(ids),
                    rng.choice(targets),
                    f"{start + number}",
                    f"key {start + number}" if number % 3 == 0 else None,
                )
                for number in range(600)
            ]
            results = await store.append(drafts)
            assert len(results) == 600
            for expected, result in zip(drafts, results, strict=True):
                if expected.received_by in ids:
                    message = appended(result)
                    assert (message.sent_by, message.received_by, message.text) == (
                        expected.sent_by,
                        expected.received_by,
                        expected.text,
                    )
                else:
                    assert isinstance(result, UserNotFound)
        for each in ids:
            texts = [int(message.text) for message in await read_inbox(store, each)]
            assert texts == sorted(texts)

    @ensureDeferred
    async def test_concurrent_calls_leave_inboxes_dense(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        calls = []
        for number in range(30):
            # Both orders of recipients: locking inboxes in the order of drafts would deadlock.
            order = (ann, bob, ann) if number % 2 else (bob, ann, ann)
            calls.append(
                store.append([Draft(cat, each, f"{number}.{i}") for i, each in enumerate(order)])
            )
        results = await gatherResults(calls)
        for each in (ann, bob):
            found = await read_inbox(store, each)
            assert len(found) == (60 if each == ann else 30)
            acknowledged = [appended(result) for call in results for result in call]
            assert (
                sorted(
                    (message for message in acknowledged if message.received_by == each),
                    key=lambda message: message.seq,
                )
                == found
            )
        for call in results:
            mine = [appended(result).seq for result in call]
            seqs = [s for s, o in zip(mine, call, strict=True) if appended(o).received_by == ann]
            assert seqs[1] == seqs[0] + 1

    @ensureDeferred
    async def test_messages_appended_during_a_deletion_are_refused_or_deleted(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        calls = [store.append([Draft(ann, bob, "x"), Draft(ann, ann, "x")]) for _ in range(5)]
        deletion = store.delete_account(bob)
        calls += [store.append([Draft(ann, bob, "x"), Draft(ann, ann, "x")]) for _ in range(5)]
        assert await deletion is True
        for call in calls:
            theirs, mine = await call
            appended(mine)
            assert isinstance(theirs, Appended | UserNotFound)
        assert len(await read_inbox(store, ann)) == 10
        assert await store.read([ReadAfter(bob, 0, 100)]) == [None]

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    @ensureDeferred
    async def test_text_is_returned_unchanged(self, open_store: OpenStore, text: str) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        message = await send(store, ann, bob, text, "key")
        assert message.text == text
        queries: list[ReadAfter | ReadPage] = [ReadAfter(bob, 0, 1), ReadPage(bob, 1, 1)]
        assert await store.read(queries) == [expected_slice([message], each) for each in queries]
        assert await store.append([draft(ann, bob, text, "key")]) == [Appended(message, True)]

    @ensureDeferred
    async def test_texts_of_one_batch_are_not_confused(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await store.append([Draft(ann, bob, text) for text in TEXTS.values()])
        assert [message.text for message in await read_inbox(store, bob)] == list(TEXTS.values())


class IdempotencyContract:
    """Idempotency keys."""

    @ensureDeferred
    async def test_a_replay_returns_the_first_message(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        await send(store, ann, bob, "between")
        for _ in range(3):
            assert await store.append([draft(ann, bob, "once", "key")]) == [Appended(first, True)]

    @ensureDeferred
    async def test_a_replay_does_not_advance_the_inbox(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        for _ in range(3):
            await store.append([draft(ann, bob, "once", "key")])
        assert await store.last_seqs([bob]) == {bob: 1}
        second = await send(store, ann, bob, "twice")
        assert await read_inbox(store, bob) == [first, second]

    @ensureDeferred
    async def test_a_call_may_contain_replays_and_new_messages(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        results = await store.append(
            [
                draft(ann, bob, "2"),
                draft(ann, bob, "once", "key"),
                draft(ann, bob, "3", "another"),
                draft(ann, bob, "other text", "key"),
                draft(ann, bob, "4"),
            ]
        )
        assert [appended(results[number]).seq for number in (0, 2, 4)] == [2, 3, 4]
        assert results[1] == Appended(first, True)
        assert isinstance(results[3], IdempotencyKeyReused)
        assert [message.text for message in await read_inbox(store, bob)] == ["once", "2", "3", "4"]

    @ensureDeferred
    async def test_a_key_cannot_be_used_for_another_request(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        first = await send(store, ann, bob, "once", "key")
        for other in (draft(ann, bob, "other", "key"), draft(ann, cat, "once", "key")):
            [result] = await store.append([other])
            assert isinstance(result, IdempotencyKeyReused)
        assert await store.append([draft(ann, bob, "once", "key")]) == [Appended(first, True)]
        assert await read_inbox(store, cat) == []

    @ensureDeferred
    async def test_a_key_repeated_within_a_call_appends_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        results = await store.append(
            [
                draft(ann, bob, "once", "key"),
                draft(ann, bob, "once", "key"),
                draft(ann, bob, "other", "key"),
                draft(ann, bob, "next"),
                draft(ann, bob, "once", "key"),
            ]
        )
        first = appended(results[0])
        assert results[1] == results[4] == Appended(first, True)
        assert isinstance(results[2], IdempotencyKeyReused)
        assert appended(results[3]).seq == 2
        assert [message.text for message in await read_inbox(store, bob)] == ["once", "next"]

    @ensureDeferred
    async def test_a_key_in_concurrent_calls_appends_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        calls = await gatherResults(
            [
                store.append([draft(ann, bob, "once", "key"), draft(ann, bob, f"{number}")])
                for number in range(10)
            ]
        )
        keyed = [result for [result, _] in calls if isinstance(result, Appended)]
        assert sorted(result.replayed for result in keyed) == [False] + [True] * 9
        assert len({result.message.seq for result in keyed}) == 1
        assert len(await read_inbox(store, bob)) == 11

    @ensureDeferred
    async def test_only_one_of_concurrent_requests_with_the_same_key_is_appended(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        calls = await gatherResults(
            [store.append([draft(ann, bob, f"{number}", "key")]) for number in range(10)]
        )
        kinds = Counter(type(result) for [result] in calls)
        assert kinds == {Appended: 1, IdempotencyKeyReused: 9}
        assert len(await read_inbox(store, bob)) == 1

    @ensureDeferred
    async def test_keys_are_per_sender(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        results = await store.append(
            [draft(ann, cat, "same", "key"), draft(bob, cat, "same", "key")]
        )
        assert [appended(result).sent_by for result in results] == [ann, bob]
        replays = await store.append(
            [draft(bob, cat, "same", "key"), draft(ann, cat, "same", "key")]
        )
        assert replays == [Appended(appended(each), True) for each in reversed(results)]

    @ensureDeferred
    async def test_keys_differ_by_case_and_by_every_character(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        visible = "".join(map(chr, range(0x21, 0x7F)))
        keys = ["key", "Key", "KEY", "key_", "key%", visible, (visible * 3)[:255], "x" * 255]
        results = await store.append([draft(ann, bob, "x", key) for key in keys])
        assert [appended(result).seq for result in results] == list(range(1, len(keys) + 1))
        replays = await store.append([draft(ann, bob, "x", key) for key in keys])
        assert replays == [Appended(appended(result), True) for result in results]

    @ensureDeferred
    async def test_a_key_is_refused_before_the_recipient_is(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        await store.block(cat, ann)
        used = [draft(ann, user_id, "x", "key") for user_id in (bob, 4711, cat, bob)]
        first, *others, replay = await store.append(used)
        assert replay == Appended(appended(first), True)
        assert [type(each) for each in others] == [IdempotencyKeyReused] * 2
        assert [type(each) for each in await store.append(used[1:3])] == [IdempotencyKeyReused] * 2

    @ensureDeferred
    async def test_a_rejected_draft_does_not_use_up_its_key(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        [result] = await store.append([draft(ann, 4711, "x", "key")])
        assert isinstance(result, UserNotFound)
        await send(store, ann, bob, "y", "key")
        results = await store.append([draft(ann, 4711, "x", "two"), draft(ann, bob, "y", "two")])
        assert isinstance(results[0], UserNotFound)
        assert appended(results[1]).seq == 2

    @ensureDeferred
    async def test_a_key_is_kept_after_its_recipient_was_deleted(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        await store.delete_account(bob)
        assert await store.append([draft(ann, bob, "once", "key")]) == [Appended(first, True)]
        [result] = await store.append([draft(ann, bob, "other", "key")])
        assert isinstance(result, IdempotencyKeyReused)
        [result] = await store.append([draft(ann, bob, "once", "new key")])
        assert isinstance(result, UserNotFound)
        assert await store.read([ReadAfter(bob, 0, 10)]) == [None]


async def bytes_of(store: IStore, username: str) -> int:
    """The bytes of the texts of an inbox."""
    state = await store.admin.account_named(username)
    assert state is not None
    return state.bytes


class FullInboxContract:
    """Inboxes with as many messages as they may have."""

    @ensureDeferred
    async def test_a_full_inbox_takes_nothing_and_others_do(self, open_store: OpenStore) -> None:
        store = await open_store(limits=InboxLimits(3))
        ann, bob = await add_accounts(store, "ann", "bob")
        keyed = draft(ann, bob, "first", "key")
        first = appended((await store.append([keyed]))[0])
        for text in ("second", "third"):
            await send(store, ann, bob, text)
        refused, other, replay, new = await store.append(
            [Draft(ann, bob, "x"), Draft(bob, ann, "y"), keyed, draft(ann, bob, "z", "new")]
        )
        assert isinstance(refused, InboxFull)
        assert isinstance(new, InboxFull)
        assert appended(other).seq == 1
        assert replay == Appended(first, True)
        assert await store.last_seqs([ann, bob]) == {ann: 1, bob: 3}
        # Nothing that is there is dropped.
        assert [each.text for each in await read_inbox(store, bob)] == ["first", "second", "third"]

    @ensureDeferred
    async def test_what_was_removed_leaves_room(self, open_store: OpenStore) -> None:
        store = await open_store(limits=InboxLimits(2))
        ann, bob = await add_accounts(store, "ann", "bob")
        await send(store, ann, bob, "1")
        second = await send(store, ann, bob, "2")
        assert isinstance((await store.append([Draft(ann, bob, "x")]))[0], InboxFull)
        await store.admin.remove_old(second.sent_at + 1)
        for text in ("3", "4"):
            await send(store, ann, bob, text)
        assert isinstance((await store.append([Draft(ann, bob, "x")]))[0], InboxFull)
        assert await store.last_seqs([bob]) == {bob: 4}

    @ensureDeferred
    async def test_the_bytes_of_an_inbox_are_limited(self, open_store: OpenStore) -> None:
        store = await open_store(limits=InboxLimits(bytes=10))
        ann, bob = await add_accounts(store, "ann", "bob")
        keyed = draft(ann, bob, "\u00e4\u20ac", "key")  # 5 bytes
        first = appended((await store.append([keyed]))[0])
        await send(store, ann, bob, "\U0001f600")  # 4 bytes
        large, other, replay = await store.append(
            [Draft(ann, bob, "\u00e4"), Draft(bob, ann, "0123456789"), keyed]
        )
        assert isinstance(large, InboxStorageFull)
        assert appended(other).seq == 1
        assert replay == Appended(first, True)
        await send(store, ann, bob, "x")
        assert await bytes_of(store, "bob") == 10
        store.limits.bytes = 11
        await send(store, ann, bob, "y")
        assert isinstance((await store.append([Draft(ann, bob, "z")]))[0], InboxStorageFull)

    @ensureDeferred
    async def test_bytes_are_counted_whatever_changes(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        sent = [await send(store, ann, bob, "12345") for _ in range(4)]
        await send(store, cat, bob, "12")
        store.limits.bytes = 24
        edits: list[tuple[int, str | None, int]] = [
            *((1, "1234567", 24), (2, "\u20ac", 22), (2, None, 19), (2, None, 19), (1, "x", 13)),
            (1, "x", 13),
        ]
        for seq, text, size in edits:
            await store.revise(Revision(ann, bob, seq, text))
            assert await bytes_of(store, "bob") == size
        # Too large by one byte, then as large as possible.
        with pytest.raises(InboxStorageFull):
            await store.revise(Revision(ann, bob, 3, "x" * 17))
        await store.revise(Revision(ann, bob, 3, "x" * 16))
        # What shortens a message is possible, also if there is more than there may be.
        store.limits.bytes = 5
        await store.revise(Revision(ann, bob, 3, "x" * 15))
        await store.admin.remove_old(sent[0].sent_at + 1)
        removed = store.removed.get(bob, 0)
        kept = await read_inbox(store, bob)
        assert await bytes_of(store, "bob") == sum(len(each.text) for each in kept)
        assert len(kept) == 5 - removed
        await store.delete_account(ann, erase=True)
        while (await store.erase(ann)).more:
            pass
        assert await bytes_of(store, "bob") == 2
        await send(store, cat, bob, "345")
        assert await bytes_of(store, "bob") == 5
