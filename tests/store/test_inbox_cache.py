"""Inbox cache: results equal those of the database, also with concurrent queries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd.model import InboxSlice, Message, ReadAfter, ReadPage
from chatd.store import inbox_cache
from chatd.store.inbox_cache import TAIL_LENGTH, InboxCache
from tests import inbox_slices


def message(user_id: int, seq: int, text: str = "hai") -> Message:
    return Message(user_id, seq, 9, 1_000_000 * seq, text)


def commit(cache: InboxCache, *messages: Message) -> None:
    """Apply a commit with no concurrent queries."""
    ticket = cache.begin_query()
    cache.apply_commit(ticket, messages)
    cache.end_query(ticket)


def read(cache: InboxCache, query: ReadAfter | ReadPage, last: int) -> None:
    """Apply a read with no concurrent queries."""
    ticket = cache.begin_query()
    cache.apply_read(ticket, query, expected_slice(last, query))
    cache.end_query(ticket)


def expected_slice(last: int, query: ReadAfter | ReadPage) -> InboxSlice:
    """The correct result for an inbox with messages 1 to `last`."""
    return inbox_slices.expected_slice(
        [message(query.user_id, seq) for seq in range(1, last + 1)], query
    )


after = st.builds(
    ReadAfter, st.just(1), st.none() | st.integers(0, 60), st.sampled_from([1, 2, 10, 100])
)
page = st.builds(
    ReadPage,
    st.just(1),
    st.integers(1, 12),
    st.sampled_from([1, 2, 10, 100]),
    st.none() | st.integers(0, 60),
)
steps = st.lists(st.one_of(st.integers(1, 5), after, page), max_size=40)


@given(start=st.integers(0, 50), steps=steps)
def test_results_equal_those_of_the_database(
    start: int, steps: list[int | ReadAfter | ReadPage]
) -> None:
    cache, last = InboxCache(), start
    for step in steps:
        if isinstance(step, int):
            commit(cache, *(message(1, last + number) for number in range(1, step + 1)))
            last += step
            continue
        cached = cache.get(step)
        assert cached is None or cached == expected_slice(last, step)
        read(cache, step, last)
        end = ReadAfter(1, last, 10)
        if step == end or step == ReadAfter(1, None, step.limit):
            assert cache.get(end) == expected_slice(last, end)


def test_inboxes_that_were_never_used_are_not_cached() -> None:
    assert InboxCache().get(ReadAfter(1, None, 10)) is None


def test_only_the_newest_messages_are_cached() -> None:
    cache = InboxCache()
    commit(cache, *(message(1, seq) for seq in range(1, TAIL_LENGTH + 2)))
    assert cache.get(ReadAfter(1, 1, 100)) == expected_slice(TAIL_LENGTH + 1, ReadAfter(1, 1, 100))
    assert cache.get(ReadAfter(1, 0, 100)) is None


def test_a_read_may_see_a_commit_before_it_is_applied() -> None:
    # Messages are visible in the database before the writer's result arrives.
    cache = InboxCache()
    commit(cache, message(1, 1))
    query = ReadAfter(1, 0, 10)
    read(cache, query, 2)
    commit(cache, message(1, 2))
    assert cache.get(query) == expected_slice(2, query)


def test_an_older_read_does_not_undo_a_commit() -> None:
    cache = InboxCache()
    query = ReadAfter(1, 0, 10)
    ticket = cache.begin_query()
    late = expected_slice(1, query)
    commit(cache, message(1, 1), message(1, 2))
    cache.apply_read(ticket, query, late)
    assert cache.get(query) == expected_slice(2, query)


def test_a_commit_after_a_gap_replaces_the_tail() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1), message(1, 5))
    assert cache.get(ReadPage(1, 1, 1)) == expected_slice(5, ReadPage(1, 1, 1))
    assert cache.get(ReadAfter(1, 3, 10)) is None
    # A cursor before its first message cannot be verified until a read says what was there.
    query = ReadAfter(1, 4, 10)
    assert cache.get(query) is None
    read(cache, query, 5)
    assert cache.get(query) == expected_slice(5, query)


def test_a_read_that_began_before_a_drop_is_ignored() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1))
    ticket = cache.begin_query()
    cache.drop(1)
    query = ReadAfter(1, 0, 10)
    cache.apply_read(ticket, query, expected_slice(1, query))
    cache.end_query(ticket)
    assert cache.get(query) is None


def test_a_commit_that_began_before_a_drop_is_ignored() -> None:
    cache = InboxCache()
    ticket = cache.begin_query()
    cache.drop(1)
    cache.apply_commit(ticket, [message(1, 1), message(2, 1)])
    cache.end_query(ticket)
    assert cache.get(ReadAfter(1, 0, 10)) is None
    assert cache.get(ReadAfter(2, 0, 10)) == InboxSlice(1, (message(2, 1),))


def test_a_read_that_does_not_see_an_ignored_commit_is_ignored() -> None:
    cache = InboxCache()
    appending = cache.begin_query()
    cache.drop(1)
    reading = cache.begin_query()
    # The read ran before the commit, and its result comes after that of the commit was returned.
    query = ReadAfter(1, 0, 10)
    late = expected_slice(3, query)
    cache.apply_commit(appending, [message(1, 4)])
    cache.end_query(appending)
    cache.apply_read(reading, query, late)
    cache.end_query(reading)
    assert cache.get(query) is None
    read(cache, query, 4)
    assert cache.get(query) == expected_slice(4, query)


def test_a_read_that_began_before_an_eviction_is_ignored() -> None:
    cache = InboxCache()
    ticket = cache.begin_query()
    query = ReadAfter(1, 0, 10)
    late = expected_slice(0, query)
    commit(cache, message(1, 1))
    large = "x" * (inbox_cache.MAX_BYTES // 2)
    commit(cache, message(2, 1, large))
    cache.apply_read(ticket, query, late)
    cache.end_query(ticket)
    assert cache.get(query) is None


def test_a_read_that_began_after_a_drop_is_applied_while_older_ones_run() -> None:
    cache = InboxCache()
    before = cache.begin_query()
    commit(cache, message(1, 1))
    cache.drop(1)
    after = cache.begin_query()
    query = ReadAfter(1, 0, 10)
    cache.apply_read(before, query, expected_slice(1, query))
    assert cache.get(query) is None
    cache.apply_read(after, query, expected_slice(2, query))
    assert cache.get(query) == expected_slice(2, query)
    cache.end_query(after)
    cache.drop(1)
    cache.apply_read(before, query, expected_slice(1, query))
    cache.end_query(before)
    assert cache.get(query) is None
    read(cache, query, 3)
    assert cache.get(query) == expected_slice(3, query)


def test_drops_are_remembered_only_while_older_queries_run() -> None:
    cache = InboxCache()
    oldest = cache.begin_query()
    cache.drop(1)
    newest = cache.begin_query()
    cache.drop(2)
    cache.drop(1)
    cache.drop(3)
    assert len(cache._dropped) == 3
    cache.end_query(oldest)
    assert len(cache._dropped) == 3
    cache.end_query(newest)
    assert len(cache._dropped) == 0


def test_a_drop_does_not_affect_reads_of_other_inboxes() -> None:
    # Otherwise the read could return seq 2 and the cache, afterwards, seq 1.
    cache = InboxCache()
    commit(cache, message(1, 1))
    ticket = cache.begin_query()
    cache.drop(2)
    query = ReadAfter(1, 0, 10)
    cache.apply_read(ticket, query, expected_slice(2, query))
    assert cache.get(query) == expected_slice(2, query)


def test_queries_that_began_before_a_clear_are_ignored() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1), message(2, 1))
    ticket = cache.begin_query()
    cache.clear()
    query = ReadAfter(1, 0, 10)
    cache.apply_read(ticket, query, expected_slice(1, query))
    cache.apply_commit(ticket, [message(2, 2)])
    cache.end_query(ticket)
    assert cache.get(query) is None
    assert cache.get(ReadAfter(2, 1, 10)) is None
    read(cache, query, 2)
    assert cache.get(query) == expected_slice(2, query)


def test_messages_of_other_processes_extend_the_tail() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1))
    cache.apply_remote(message(1, 2))
    cache.advance(2, 6, message(2, 6).sent_at)
    cache.apply_remote(message(2, 7))
    assert cache.get(ReadAfter(1, 0, 10)) == expected_slice(2, ReadAfter(1, 0, 10))
    assert cache.get(ReadAfter(2, 6, 10)) == expected_slice(7, ReadAfter(2, 6, 10))
    # The result of an earlier commit of this process arrives late.
    commit(cache, message(2, 6))
    assert cache.get(ReadAfter(2, 6, 10)) == expected_slice(7, ReadAfter(2, 6, 10))
    assert cache.get(ReadAfter(2, 5, 10)) is None


def test_messages_of_unknown_text_are_left_to_the_database() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1))
    cache.advance(1, 1, None)
    assert cache.get(ReadAfter(1, 0, 10)) == expected_slice(1, ReadAfter(1, 0, 10))
    for user_id in (1, 2):
        cache.advance(user_id, 2, message(user_id, 2).sent_at)
        assert cache.get(ReadAfter(user_id, 1, 10)) is None
        query = ReadAfter(user_id, 2, 10)
        assert cache.get(query) == expected_slice(2, query)
        cache.apply_remote(message(user_id, 3))
        assert cache.get(query) == expected_slice(3, query)
    # Notices of an older version do not tell the time.
    cache.advance(3, 2, None)
    assert cache.get(ReadAfter(3, 2, 10)) is None


def test_the_cache_is_cleared_if_the_database_was_set_back() -> None:
    other = Message(1, 2, 9, 7, "another")
    query = ReadAfter(1, 0, 10)
    cache = InboxCache()
    for found in (
        InboxSlice(2, (message(1, 1), other)),
        InboxSlice(1, (Message(1, 1, 9, 7, "x"),)),
    ):
        commit(cache, message(2, 1), message(1, 1), message(1, 2), message(1, 3))
        ticket = cache.begin_query()
        cache.apply_read(ticket, query, found)
        cache.end_query(ticket)
        assert cache.get(query) is None
        assert cache.get(ReadAfter(2, 0, 10)) is None
    commit(cache, message(1, 1), message(1, 2), message(1, 3))
    commit(cache, message(1, 2))
    assert cache.get(query) is not None
    commit(cache, other)
    assert cache.get(query) is None


def test_the_cache_is_bounded_and_evicts_the_oldest_inboxes() -> None:
    cache = InboxCache()
    large = "x" * (inbox_cache.MAX_BYTES // 10)
    for user_id in range(1, 9):
        commit(cache, message(user_id, 1, large))
    assert cache.get(ReadAfter(1, 0, 10)) is None
    assert cache.get(ReadAfter(8, 0, 10)) is not None


def test_replaced_and_dropped_tails_free_their_space() -> None:
    cache = InboxCache()
    large = "x" * (inbox_cache.MAX_BYTES // 5)
    for seq in range(1, 30, 2):
        commit(cache, message(1, seq, large))
    cache.drop(1)
    commit(cache, message(2, 1, large))
    assert cache.get(ReadAfter(2, 0, 10)) is not None


def test_a_dropped_inbox_is_left_to_the_database() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1))
    cache.drop(1)
    assert cache.get(ReadAfter(1, 0, 10)) is None


def test_a_query_that_began_before_a_revision_may_be_older() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1), message(2, 1))
    before = cache.begin_query()
    cache.drop_revised(1)
    after = cache.begin_query()
    assert cache.may_be_older(before, [2, 1])
    assert not cache.may_be_older(before, [2])
    assert not cache.may_be_older(after, [1, 2])
    # What it has read is not cached.
    cache.apply_read(before, ReadAfter(1, 0, 10), InboxSlice(1, (message(1, 1),)))
    assert cache.get(ReadAfter(1, 0, 10)) is None
    assert cache.get(ReadAfter(2, 0, 10)) == InboxSlice(1, (message(2, 1),))
    new = message(1, 1, "new")
    cache.apply_read(after, ReadAfter(1, 0, 10), InboxSlice(1, (new,)))
    assert cache.get(ReadAfter(1, 0, 10)) == InboxSlice(1, (new,))
    cache.end_query(before)
    cache.end_query(after)
    # Nothing is remembered for longer than queries run.
    assert not cache._revised
    cache.drop_revised(1)
    assert not cache._revised


def test_a_query_that_began_before_the_cache_was_cleared_may_be_older() -> None:
    cache = InboxCache()
    before = cache.begin_query()
    cache.clear()
    after = cache.begin_query()
    assert cache.may_be_older(before, [1])
    assert not cache.may_be_older(after, [1])


def cached(cache: InboxCache, seq: int) -> InboxSlice | None:
    return cache.get(ReadAfter(1, seq, 10))


def expected(last: int, seq: int) -> InboxSlice:
    return expected_slice(last, ReadAfter(1, seq, 10))


def test_messages_that_are_told_of_in_any_order_only_extend_what_is_cached() -> None:
    cache = InboxCache()
    cache.extend(message(1, 3))
    assert cached(cache, 2) is None
    read(cache, ReadAfter(1, 0, 10), 3)
    cache.extend(message(1, 4))
    assert cached(cache, 3) == expected(4, 3)
    # The one before comes later.
    cache.extend(message(1, 6))
    cache.extend(message(1, 5))
    assert cached(cache, 6) == expected(6, 6)
    assert cached(cache, 4) is None
    cache.extend_end(1, 5, message(1, 5).sent_at)
    assert cached(cache, 6) == expected(6, 6)
    cache.extend_end(1, 7, message(1, 7).sent_at)
    assert cached(cache, 6) is None
    assert cached(cache, 7) == expected(7, 7)
    cache.extend_end(1, 8, None)
    assert cached(cache, 8) is None


def test_a_revision_may_be_told_of_before_its_message() -> None:
    cache = InboxCache()
    read(cache, ReadAfter(1, 0, 10), 3)
    cache.drop_revised(1)
    cache.extend(message(1, 4, "the former text"))
    assert cached(cache, 3) is None


@pytest.mark.parametrize("with_text", [True, False])
def test_a_read_is_older_than_what_is_told_meanwhile(with_text: bool) -> None:
    cache = InboxCache()
    ticket = cache.begin_query()
    if with_text:
        cache.extend(message(1, 4))
    else:
        cache.extend_end(1, 4, None)
    query = ReadAfter(1, 0, 10)
    cache.apply_read(ticket, query, expected(3, 0))
    cache.end_query(ticket)
    assert cached(cache, 3) is None
    read(cache, query, 4)
    assert cached(cache, 4) == expected(4, 4)
