"""Contract of `IStore`: reading inboxes, from the database and from memory."""

from __future__ import annotations

from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from chatd.model import (
    MAX_INTEGER,
    Draft,
    InboxSlice,
    Message,
    ReadAfter,
    ReadPage,
)
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    appended,
    page_of,
    send,
    send_many,
)
from tests.examples import examples
from tests.inbox_slices import expected_slice, stamp_at


class ReadContract:
    """Reading with `read`."""

    @ensureDeferred
    async def test_reading_after_a_seq_returns_later_messages_oldest_first(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 12)
        for seq in range(12):
            for limit in (1, 3, 11, 12, 13, 100):
                query = ReadAfter(bob, seq, limit)
                assert await store.read([query]) == [expected_slice(sent, query)]

    @ensureDeferred
    async def test_reading_after_the_last_seq_returns_nothing(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 3)
        for seq in (3, None):
            end = InboxSlice(3, (), sent[2].sent_at)
            assert await store.read([ReadAfter(bob, seq, 100)]) == [end]
        for seq in (4, 100, MAX_INTEGER):
            assert await store.read([ReadAfter(bob, seq, 100)]) == [InboxSlice(3, (), None)]

    @ensureDeferred
    async def test_an_empty_inbox_exists(self, open_store: OpenStore) -> None:
        store = await open_store()
        [ann] = await add_accounts(store, "ann")
        queries: list[ReadAfter | ReadPage] = [
            ReadAfter(ann, 0, 1),
            ReadAfter(ann, None, 100),
            ReadAfter(ann, 5, 100),
            ReadPage(ann, 1, 10),
            ReadPage(ann, 2, 10),
            ReadPage(ann, 1, 10, 0),
            ReadPage(ann, 1, 10, 1),
        ]
        assert await store.read(queries) == [expected_slice([], each) for each in queries]

    @ensureDeferred
    async def test_pages_are_newest_first_at_any_depth(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 253)
        for limit in (1, 7, 10, 100):
            deepest = -(-253 // limit)
            pages = {1, 2, 3, deepest // 2, deepest - 1, deepest, deepest + 1, MAX_INTEGER}
            queries = [ReadPage(bob, page, limit) for page in sorted(pages - {0})]
            assert await store.read(queries) == [expected_slice(sent, query) for query in queries]

    @ensureDeferred
    async def test_a_pinned_page_does_not_change_when_messages_arrive(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 25)
        for arrived in range(25, 28):
            for page in (1, 2, 3, 4):
                for at in (0, 1, 9, 10, 11, 24, 25):
                    [found] = await store.read([ReadPage(bob, page, 10, at)])
                    pinned = page_of(sent[:at], page, 10)
                    assert found == InboxSlice(arrived, pinned, stamp_at(sent, at))
            await send(store, ann, bob, "more")

    @ensureDeferred
    async def test_a_page_pinned_beyond_the_end_is_empty(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await send_many(store, ann, bob, 25)
        for at in (26, 30, 35, 1000, MAX_INTEGER):
            for page in (1, 2, 3, 98, MAX_INTEGER):
                query = ReadPage(bob, page, 10, at)
                assert await store.read([query]) == [InboxSlice(25, (), None)]

    @ensureDeferred
    async def test_one_call_reads_many_inboxes_in_order(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await add_accounts(store, *(f"user{number}" for number in range(60)))
        sent = {
            each: await send_many(store, ids[0], each, index % 7) for index, each in enumerate(ids)
        }
        await store.delete_account(ids[30])
        queries: list[ReadAfter | ReadPage] = []
        expected: list[InboxSlice | None] = []
        for index, each in enumerate([*reversed(ids), 4711, *ids]):
            messages = sent.get(each, [])
            deleted = each in (ids[30], 4711)
            query = ReadAfter(each, 2, 3) if index % 2 else ReadPage(each, 2, 3)
            queries.append(query)
            expected.append(None if deleted else expected_slice(messages, query))
        assert await store.read(queries) == expected

    @ensureDeferred
    async def test_a_call_may_contain_the_same_query_several_times(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 3)
        queries: list[ReadAfter | ReadPage] = [ReadAfter(bob, 1, 5)] * 3
        queries += [ReadPage(bob, 1, 5)] * 3
        assert await store.read(queries) == [expected_slice(sent, each) for each in queries]

    @ensureDeferred
    async def test_many_large_results_are_complete(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await store.append([Draft(ann, bob, f"{number:03}" * 1000) for number in range(300)])
        found = await store.read([ReadAfter(bob, start, 100) for start in range(0, 300, 20)])
        for start, each in zip(range(0, 300, 20), found, strict=True):
            assert each is not None
            assert [message.text[:3] for message in each.messages] == [
                f"{number:03}" for number in range(start, min(start + 100, 300))
            ]

    @ensureDeferred
    async def test_acknowledged_messages_are_visible_to_the_next_read(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent: list[Message] = []
        for number in range(1, examples(16, deep=31)):
            sent.append(await send(store, ann, bob, f"{number}"))
            query = ReadAfter(bob, number - 1, 10)
            assert await store.read([query]) == [expected_slice(sent, query)]
            assert await store.last_seqs([bob]) == {bob: number}

    @ensureDeferred
    async def test_slices_of_one_call_are_consistent_while_messages_arrive(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        writes, reads = [], []
        for number in range(examples(20, deep=40)):
            # One transaction: its messages become visible in all inboxes at the same time.
            writes.append(store.append([Draft(ann, each, f"{number}") for each in (ann, bob, cat)]))
            reads.append(
                store.read(
                    [
                        ReadAfter(ann, 0, 100),
                        ReadPage(bob, 1, 100),
                        ReadAfter(cat, None, 1),
                        ReadAfter(bob, 5, 100),
                    ]
                )
            )
        await gatherResults(writes)
        for read in reads:
            after, page, end, later = await read
            assert after is not None
            assert page is not None
            assert end is not None
            assert later is not None
            last = page.last_seq
            assert last == later.last_seq
            found = {(store.lane(bob), last)}
            found |= {(store.lane(ann), after.last_seq), (store.lane(cat), end.last_seq)}
            # One snapshot of each lane.
            assert len(found) == len({store.lane(each) for each in (ann, bob, cat)})
            assert [message.seq for message in after.messages] == list(range(1, after.last_seq + 1))
            assert [message.seq for message in page.messages] == list(range(last, 0, -1))
            assert [message.seq for message in later.messages] == list(range(6, last + 1))
            assert end.messages == ()

    @ensureDeferred
    async def test_messages_never_appear_before_ones_that_were_read(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        known: list[Message] = []
        count = examples(25, deep=50)
        writes = [store.append([Draft(ann, bob, f"{number}")]) for number in range(count)]
        while len(known) < count:
            [found] = await store.read([ReadAfter(bob, 0, 100)])
            assert found is not None
            # Since messages are numbered in order of commit, no earlier one can appear later.
            assert list(found.messages[: len(known)]) == known
            known = list(found.messages)
        await gatherResults(writes)


class CachedReadContract:
    """Reading with `read_cached`."""

    @ensureDeferred
    async def test_cached_results_equal_those_of_a_read(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
        await send_many(store, ann, bob, 45)
        seqs = (0, 1, 20, 43, 44, 45, 46, 100, None)
        queries: list[ReadAfter | ReadPage] = []
        for user_id in (ann, bob, cat, 4711):
            queries += [ReadAfter(user_id, seq, limit) for seq in seqs for limit in (1, 3, 100)]
            for limit in (1, 10, 100):
                for page in (1, 2, 5, 6, MAX_INTEGER):
                    queries += [ReadPage(user_id, page, limit, at) for at in seqs]
        for _ in range(examples(2, deep=3)):
            # A few at a time, so that what one reads may be what another one finds.
            for start in range(0, len(queries), 8):
                some = queries[start : start + 8]
                known = [store.read_cached(query) for query in some]
                for query, before, found in zip(some, known, await store.read(some), strict=True):
                    assert before is None or before == found
                    assert store.read_cached(query) in (None, found)
            await send(store, ann, bob, "one more")

    @ensureDeferred
    async def test_cached_results_are_never_older_than_returned_ones(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")

        def check_append(results: list[Any]) -> None:
            for result in results:
                seq = appended(result).seq
                known = store.read_cached(ReadAfter(bob, seq - 1, 1))
                assert known is None or known.messages == (appended(result),)
                assert known is None or known.last_seq >= seq

        def check_reads(inboxes: list[InboxSlice | None]) -> None:
            for returned in inboxes:
                assert returned is not None
                known = store.read_cached(ReadAfter(bob, None, 1))
                assert known is None or known.last_seq >= returned.last_seq

        calls: list[Deferred[Any]] = []
        for number in range(examples(30, deep=60)):
            drafts = [Draft(ann, bob, f"{number}.{i}") for i in range(number % 3 + 1)]
            calls.append(store.append(drafts).addCallback(check_append))
            calls.append(
                store.read([ReadAfter(bob, number, 5), ReadPage(bob, 1, 10)]).addCallback(
                    check_reads
                )
            )
            if number % 10 == 0:
                await calls[-1]
        await gatherResults(calls)

    @ensureDeferred
    async def test_nothing_is_cached_for_a_deleted_account(self, open_store: OpenStore) -> None:
        store = await open_store()
        ids = await add_accounts(store, *(f"user{number}" for number in range(6)))
        for user_id in ids:
            await send_many(store, ids[0], user_id, 3)
            queries: list[ReadAfter | ReadPage]
            queries = [ReadAfter(user_id, 0, 10), ReadPage(user_id, 1, 10)]
            await store.read(queries)
            calls: list[Deferred[Any]] = [store.read(queries) for _ in range(3)]
            calls.append(store.append([Draft(user_id, user_id, "x")]))
            deletion = store.delete_account(user_id)
            calls.append(store.append([Draft(user_id, user_id, "x")]))
            calls += [store.read(queries) for _ in range(3)]
            assert await deletion is True
            assert [store.read_cached(query) for query in queries] == [None, None]
            await gatherResults(calls)
            assert [store.read_cached(query) for query in queries] == [None, None]

    @ensureDeferred
    async def test_cached_results_are_correct_after_a_restart(self, open_store: OpenStore) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        sent = await send_many(store, ann, bob, 3)
        await store.close()
        store = await open_store()
        query = ReadAfter(bob, 0, 10)
        assert store.read_cached(query) in (None, expected_slice(sent, query))
        sent.append(await send(store, ann, bob, "more"))
        assert store.read_cached(query) in (None, expected_slice(sent, query))


class LastSeqsContract:
    """The ends of inboxes."""

    @ensureDeferred
    async def test_last_seqs_are_returned_for_existing_inboxes_only(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob, deleted = await add_accounts(store, "ann", "bob", "deleted")
        await send_many(store, ann, bob, 4)
        await store.delete_account(deleted)
        assert await store.last_seqs([ann, bob, deleted, 4711]) == {ann: 0, bob: 4}
        assert await store.last_seqs({bob}) == {bob: 4}

    @ensureDeferred
    async def test_last_seqs_of_a_thousand_inboxes_are_read_in_one_call(
        self, open_store: OpenStore
    ) -> None:
        store = await open_store()
        ann, bob = await add_accounts(store, "ann", "bob")
        await send_many(store, ann, bob, 2)
        assert await store.last_seqs(range(1, 1001)) == {ann: 0, bob: 2}
