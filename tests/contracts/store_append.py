"""Contract of `IStore`: appending messages and idempotency keys."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from chatd.errors import IdempotencyKeyReused, UserNotFound
from chatd.model import (
    MAX_INTEGER,
    Appended,
    Draft,
    InboxSlice,
    Message,
    ReadAfter,
    ReadPage,
)
from tests.contracts.helpers import (
    TEXTS,
    OpenStore,
    appended,
    draft,
    inbox,
    people,
    send,
)


class AppendContract:
    """Order, atomicity and text of appended messages."""

    @ensureDeferred
    async def test_an_appended_message_is_what_was_drafted(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        message = await send(store, ann, bob, "hello")
        assert message == Message(bob, 1, ann, message.sent_at, "hello")
        assert message.sent_at > 0
        assert await inbox(store, bob) == [message]
        assert await inbox(store, ann) == []

    @ensureDeferred
    async def test_one_may_write_to_oneself(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        message = await send(store, ann, ann, "a note")
        assert await inbox(store, ann) == [message]

    @ensureDeferred
    async def test_each_inbox_counts_for_itself(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        recipients = [bob, cat, bob, bob, ann, cat, bob]
        messages = [await send(store, ann, each, "x") for each in recipients]
        assert [message.seq for message in messages] == [1, 1, 2, 3, 1, 2, 4]

    @ensureDeferred
    async def test_drafts_of_one_call_are_numbered_in_their_order(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        for base in (0, 5):
            drafts = [Draft(cat, each, f"{number}") for number, each in enumerate([bob, ann] * 5)]
            messages = [appended(outcome) for outcome in await store.append(drafts)]
            assert [message.text for message in messages] == [each.text for each in drafts]
            for each in (ann, bob):
                seqs = [message.seq for message in messages if message.received_by == each]
                assert seqs == list(range(base + 1, base + 6))

    @ensureDeferred
    async def test_times_never_go_backwards_in_an_inbox(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        for _ in range(20):
            await send(store, ann, bob, "x")
        times = [message.sent_at for message in await inbox(store, bob)]
        assert times == sorted(times)

    @ensureDeferred
    async def test_a_missing_recipient_fails_alone(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, gone = await people(store, "ann", "bob", "gone")
        await store.delete_account(gone)
        recipients = [MAX_INTEGER, bob, gone, bob, 4711, ann, gone]
        outcomes = await store.append([Draft(ann, each, "x") for each in recipients])
        for recipient, outcome in zip(recipients, outcomes, strict=True):
            if recipient in (ann, bob):
                assert appended(outcome).received_by == recipient
            else:
                assert isinstance(outcome, UserNotFound)
        assert [message.seq for message in await inbox(store, bob)] == [1, 2]

    @ensureDeferred
    async def test_a_call_in_which_every_draft_fails_succeeds(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await people(store, "ann")
        outcomes = await store.append([Draft(ann, 4711, "x"), Draft(ann, 4712, "x")])
        assert [type(outcome) for outcome in outcomes] == [UserNotFound, UserNotFound]

    @ensureDeferred
    async def test_a_batch_of_600_over_50_inboxes_is_dense_everywhere(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ids = await people(store, *(f"user{number}" for number in range(50)))
        chance = random.Random(1)
        targets = [*ids, 4711, MAX_INTEGER]
        for start in (0, 600):
            drafts = [
                draft(
                    chance.choice(ids),
                    chance.choice(targets),
                    f"{start + number}",
                    f"key {start + number}" if number % 3 == 0 else None,
                )
                for number in range(600)
            ]
            outcomes = await store.append(drafts)
            assert len(outcomes) == 600
            for asked, outcome in zip(drafts, outcomes, strict=True):
                if asked.received_by in ids:
                    message = appended(outcome)
                    assert (message.sent_by, message.received_by, message.text) == (
                        asked.sent_by,
                        asked.received_by,
                        asked.text,
                    )
                else:
                    assert isinstance(outcome, UserNotFound)
        for each in ids:
            texts = [int(message.text) for message in await inbox(store, each)]
            assert texts == sorted(texts)

    @ensureDeferred
    async def test_concurrent_calls_leave_inboxes_dense(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        calls = []
        for number in range(30):
            # Both orders of recipients: locks taken in the order of drafts would deadlock.
            order = (ann, bob, ann) if number % 2 else (bob, ann, ann)
            calls.append(
                store.append([Draft(cat, each, f"{number}.{i}") for i, each in enumerate(order)])
            )
        outcomes = await gatherResults(calls)
        for each in (ann, bob):
            found = await inbox(store, each)
            assert len(found) == (60 if each == ann else 30)
            told = [appended(outcome) for call in outcomes for outcome in call]
            assert (
                sorted(
                    (message for message in told if message.received_by == each),
                    key=lambda message: message.seq,
                )
                == found
            )
        for call in outcomes:
            mine = [appended(outcome).seq for outcome in call]
            seqs = [s for s, o in zip(mine, call, strict=True) if appended(o).received_by == ann]
            assert seqs[1] == seqs[0] + 1

    @ensureDeferred
    async def test_appending_beside_a_deletion_is_refused_or_goes_with_the_inbox(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        calls = [store.append([Draft(ann, bob, "x"), Draft(ann, ann, "x")]) for _ in range(5)]
        deletion = store.delete_account(bob)
        calls += [store.append([Draft(ann, bob, "x"), Draft(ann, ann, "x")]) for _ in range(5)]
        assert await deletion is True
        for call in calls:
            theirs, mine = await call
            appended(mine)
            assert isinstance(theirs, Appended | UserNotFound)
        assert len(await inbox(store, ann)) == 10
        assert await store.read([ReadAfter(bob, 0, 100)]) == [None]

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
    @ensureDeferred
    async def test_text_comes_back_as_it_was_given(self, open_store: OpenStore, text: str) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        message = await send(store, ann, bob, text, "key")
        assert message.text == text
        [after, page] = await store.read([ReadAfter(bob, 0, 1), ReadPage(bob, 1, 1)])
        assert after == page == InboxSlice(1, (message,))
        assert await store.append([draft(ann, bob, text, "key")]) == [Appended(message, True)]

    @ensureDeferred
    async def test_texts_of_one_batch_are_not_mixed_up(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        await store.append([Draft(ann, bob, text) for text in TEXTS.values()])
        assert [message.text for message in await inbox(store, bob)] == list(TEXTS.values())


class IdempotencyContract:
    """Idempotency keys."""

    @ensureDeferred
    async def test_a_replay_gives_the_first_message(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        await send(store, ann, bob, "between")
        for _ in range(3):
            assert await store.append([draft(ann, bob, "once", "key")]) == [Appended(first, True)]

    @ensureDeferred
    async def test_a_replay_moves_nothing(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        for _ in range(3):
            await store.append([draft(ann, bob, "once", "key")])
        assert await store.last_seqs([bob]) == {bob: 1}
        second = await send(store, ann, bob, "twice")
        assert await inbox(store, bob) == [first, second]

    @ensureDeferred
    async def test_replays_and_new_messages_share_a_call(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        outcomes = await store.append(
            [
                draft(ann, bob, "2"),
                draft(ann, bob, "once", "key"),
                draft(ann, bob, "3", "another"),
                draft(ann, bob, "other text", "key"),
                draft(ann, bob, "4"),
            ]
        )
        assert [appended(outcomes[number]).seq for number in (0, 2, 4)] == [2, 3, 4]
        assert outcomes[1] == Appended(first, True)
        assert isinstance(outcomes[3], IdempotencyKeyReused)
        assert [message.text for message in await inbox(store, bob)] == ["once", "2", "3", "4"]

    @ensureDeferred
    async def test_a_key_stands_for_one_request(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        first = await send(store, ann, bob, "once", "key")
        for other in (draft(ann, bob, "other", "key"), draft(ann, cat, "once", "key")):
            [outcome] = await store.append([other])
            assert isinstance(outcome, IdempotencyKeyReused)
        assert await store.append([draft(ann, bob, "once", "key")]) == [Appended(first, True)]
        assert await inbox(store, cat) == []

    @ensureDeferred
    async def test_one_key_twice_in_a_call_appends_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        outcomes = await store.append(
            [
                draft(ann, bob, "once", "key"),
                draft(ann, bob, "once", "key"),
                draft(ann, bob, "other", "key"),
                draft(ann, bob, "next"),
                draft(ann, bob, "once", "key"),
            ]
        )
        first = appended(outcomes[0])
        assert outcomes[1] == outcomes[4] == Appended(first, True)
        assert isinstance(outcomes[2], IdempotencyKeyReused)
        assert appended(outcomes[3]).seq == 2
        assert [message.text for message in await inbox(store, bob)] == ["once", "next"]

    @ensureDeferred
    async def test_one_key_in_concurrent_calls_appends_once(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        calls = await gatherResults(
            [
                store.append([draft(ann, bob, "once", "key"), draft(ann, bob, f"{number}")])
                for number in range(10)
            ]
        )
        keyed = [outcome for [outcome, _] in calls if isinstance(outcome, Appended)]
        assert sorted(outcome.replayed for outcome in keyed) == [False] + [True] * 9
        assert len({outcome.message.seq for outcome in keyed}) == 1
        assert len(await inbox(store, bob)) == 11

    @ensureDeferred
    async def test_different_requests_with_one_key_in_concurrent_calls_append_one(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        calls = await gatherResults(
            [store.append([draft(ann, bob, f"{number}", "key")]) for number in range(10)]
        )
        kinds = Counter(type(outcome) for [outcome] in calls)
        assert kinds == {Appended: 1, IdempotencyKeyReused: 9}
        assert len(await inbox(store, bob)) == 1

    @ensureDeferred
    async def test_keys_are_per_sender(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await people(store, "ann", "bob", "cat")
        outcomes = await store.append(
            [draft(ann, cat, "same", "key"), draft(bob, cat, "same", "key")]
        )
        assert [appended(outcome).sent_by for outcome in outcomes] == [ann, bob]
        replays = await store.append(
            [draft(bob, cat, "same", "key"), draft(ann, cat, "same", "key")]
        )
        assert replays == [Appended(appended(each), True) for each in reversed(outcomes)]

    @ensureDeferred
    async def test_keys_differ_by_case_and_by_every_character(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        visible = "".join(map(chr, range(0x21, 0x7F)))
        keys = ["key", "Key", "KEY", "key_", "key%", visible, (visible * 3)[:255], "x" * 255]
        outcomes = await store.append([draft(ann, bob, "x", key) for key in keys])
        assert [appended(outcome).seq for outcome in outcomes] == list(range(1, len(keys) + 1))
        replays = await store.append([draft(ann, bob, "x", key) for key in keys])
        assert replays == [Appended(appended(outcome), True) for outcome in outcomes]

    @ensureDeferred
    async def test_a_refused_send_uses_no_key_up(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        [outcome] = await store.append([draft(ann, 4711, "x", "key")])
        assert isinstance(outcome, UserNotFound)
        await send(store, ann, bob, "y", "key")
        outcomes = await store.append([draft(ann, 4711, "x", "two"), draft(ann, bob, "y", "two")])
        assert isinstance(outcomes[0], UserNotFound)
        assert appended(outcomes[1]).seq == 2

    @ensureDeferred
    async def test_a_key_outlives_its_recipient(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await people(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        await store.delete_account(bob)
        assert await store.append([draft(ann, bob, "once", "key")]) == [Appended(first, True)]
        [outcome] = await store.append([draft(ann, bob, "other", "key")])
        assert isinstance(outcome, IdempotencyKeyReused)
        [outcome] = await store.append([draft(ann, bob, "once", "new key")])
        assert isinstance(outcome, UserNotFound)
        assert await store.read([ReadAfter(bob, 0, 10)]) == [None]
