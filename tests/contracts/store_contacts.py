"""Contract of `IStore`: blocks, and who may write first."""

from __future__ import annotations

import msgspec
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from chatd.errors import (
    Blocked,
    FirstContactClosed,
    IdempotencyKeyReused,
    TooManyBlocks,
    UserNotFound,
)
from chatd.model import MAX_INTEGER, Appended, BlockedUser, Draft, EncodedRows
from chatd.store import results
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    appended,
    blocked,
    draft,
    read_inbox,
    send,
    send_many,
)
from tests.examples import examples


class BlocksContract:
    """Blocks."""

    @ensureDeferred
    async def test_a_blocked_sender_is_refused_and_nobody_else(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        first = await send(store, ann, bob, "before")
        await store.block(bob, ann)
        drafts = [
            Draft(ann, bob, "refused"),
            Draft(cat, bob, "1"),
            Draft(bob, ann, "2"),
            Draft(ann, cat, "3"),
            draft(ann, bob, "refused", "key"),
            Draft(ann, ann, "4"),
            Draft(ann, 4711, "nobody"),
            Draft(cat, bob, "5"),
        ]
        for turn in range(2):
            found = await store.append(drafts)
            assert isinstance(found[0], Blocked)
            assert isinstance(found[4], Blocked)
            assert isinstance(found[6], UserNotFound)
            assert appended(found[1]).seq == 2 + 2 * turn
            assert appended(found[7]).seq == 3 + 2 * turn
            for place in (2, 3, 5):
                assert appended(found[place]).text == drafts[place].text
        assert await store.last_seqs([ann, bob, cat]) == {ann: 4, bob: 5, cat: 2}
        assert (await read_inbox(store, bob))[0] == first

    @ensureDeferred
    async def test_a_refused_draft_uses_neither_a_seq_nor_its_key(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        await store.block(bob, ann)
        # The first draft with a key that is not refused is stored.
        found = await store.append(
            [
                draft(ann, bob, "x", "key"),
                draft(ann, cat, "y", "key"),
                draft(ann, cat, "y", "key"),
                draft(ann, bob, "z", "other"),
            ]
        )
        assert isinstance(found[0], Blocked)
        assert found[2] == Appended(appended(found[1]), True)
        assert isinstance(found[3], Blocked)
        await store.unblock(bob, ann)
        assert (await send(store, ann, bob, "anything", "other")).seq == 1

    @ensureDeferred
    async def test_replays_are_answered_to_a_blocked_sender(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        first = await send(store, ann, bob, "once", "key")
        await store.block(bob, ann)
        found = await store.append([draft(ann, bob, "once", "key"), draft(ann, bob, "x", "key")])
        assert found[0] == Appended(first, True)
        assert isinstance(found[1], IdempotencyKeyReused)

    @ensureDeferred
    async def test_a_block_can_be_undone_and_made_again(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        for turn in range(1, 4):
            for _ in range(2):
                await store.block(bob, ann)
            [refused] = await store.append([Draft(ann, bob, "x")])
            assert isinstance(refused, Blocked)
            for _ in range(2):
                await store.unblock(bob, ann)
            assert (await send(store, ann, bob, "x")).seq == turn

    @ensureDeferred
    async def test_blocks_are_listed_by_name_without_deleted_accounts(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, zoe, bob, cat, dan = await add_accounts(store, "ann", "zoe", "Bob", "cat", "dan")
        assert await blocked(store, ann) == []
        for each in (zoe, cat, bob, dan):
            await store.block(ann, each)
        await store.block(bob, ann)
        await store.delete_account(cat)
        await store.unblock(ann, dan)
        assert await blocked(store, ann) == [BlockedUser(bob, "Bob"), BlockedUser(zoe, "zoe")]
        assert await blocked(store, bob) == [BlockedUser(ann, "ann")]
        assert await blocked(store, 4711) == []

    @ensureDeferred
    async def test_blocks_are_encoded_as_everything_else_is(self, open_store: OpenStore) -> None:
        store = await open_store()
        names = [*("a.b", "Z_9", "z-10", "A", "n" * 32), *(f"n{each}" for each in range(20))]
        ann, *others = await add_accounts(store, "ann", *names)
        for each in others:
            await store.block(ann, each)
        users = [BlockedUser(*each) for each in zip(others, names, strict=True)]
        users.sort(key=lambda each: each.username.lower())
        expected = EncodedRows(len(users), msgspec.json.encode(users).decode("utf-8"))
        assert await store.blocks(ann) == expected
        assert await store.blocks(others[0]) == EncodedRows(0, "[]")

    @ensureDeferred
    async def test_unknown_accounts_cannot_be_blocked(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await store.delete_account(bob)
        for unknown in (bob, 4711, MAX_INTEGER):
            with pytest.raises(UserNotFound):
                await store.block(ann, unknown)
            await store.unblock(ann, unknown)
            with pytest.raises(UserNotFound):
                await store.block(unknown, ann)
            await store.unblock(unknown, ann)
        with pytest.raises(UserNotFound):
            await store.block(ann, ann)
        assert await blocked(store, ann) == []

    @ensureDeferred
    async def test_the_number_of_blocks_is_limited(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("chatd.store.sqlite.contacts", "chatd.store.postgres.contacts"):
            monkeypatch.setattr(f"{module}.MAX_BLOCKS", 2)
        monkeypatch.setattr(results, "MAX_BLOCKS", 2)
        store = await open_store()
        ann, bob, cat, dan = await add_accounts(store, "ann", "bob", "cat", "dan")
        await store.block(ann, bob)
        await store.block(ann, cat)
        with pytest.raises(TooManyBlocks):
            await store.block(ann, dan)
        await store.block(ann, cat)
        await store.unblock(ann, bob)
        await store.block(ann, dan)
        assert [each.user_id for each in await blocked(store, ann)] == [cat, dan]

    @ensureDeferred
    async def test_blocks_are_kept_when_the_store_is_reopened(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        await store.block(bob, ann)
        await store.close()
        store = await open_store()
        found = await store.append([Draft(ann, bob, "x"), Draft(cat, bob, "y")])
        assert isinstance(found[0], Blocked)
        assert appended(found[1]).seq == 1

    @ensureDeferred
    async def test_blocks_go_with_the_account_that_made_them(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await store.block(ann, bob)
        await store.delete_account(ann)
        await store.close()
        store = await open_store()
        assert await blocked(store, ann) == []
        [result] = await store.append([Draft(bob, ann, "x")])
        assert isinstance(result, UserNotFound)

    @ensureDeferred
    async def test_nothing_is_appended_after_a_block_has_succeeded(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        for turn in range(examples(5, deep=15)):
            calls = [
                store.append([Draft(ann, bob, f"{turn}.{n}"), draft(cat, bob, "x", f"{turn}.{n}")])
                for n in range(4)
            ]
            blocking = store.block(bob, ann)
            calls += [store.append([Draft(ann, bob, "x"), Draft(cat, bob, "x")]) for _ in range(4)]
            await blocking
            [end] = (await store.last_seqs([bob])).values()
            later, other = await store.append([Draft(ann, bob, "x"), Draft(cat, bob, "x")])
            assert isinstance(later, Blocked)
            assert appended(other).seq > end
            for refused, accepted in await gatherResults(calls):
                assert isinstance(refused, Blocked | Appended)
                assert isinstance(accepted, Appended)
            from_ann = [each.seq for each in await read_inbox(store, bob) if each.sent_by == ann]
            assert max(from_ann, default=0) <= end
            await store.unblock(bob, ann)


class FirstContactContract:
    """Stores where nobody may write first."""

    @ensureDeferred
    async def test_only_those_who_have_written_to_each_other_may_write(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat, dan = await add_accounts(store, "ann", "bob", "cat", "dan")
        await send(store, ann, bob, "hello")
        await send(store, cat, dan, "hello")
        # Far back, so that it is only found by an index.
        await send_many(store, dan, bob, 300)
        await store.close()
        store = await open_store(known_only=True)
        pairs = {(ann, bob), (bob, ann), (cat, dan), (dan, cat), (dan, bob), (bob, dan)}
        everybody = (ann, bob, cat, dan)
        drafts = [Draft(one, two, "x") for one in everybody for two in everybody]
        for each, result in zip(drafts, await store.append(drafts), strict=True):
            if each.sent_by == each.received_by or (each.sent_by, each.received_by) in pairs:
                assert appended(result).text == "x"
            else:
                assert isinstance(result, FirstContactClosed)
        [unknown] = await store.append([Draft(ann, 4711, "x")])
        assert isinstance(unknown, UserNotFound)

    @ensureDeferred
    async def test_replays_and_blocks_come_first_and_no_key_is_used_up(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        first = await send(store, ann, bob, "hello", "key")
        await store.block(cat, ann)
        await store.block(bob, ann)
        await store.close()
        store = await open_store(known_only=True)
        found = await store.append(
            [
                draft(ann, bob, "hello", "key"),
                draft(ann, cat, "x", "other"),
                draft(bob, cat, "y", "key"),
                draft(bob, ann, "z", "key"),
                draft(bob, ann, "z", "key"),
            ]
        )
        assert found[0] == Appended(first, True)
        assert isinstance(found[1], Blocked)
        assert isinstance(found[2], FirstContactClosed)
        assert found[4] == Appended(appended(found[3]), True)
