"""The ends of inboxes in memory say what the database would say, or nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatd.model import InboxSlice, Message, ReadAfter, ReadPage
from chatd.store import inbox_cache
from chatd.store.inbox_cache import LENGTH, InboxCache


def message(user_id: int, seq: int, text: str = "hai") -> Message:
    return Message(user_id, seq, 9, 1_000_000 * seq, text)


def commit(kept: InboxCache, *messages: Message) -> None:
    """A commit that nothing came between."""
    ticket = kept.asked()
    kept.committed(ticket, messages)
    kept.answered(ticket)


def read(kept: InboxCache, query: ReadAfter | ReadPage, last: int) -> None:
    """A read that nothing came between."""
    ticket = kept.asked()
    kept.found(ticket, query, truth(last, query))
    kept.answered(ticket)


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
    kept, last = InboxCache(), start
    for step in steps:
        if isinstance(step, int):
            commit(kept, *(message(1, last + number) for number in range(1, step + 1)))
            last += step
            continue
        answer = kept.answer(step)
        assert answer is None or answer == truth(last, step)
        read(kept, step, last)
        assert kept.answer(ReadAfter(1, last, 10)) == InboxSlice(last, ())


def test_nothing_is_known_of_an_inbox_that_was_never_used() -> None:
    assert InboxCache().answer(ReadAfter(1, None, 10)) is None


def test_the_newest_messages_are_kept_and_older_ones_are_not() -> None:
    kept = InboxCache()
    commit(kept, *(message(1, seq) for seq in range(1, LENGTH + 2)))
    assert kept.answer(ReadAfter(1, 1, 100)) == truth(LENGTH + 1, ReadAfter(1, 1, 100))
    assert kept.answer(ReadAfter(1, 0, 100)) is None


def test_a_read_that_saw_a_commit_first_is_believed() -> None:
    # Its messages are visible in the database before the writer's word of them arrives.
    kept = InboxCache()
    commit(kept, message(1, 1))
    query = ReadAfter(1, 0, 10)
    read(kept, query, 2)
    commit(kept, message(1, 2))
    assert kept.answer(query) == truth(2, query)


def test_an_older_read_does_not_take_a_commit_back() -> None:
    kept = InboxCache()
    query = ReadAfter(1, 0, 10)
    ticket = kept.asked()
    late = truth(1, query)
    commit(kept, message(1, 1), message(1, 2))
    kept.found(ticket, query, late)
    assert kept.answer(query) == truth(2, query)


def test_a_commit_behind_a_gap_starts_anew() -> None:
    kept = InboxCache()
    commit(kept, message(1, 1), message(1, 5))
    assert kept.answer(ReadAfter(1, 4, 10)) == InboxSlice(5, (message(1, 5),))
    assert kept.answer(ReadAfter(1, 3, 10)) is None


def test_a_read_that_began_before_an_inbox_went_does_not_bring_it_back() -> None:
    kept = InboxCache()
    commit(kept, message(1, 1))
    ticket = kept.asked()
    kept.drop(1)
    query = ReadAfter(1, 0, 10)
    kept.found(ticket, query, truth(1, query))
    kept.answered(ticket)
    assert kept.answer(query) is None


def test_a_commit_that_began_before_an_inbox_went_does_not_bring_it_back() -> None:
    kept = InboxCache()
    ticket = kept.asked()
    kept.drop(1)
    kept.committed(ticket, [message(1, 1), message(2, 1)])
    kept.answered(ticket)
    assert kept.answer(ReadAfter(1, 0, 10)) is None
    assert kept.answer(ReadAfter(2, 0, 10)) == InboxSlice(1, (message(2, 1),))


def test_a_read_that_began_before_a_tail_made_room_does_not_bring_an_older_one_back() -> None:
    kept = InboxCache()
    ticket = kept.asked()
    query = ReadAfter(1, 0, 10)
    late = truth(0, query)
    commit(kept, message(1, 1))
    large = "x" * (inbox_cache.BYTES // 2)
    commit(kept, message(2, 1, large))
    kept.found(ticket, query, late)
    kept.answered(ticket)
    assert kept.answer(query) is None


def test_what_is_asked_after_a_drop_is_believed_though_older_questions_are_open() -> None:
    kept = InboxCache()
    before = kept.asked()
    commit(kept, message(1, 1))
    kept.drop(1)
    after = kept.asked()
    query = ReadAfter(1, 0, 10)
    kept.found(before, query, truth(1, query))
    assert kept.answer(query) is None
    kept.found(after, query, truth(2, query))
    assert kept.answer(query) == truth(2, query)
    kept.answered(after)
    kept.drop(1)
    kept.found(before, query, truth(1, query))
    kept.answered(before)
    assert kept.answer(query) is None
    read(kept, query, 3)
    assert kept.answer(query) == truth(3, query)


def test_drops_are_forgotten_with_the_last_question_that_is_as_old() -> None:
    kept = InboxCache()
    oldest = kept.asked()
    kept.drop(1)
    newest = kept.asked()
    kept.drop(2)
    kept.drop(1)
    kept.drop(3)
    assert kept.remembered_drops == 3
    kept.answered(oldest)
    assert kept.remembered_drops == 3
    kept.answered(newest)
    assert kept.remembered_drops == 0


def test_a_read_is_believed_of_an_inbox_that_is_there_whatever_else_went() -> None:
    # Otherwise a client could be told of seq 2 by the read and of seq 1 from here.
    kept = InboxCache()
    commit(kept, message(1, 1))
    ticket = kept.asked()
    kept.drop(2)
    query = ReadAfter(1, 0, 10)
    kept.found(ticket, query, truth(2, query))
    assert kept.answer(query) == truth(2, query)


def test_what_was_asked_before_everything_was_cleared_is_not_believed() -> None:
    kept = InboxCache()
    commit(kept, message(1, 1), message(2, 1))
    ticket = kept.asked()
    kept.clear()
    query = ReadAfter(1, 0, 10)
    kept.found(ticket, query, truth(1, query))
    kept.committed(ticket, [message(2, 2)])
    kept.answered(ticket)
    assert kept.answer(query) is None
    assert kept.answer(ReadAfter(2, 1, 10)) is None
    read(kept, query, 2)
    assert kept.answer(query) == truth(2, query)


def test_what_others_committed_continues_a_tail() -> None:
    kept = InboxCache()
    commit(kept, message(1, 1))
    kept.told(message(1, 2))
    kept.told(message(2, 7))
    assert kept.answer(ReadAfter(1, 0, 10)) == truth(2, ReadAfter(1, 0, 10))
    assert kept.answer(ReadAfter(2, 6, 10)) == InboxSlice(7, (message(2, 7),))
    # The word of an earlier commit of this process's own was overtaken.
    commit(kept, message(2, 6))
    assert kept.answer(ReadAfter(2, 6, 10)) == InboxSlice(7, (message(2, 7),))
    assert kept.answer(ReadAfter(2, 5, 10)) is None


def test_what_others_committed_and_did_not_quote_is_left_to_the_database() -> None:
    kept = InboxCache()
    commit(kept, message(1, 1))
    kept.moved(1, 1)
    assert kept.answer(ReadAfter(1, 0, 10)) == truth(1, ReadAfter(1, 0, 10))
    for user_id in (1, 2):
        kept.moved(user_id, 2)
        assert kept.answer(ReadAfter(user_id, 1, 10)) is None
        assert kept.answer(ReadAfter(user_id, 2, 10)) == InboxSlice(2, ())
        kept.told(message(user_id, 3))
        assert kept.answer(ReadAfter(user_id, 2, 10)) == InboxSlice(3, (message(user_id, 3),))


def test_memory_is_bounded_and_the_longest_unused_go_first() -> None:
    kept = InboxCache()
    large = "x" * (inbox_cache.BYTES // 10)
    for user_id in range(1, 9):
        commit(kept, message(user_id, 1, large))
    assert kept.answer(ReadAfter(1, 0, 10)) is None
    assert kept.answer(ReadAfter(8, 0, 10)) is not None


def test_a_replaced_or_forgotten_tail_gives_its_room_back() -> None:
    kept = InboxCache()
    large = "x" * (inbox_cache.BYTES // 5)
    for seq in range(1, 30, 2):
        commit(kept, message(1, seq, large))
    kept.drop(1)
    commit(kept, message(2, 1, large))
    assert kept.answer(ReadAfter(2, 0, 10)) is not None


def test_an_inbox_of_which_nothing_is_certain_is_left_to_the_database() -> None:
    kept = InboxCache()
    commit(kept, message(1, 1))
    kept.drop(1)
    assert kept.answer(ReadAfter(1, 0, 10)) is None
