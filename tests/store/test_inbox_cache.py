"""The ends of inboxes in memory say what the database would say, or nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatd.model import InboxSlice, Message, ReadAfter, ReadPage
from chatd.store import inbox_cache
from chatd.store.inbox_cache import TAIL_LENGTH, InboxCache


def message(user_id: int, seq: int, text: str = "hai") -> Message:
    return Message(user_id, seq, 9, 1_000_000 * seq, text)


def commit(cache: InboxCache, *messages: Message) -> None:
    """A commit that nothing came between."""
    ticket = cache.begin_query()
    cache.apply_commit(ticket, messages)
    cache.end_query(ticket)


def read(cache: InboxCache, query: ReadAfter | ReadPage, last: int) -> None:
    """A read that nothing came between."""
    ticket = cache.begin_query()
    cache.apply_read(ticket, query, truth(last, query))
    cache.end_query(ticket)


def truth(last: int, query: ReadAfter | ReadPage) -> InboxSlice:
    """What an inbox with messages 1 to `last` answers."""
    inbox = [message(query.user_id, seq) for seq in range(1, last + 1)]
    if isinstance(query, ReadAfter):
        after = last if query.seq is None else query.seq
        return InboxSlice(last, tuple(inbox[after:][: query.limit]))
    end = last if query.at is None else query.at
    newest = end - (query.page - 1) * query.limit
    if newest <= 0 or end > last:
        return InboxSlice(last, ())
    return InboxSlice(last, tuple(inbox[max(newest - query.limit, 0) : newest][::-1]))


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
def test_an_answer_is_the_one_of_the_database(
    start: int, steps: list[int | ReadAfter | ReadPage]
) -> None:
    cache, last = InboxCache(), start
    for step in steps:
        if isinstance(step, int):
            commit(cache, *(message(1, last + number) for number in range(1, step + 1)))
            last += step
            continue
        answer = cache.get(step)
        assert answer is None or answer == truth(last, step)
        read(cache, step, last)
        assert cache.get(ReadAfter(1, last, 10)) == InboxSlice(last, ())


def test_nothing_is_known_of_an_inbox_that_was_never_used() -> None:
    assert InboxCache().get(ReadAfter(1, None, 10)) is None


def test_the_newest_messages_are_kept_and_older_ones_are_not() -> None:
    cache = InboxCache()
    commit(cache, *(message(1, seq) for seq in range(1, TAIL_LENGTH + 2)))
    assert cache.get(ReadAfter(1, 1, 100)) == truth(TAIL_LENGTH + 1, ReadAfter(1, 1, 100))
    assert cache.get(ReadAfter(1, 0, 100)) is None


def test_a_read_that_saw_a_commit_first_is_believed() -> None:
    # Its messages are visible in the database before the writer's word of them arrives.
    cache = InboxCache()
    commit(cache, message(1, 1))
    query = ReadAfter(1, 0, 10)
    read(cache, query, 2)
    commit(cache, message(1, 2))
    assert cache.get(query) == truth(2, query)


def test_an_older_read_does_not_take_a_commit_back() -> None:
    cache = InboxCache()
    query = ReadAfter(1, 0, 10)
    ticket = cache.begin_query()
    late = truth(1, query)
    commit(cache, message(1, 1), message(1, 2))
    cache.apply_read(ticket, query, late)
    assert cache.get(query) == truth(2, query)


def test_a_commit_behind_a_gap_starts_anew() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1), message(1, 5))
    assert cache.get(ReadAfter(1, 4, 10)) == InboxSlice(5, (message(1, 5),))
    assert cache.get(ReadAfter(1, 3, 10)) is None


def test_a_read_that_began_before_an_inbox_went_does_not_bring_it_back() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1))
    ticket = cache.begin_query()
    cache.drop(1)
    query = ReadAfter(1, 0, 10)
    cache.apply_read(ticket, query, truth(1, query))
    cache.end_query(ticket)
    assert cache.get(query) is None


def test_a_commit_that_began_before_an_inbox_went_does_not_bring_it_back() -> None:
    cache = InboxCache()
    ticket = cache.begin_query()
    cache.drop(1)
    cache.apply_commit(ticket, [message(1, 1), message(2, 1)])
    cache.end_query(ticket)
    assert cache.get(ReadAfter(1, 0, 10)) is None
    assert cache.get(ReadAfter(2, 0, 10)) == InboxSlice(1, (message(2, 1),))


def test_a_read_that_began_before_a_tail_made_room_does_not_bring_an_older_one_back() -> None:
    cache = InboxCache()
    ticket = cache.begin_query()
    query = ReadAfter(1, 0, 10)
    late = truth(0, query)
    commit(cache, message(1, 1))
    large = "x" * (inbox_cache.MAX_BYTES // 2)
    commit(cache, message(2, 1, large))
    cache.apply_read(ticket, query, late)
    cache.end_query(ticket)
    assert cache.get(query) is None


def test_what_is_asked_after_a_drop_is_believed_though_older_questions_are_open() -> None:
    cache = InboxCache()
    before = cache.begin_query()
    commit(cache, message(1, 1))
    cache.drop(1)
    after = cache.begin_query()
    query = ReadAfter(1, 0, 10)
    cache.apply_read(before, query, truth(1, query))
    assert cache.get(query) is None
    cache.apply_read(after, query, truth(2, query))
    assert cache.get(query) == truth(2, query)
    cache.end_query(after)
    cache.drop(1)
    cache.apply_read(before, query, truth(1, query))
    cache.end_query(before)
    assert cache.get(query) is None
    read(cache, query, 3)
    assert cache.get(query) == truth(3, query)


def test_drops_are_forgotten_with_the_last_question_that_is_as_old() -> None:
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


def test_a_read_is_believed_of_an_inbox_that_is_there_whatever_else_went() -> None:
    # Otherwise a client could be told of seq 2 by the read and of seq 1 from here.
    cache = InboxCache()
    commit(cache, message(1, 1))
    ticket = cache.begin_query()
    cache.drop(2)
    query = ReadAfter(1, 0, 10)
    cache.apply_read(ticket, query, truth(2, query))
    assert cache.get(query) == truth(2, query)


def test_what_was_asked_before_everything_was_cleared_is_not_believed() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1), message(2, 1))
    ticket = cache.begin_query()
    cache.clear()
    query = ReadAfter(1, 0, 10)
    cache.apply_read(ticket, query, truth(1, query))
    cache.apply_commit(ticket, [message(2, 2)])
    cache.end_query(ticket)
    assert cache.get(query) is None
    assert cache.get(ReadAfter(2, 1, 10)) is None
    read(cache, query, 2)
    assert cache.get(query) == truth(2, query)


def test_what_others_committed_continues_a_tail() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1))
    cache.apply_remote(message(1, 2))
    cache.apply_remote(message(2, 7))
    assert cache.get(ReadAfter(1, 0, 10)) == truth(2, ReadAfter(1, 0, 10))
    assert cache.get(ReadAfter(2, 6, 10)) == InboxSlice(7, (message(2, 7),))
    # The word of an earlier commit of this process's own was overtaken.
    commit(cache, message(2, 6))
    assert cache.get(ReadAfter(2, 6, 10)) == InboxSlice(7, (message(2, 7),))
    assert cache.get(ReadAfter(2, 5, 10)) is None


def test_what_others_committed_and_did_not_quote_is_left_to_the_database() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1))
    cache.advance(1, 1)
    assert cache.get(ReadAfter(1, 0, 10)) == truth(1, ReadAfter(1, 0, 10))
    for user_id in (1, 2):
        cache.advance(user_id, 2)
        assert cache.get(ReadAfter(user_id, 1, 10)) is None
        assert cache.get(ReadAfter(user_id, 2, 10)) == InboxSlice(2, ())
        cache.apply_remote(message(user_id, 3))
        assert cache.get(ReadAfter(user_id, 2, 10)) == InboxSlice(3, (message(user_id, 3),))


def test_memory_is_bounded_and_the_longest_unused_go_first() -> None:
    cache = InboxCache()
    large = "x" * (inbox_cache.MAX_BYTES // 10)
    for user_id in range(1, 9):
        commit(cache, message(user_id, 1, large))
    assert cache.get(ReadAfter(1, 0, 10)) is None
    assert cache.get(ReadAfter(8, 0, 10)) is not None


def test_a_replaced_or_forgotten_tail_gives_its_room_back() -> None:
    cache = InboxCache()
    large = "x" * (inbox_cache.MAX_BYTES // 5)
    for seq in range(1, 30, 2):
        commit(cache, message(1, seq, large))
    cache.drop(1)
    commit(cache, message(2, 1, large))
    assert cache.get(ReadAfter(2, 0, 10)) is not None


def test_an_inbox_of_which_nothing_is_certain_is_left_to_the_database() -> None:
    cache = InboxCache()
    commit(cache, message(1, 1))
    cache.drop(1)
    assert cache.get(ReadAfter(1, 0, 10)) is None
