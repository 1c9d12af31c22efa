"""Sending, pages and long polls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail

import chatd.domain.chats
from chatd.domain import send_batcher
from chatd.domain.answer_size import MAX_ANSWER_BYTES
from chatd.domain.batch import MAX_BATCH_SIZE
from chatd.domain.caller_networks import CallerNetworks
from chatd.domain.disk_space import DiskSpace
from chatd.domain.notifier import HELD_PER_USER
from chatd.domain.poll import Polled
from chatd.domain.rate_limits import RateLimits, Rates
from chatd.domain.read_limits import ReadLimits
from chatd.domain.store_calls import StoreCalls
from chatd.errors import (
    CursorEpoch,
    IdempotencyKeyReused,
    InvalidBody,
    MessageTooLarge,
    Overloaded,
    PageNotFound,
    RateLimited,
    StoreUnavailable,
    Unauthorized,
    UserNotFound,
)
from chatd.model import (
    BEGINNING,
    MAX_INTEGER,
    Appended,
    ConversationCursor,
    Cursor,
    Draft,
    Message,
    ReadAfter,
    Session,
    WakeReason,
)
from chatd.rates import Rate
from tests.conftest import LoggedFailures
from tests.doubles import SteppedExecutor, System, cancel, cancelled_everywhere, composed, result_of
from tests.test_metrics import value


def pair(system: System) -> tuple[Session, Session]:
    """Ann (1) and Bob (2)."""
    return system.session("ann"), system.session("bob")


def texts(messages: tuple[Message, ...]) -> list[str]:
    return [message.text for message in messages]


def poll(
    system: System,
    session: Session,
    since: Cursor | None = BEGINNING,
    limit: int = 100,
    wait: float = 30,
) -> Deferred[Polled]:
    """Start a poll; it is then held, or has returned."""
    held = system.start(system.chats.poll(session, since, limit, wait))
    system.settle()
    return held


def cursor(system: System, seq: int, user_id: int = 2) -> Cursor:
    """The cursor at a seq of an inbox; past its end, one without a stamp."""
    [inbox] = system.wait_for(system.store.read([ReadAfter(user_id, seq, 1)]))
    assert inbox is not None
    return Cursor(system.store.epoch, seq, inbox.stamp)


# Sending


def test_a_sent_message_is_in_the_inbox_of_its_recipient(system: System) -> None:
    ann, bob = pair(system)
    outcome = system.run(system.chats.send(ann, 2, "hello"))
    assert outcome == Appended(Message(2, 1, 1, system.now(), "hello"), replayed=False)
    assert texts(system.run(system.chats.page(bob, 1, 10)).messages) == ["hello"]
    assert system.run(system.chats.page(ann, 1, 10)).messages == ()


# PropList.txt of the Unicode Character Database.
WHITE_SPACE = [
    *range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B),
    0x2028, 0x2029, 0x202F, 0x205F, 0x3000,
]  # fmt: skip


def test_a_message_of_only_white_space_is_refused(system: System) -> None:
    ann, _ = pair(system)
    spaces = [chr(each) for each in WHITE_SPACE]
    assert len(spaces) == 25
    for text in ("", *spaces, "".join(spaces), " \r\n" * 1000):
        with pytest.raises(InvalidBody):
            system.run(system.chats.send(ann, 2, text))
    assert system.wait_for(system.store.last_seqs([2])) == {2: 0}


def test_other_characters_that_look_blank_are_accepted(system: System) -> None:
    ann, _ = pair(system)
    others = {chr(each) for each in range(0x110000) if chr(each).isspace()}
    others -= {chr(each) for each in WHITE_SPACE}
    others |= set("\u200b\u200c\u2060\ufeff\u180e\u00ad\u2800\u3164\x1c\x01\x7f")
    for text in sorted(others):
        system.send(ann, 2, text)
    assert len(others) >= 14
    system.send(ann, 2, f"  \t{chr(0x3000)}x\n")


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800", "a\udfff", "\ude00\ud83d", " \ud83d "])
def test_text_that_cannot_be_stored_is_refused(system: System, text: str) -> None:
    ann, _ = pair(system)
    with pytest.raises(InvalidBody):
        system.run(system.chats.send(ann, 2, text))


def test_the_size_of_a_message_is_measured_in_bytes_of_utf_8(system: System) -> None:
    ann, _ = pair(system)
    for text in ("a" * 16384, "é" * 8192, "\u20ac" * 5461 + "a", "\U0001f600" * 4096):
        assert len(text.encode("utf-8")) == 16384
        assert system.send(ann, 2, text).text == text
        with pytest.raises(MessageTooLarge):
            system.run(system.chats.send(ann, 2, text + "a"))


def test_the_maximum_size_of_a_message_is_configurable(tmp_path: Path) -> None:
    with composed(tmp_path, max_message_bytes=10) as system:
        ann, _ = pair(system)
        system.send(ann, 2, "0123456789")
        with pytest.raises(MessageTooLarge, match="11 bytes of UTF-8, 10 are allowed"):
            system.run(system.chats.send(ann, 2, "01234567890"))


def test_a_message_to_an_unknown_user_is_refused(system: System) -> None:
    ann, bob = pair(system)
    system.run(system.accounts.delete(bob))
    for recipient in (2, 3, MAX_INTEGER):
        with pytest.raises(UserNotFound):
            system.run(system.chats.send(ann, recipient, "hello"))


def test_sends_are_rate_limited_by_account_unless_they_are_invalid(tmp_path: Path) -> None:
    with composed(tmp_path, rates=Rates(send=Rate(2, 0.5))) as system:
        ann, bob = pair(system)
        for _ in range(5):
            with pytest.raises(InvalidBody):
                system.run(system.chats.send(ann, 2, " "))
        system.send(ann, 2, "one")
        system.send(ann, 2, "two")
        with pytest.raises(RateLimited):
            system.run(system.chats.send(ann, 2, "three"))
        system.send(bob, 1, "one")
        system.clock.advance(2)
        system.send(ann, 2, "three")


def test_a_repeated_key_returns_the_first_message(system: System) -> None:
    ann, bob = pair(system)
    first = system.run(system.chats.send(ann, 2, "hello", "key"))
    system.clock.advance(60)
    assert system.run(system.chats.send(ann, 2, "hello", "key")) == Appended(first.message, True)
    assert system.run(system.chats.send(bob, 2, "hello", "key")).replayed is False
    for recipient, text in ((2, "hello "), (1, "hello")):
        with pytest.raises(IdempotencyKeyReused):
            system.run(system.chats.send(ann, recipient, text, "key"))
    assert len(system.run(system.chats.page(bob, 1, 10)).messages) == 2


def test_a_key_distinguishes_recipient_and_text(system: System) -> None:
    ann = system.session("ann")
    for _ in range(11):
        system.account(f"user{_}")
    system.send(ann, 1, "1:x", "key")
    for recipient, text in ((11, ":x"), (11, "x"), (1, ":1:x"), (1, "x")):
        with pytest.raises(IdempotencyKeyReused):
            system.run(system.chats.send(ann, recipient, text, "key"))


def test_concurrent_sends_with_the_same_key_are_one_message(stepped: System) -> None:
    ann, _ = pair(stepped)
    pending = [Deferred.fromCoroutine(stepped.chats.send(ann, 2, "x", "key")) for _ in range(5)]
    stepped.turn()
    pending += [stepped.start(stepped.chats.send(ann, 2, "x", "key")) for _ in range(5)]
    stepped.settle()
    outcomes = [result_of(each) for each in pending]
    assert [outcome.replayed for outcome in outcomes] == [False] + [True] * 9
    assert len({outcome.message for outcome in outcomes}) == 1


def test_sends_of_one_turn_share_a_transaction(stepped: System) -> None:
    ann, bob = pair(stepped)
    pending = [
        Deferred.fromCoroutine(stepped.chats.send(each, 2, f"{number}"))
        for number, each in enumerate((ann, bob, ann))
    ]
    refused = Deferred.fromCoroutine(stepped.chats.send(ann, 4711, "x"))
    stepped.turn()
    assert stepped.writer.pending == 1
    stepped.settle()
    assert [result_of(each).message.seq for each in pending] == [1, 2, 3]
    with pytest.raises(UserNotFound):
        result_of(refused)
    assert value(stepped.metrics, "chatd_batch_size_sum", verb="append") == 4
    assert value(stepped.metrics, "chatd_batch_size_count", verb="append") == 1


def test_a_send_returns_after_the_commit(stepped: System) -> None:
    ann, _ = pair(stepped)
    pending = stepped.start(stepped.chats.send(ann, 2, "x"))
    assert not pending.called
    stepped.writer.work()
    assert not pending.called
    stepped.writer.deliver()
    assert result_of(pending).message.seq == 1


def test_sends_and_reads_are_refused_when_their_queue_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_batcher, "MAX_QUEUED", 3)
    monkeypatch.setattr(chatd.domain.chats, "MAX_QUEUED_READS", 2)
    with composed(tmp_path, worker=SteppedExecutor) as system:
        ann, _ = pair(system)
        sends = [Deferred.fromCoroutine(system.chats.send(ann, 2, "x")) for _ in range(4)]
        polls = [Deferred.fromCoroutine(system.chats.poll(ann, None, 1, 0)) for _ in range(3)]
        with pytest.raises(Overloaded):
            result_of(sends.pop())
        with pytest.raises(Overloaded):
            result_of(polls.pop())
        system.settle()
        assert [result_of(each).message.seq for each in sends] == [1, 2, 3]
        assert all(result_of(each).messages == () for each in polls)
        assert system.is_idle()


def test_a_send_completes_even_if_its_client_disconnects(tmp_path: Path) -> None:
    """The message is stored once, with its key, and its recipient is woken."""
    held: list[Deferred[Polled]] = []

    def begin(system: System) -> Deferred[Appended]:
        ann, bob = pair(system)
        held[:] = [poll(system, bob)]
        return Deferred.fromCoroutine(system.chats.send(ann, 2, "hello", "key"))

    moments = 0
    for system in cancelled_everywhere(tmp_path, begin):
        polled = result_of(held[0])
        assert texts(polled.messages) == ["hello"]
        assert polled.why is WakeReason.MESSAGE
        again = system.run(system.chats.send(Session(1), 2, "hello", "key"))
        assert again == Appended(polled.messages[0], replayed=True)
        assert system.is_idle()
        moments += 1
    # Before its turn, queued, in the thread of the writer, committed but not delivered.
    assert moments >= 3


def test_a_send_that_the_disk_refuses_leaves_nothing_behind(system: System) -> None:
    ann, bob = pair(system)
    held = poll(system, bob)
    system.store._write_db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable):
        system.send(ann, 2, "hello", "key")
    assert not held.called
    system.store._write_db.execute("PRAGMA query_only = OFF")
    assert system.send(ann, 2, "hello", "key").seq == 1
    assert texts(result_of(held).messages) == ["hello"]


def test_a_send_of_unknown_outcome_reaches_its_recipient_if_it_was_committed(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = pair(system)
    held = poll(system, bob)
    real = system.store.append

    def append(drafts: Sequence[Draft], within: float) -> Deferred[Any]:
        """Commit, but fail."""
        return real(drafts).addCallback(lambda _: fail(StoreUnavailable("connection lost", 1)))

    monkeypatch.setattr(system.store, "append", append)
    with pytest.raises(StoreUnavailable):
        system.send(ann, 2, "hello", "key")
    assert texts(result_of(held).messages) == ["hello"]
    monkeypatch.undo()
    assert system.run(system.chats.send(ann, 2, "hello", "key")).replayed


def test_an_error_of_the_disk_is_logged_if_all_clients_have_disconnected(
    stepped: System, logged_failures: LoggedFailures
) -> None:
    ann, _ = pair(stepped)
    cancel(stepped.start(stepped.chats.send(ann, 2, "x")))
    stepped.store._write_db.execute("PRAGMA query_only = ON")
    stepped.settle()
    stepped.store._write_db.execute("PRAGMA query_only = OFF")
    assert len(logged_failures.flush(StoreUnavailable)) == 1


def test_wait_idle_waits_for_sends(stepped: System) -> None:
    ann, _ = pair(stepped)
    assert stepped.chats.wait_idle().called
    pending = Deferred.fromCoroutine(stepped.chats.send(ann, 2, "x"))
    finished = stepped.chats.wait_idle()
    while not finished.called:
        assert not pending.called
        assert stepped.micro_step()
    assert result_of(pending).message.seq == 1


def test_recipients_of_messages_are_woken_once_per_batch(stepped: System) -> None:
    ann, _ = pair(stepped)
    stepped.send(ann, 2, "first", "key")
    stepped.bus.hold = True
    for recipient, text, key in (
        (2, "x", None),
        (2, "y", None),
        (4711, "z", None),
        (1, "w", None),
        (2, "first", "key"),
    ):
        pending = Deferred.fromCoroutine(stepped.chats.send(ann, recipient, text, key))
        pending.addErrback(lambda failure: failure.trap(UserNotFound) and None)
    stepped.settle()
    assert list(stepped.bus.held) == [{1, 2}]
    stepped.bus.held.clear()
    # The first attempt may have been stored without anybody knowing.
    stepped.run(stepped.chats.send(ann, 2, "first", "key"))
    assert list(stepped.bus.held) == [{2}]


# Pages


def fill(system: System, count: int) -> list[Message]:
    """Messages from Ann in Bob's inbox."""
    drafts = [Draft(1, 2, f"{number}") for number in range(1, count + 1)]
    outcomes = system.wait_for(system.store.append(drafts))
    return [outcome.message for outcome in outcomes if isinstance(outcome, Appended)]


def test_pages_are_newest_first_and_numbered(system: System) -> None:
    _, bob = pair(system)
    sent = fill(system, 25)
    for number in (1, 2, 3):
        page = system.run(system.chats.page(bob, number, 10))
        assert list(page.messages) == sent[::-1][(number - 1) * 10 : number * 10]
        assert (page.page, page.pages, page.cursor) == (number, 3, cursor(system, 25))


@pytest.mark.parametrize(("count", "limit", "pages"), [(0, 10, 0), (10, 10, 1), (11, 10, 2)])
def test_a_page_past_the_last_one_is_not_found(
    system: System, count: int, limit: int, pages: int
) -> None:
    _, bob = pair(system)
    fill(system, count)
    assert system.run(system.chats.page(bob, max(pages, 1), limit)).pages == pages
    for number in (max(pages, 1) + 1, MAX_INTEGER):
        with pytest.raises(PageNotFound):
            system.run(system.chats.page(bob, number, limit))


def test_the_first_page_of_an_empty_inbox_is_empty(system: System) -> None:
    _, bob = pair(system)
    page = system.run(system.chats.page(bob, 1, 10))
    assert (page.messages, page.page, page.pages) == ((), 1, 0)
    assert page.cursor == cursor(system, 0)


def test_the_cursor_of_a_page_leads_to_exactly_the_messages_after_it(system: System) -> None:
    ann, bob = pair(system)
    fill(system, 3)
    page = system.run(system.chats.page(bob, 1, 10))
    system.send(ann, 2, "after")
    assert texts(result_of(poll(system, bob, page.cursor, wait=0)).messages) == ["after"]


def test_pinned_pages_do_not_drift(system: System) -> None:
    ann, bob = pair(system)
    fill(system, 25)
    at = system.run(system.chats.page(bob, 1, 10)).cursor
    before = [system.run(system.chats.page(bob, number, 10)) for number in (1, 2, 3)]
    for _ in range(7):
        system.send(ann, 2, "more")
    assert [system.run(system.chats.page(bob, number, 10, at)) for number in (1, 2, 3)] == before
    with pytest.raises(PageNotFound):
        system.run(system.chats.page(bob, 4, 10, at))
    beginning = system.run(system.chats.page(bob, 1, 10, BEGINNING))
    assert (beginning.messages, beginning.pages, beginning.cursor.seq) == ((), 0, 0)


def test_a_page_pinned_to_an_invalid_cursor_is_refused(system: System) -> None:
    _, bob = pair(system)
    fill(system, 25)
    for at in (Cursor("abcdefgh", 5), cursor(system, 26), cursor(system, MAX_INTEGER)):
        for number in (1, 2, 3):
            with pytest.raises(CursorEpoch):
                system.run(system.chats.page(bob, number, 10, at))


def test_a_deleted_account_cannot_read_or_poll(system: System) -> None:
    ann, _ = pair(system)
    system.run(system.accounts.delete(ann))
    with pytest.raises(Unauthorized):
        system.run(system.chats.page(ann, 1, 10))
    for wait in (0.0, 30.0):
        with pytest.raises(Unauthorized):
            result_of(poll(system, ann, wait=wait))


# Polls that do not wait


def test_existing_messages_are_returned_at_once_oldest_first(system: System) -> None:
    _, bob = pair(system)
    fill(system, 3)
    polled = result_of(poll(system, bob))
    assert texts(polled.messages) == ["1", "2", "3"]
    assert polled.cursor == cursor(system, 3)
    assert (polled.count, polled.more, polled.why, polled.waited) == (
        3,
        False,
        WakeReason.MESSAGE,
        0,
    )


def test_more_tells_whether_there_are_further_messages(system: System) -> None:
    _, bob = pair(system)
    fill(system, 5)
    since, seqs, mores = BEGINNING, [], []
    for _ in range(3):
        polled = result_of(poll(system, bob, since, limit=2))
        since = polled.cursor
        seqs += [message.seq for message in polled.messages]
        mores.append(polled.more)
    assert seqs == [1, 2, 3, 4, 5]
    assert mores == [True, True, False]


def test_reading_does_not_consume_messages(system: System) -> None:
    _, bob = pair(system)
    fill(system, 5)
    for _ in range(2):
        polled = result_of(poll(system, bob, cursor(system, 2)))
        assert texts(polled.messages) == ["3", "4", "5"]


def test_without_wait_an_empty_result_is_returned_at_once(system: System) -> None:
    _, bob = pair(system)
    fill(system, 2)
    for since in (None, cursor(system, 2)):
        polled = result_of(poll(system, bob, since, wait=0))
        assert (polled.messages, polled.cursor) == ((), cursor(system, 2))
        assert (polled.count, polled.more, polled.waited) == (2, False, 0)


@pytest.mark.parametrize("wait", [0.0, 30.0])
def test_an_invalid_cursor_is_refused(system: System, wait: float) -> None:
    _, bob = pair(system)
    fill(system, 2)
    for since in (Cursor("abcdefgh", 1), cursor(system, 3), cursor(system, MAX_INTEGER)):
        with pytest.raises(CursorEpoch):
            result_of(poll(system, bob, since, wait=wait))


def test_a_cursor_survives_a_restart(tmp_path: Path) -> None:
    with composed(tmp_path) as system:
        _, bob = pair(system)
        fill(system, 2)
        since = result_of(poll(system, bob, limit=1)).cursor
    with composed(tmp_path) as system:
        polled = result_of(poll(system, bob, Cursor.parse(str(since))))
        assert texts(polled.messages) == ["2"]


# Held polls


def test_a_held_poll_returns_the_next_message(system: System) -> None:
    ann, bob = pair(system)
    held = poll(system, bob)
    assert system.notifier.held == 1
    system.clock.advance(12.5)
    assert not held.called
    message = system.send(ann, 2, "hello")
    polled = result_of(held)
    assert polled.messages == (message,)
    assert polled.cursor == cursor(system, 1)
    assert (polled.why, polled.waited, polled.more) == (WakeReason.MESSAGE, 12.5, False)


class Record:
    """A `chatd.domain.notifier.RecordsHold`."""

    held_seconds = 0.0


@pytest.mark.parametrize("end", ["message", "timeout", "deletion", "cancellation"])
def test_a_poll_records_how_long_it_was_held(system: System, end: str) -> None:
    ann, bob = pair(system)
    record = Record()
    held = system.start(system.chats.poll(bob, BEGINNING, 100, 7.5, record))
    system.settle()
    system.clock.advance(2.5)
    assert record.held_seconds == 0
    if end == "message":
        system.send(ann, 2, "hello")
    elif end == "timeout":
        system.clock.advance(5)
    elif end == "deletion":
        system.run(system.accounts.delete(bob))
    else:
        held.cancel()
    if end in ("message", "timeout"):
        assert result_of(held).waited == record.held_seconds
    else:
        held.addErrback(lambda failure: failure.trap(Unauthorized, CancelledError))
    assert record.held_seconds == (7.5 if end == "timeout" else 2.5)


def test_without_a_cursor_only_later_messages_are_returned(system: System) -> None:
    ann, bob = pair(system)
    fill(system, 3)
    held = poll(system, bob, None)
    assert not held.called
    system.send(ann, 2, "after")
    assert texts(result_of(held).messages) == ["after"]


def test_all_messages_of_a_batch_are_returned_together(stepped: System) -> None:
    ann, bob = pair(stepped)
    held = poll(stepped, bob)
    for number in range(5):
        cancel(Deferred.fromCoroutine(stepped.chats.send(ann, 2, f"{number}")))
    stepped.settle()
    assert texts(result_of(held).messages) == ["0", "1", "2", "3", "4"]


def test_all_polls_of_a_user_return_the_message(system: System) -> None:
    ann, bob = pair(system)
    held = [poll(system, bob) for _ in range(HELD_PER_USER)]
    system.send(ann, 2, "hello")
    assert [texts(result_of(each).messages) for each in held] == [["hello"]] * HELD_PER_USER


def test_polls_woken_together_share_a_read(stepped: System) -> None:
    users = [stepped.session(f"user{number}") for number in range(5)]
    held = [poll(stepped, each) for each in users]
    for each in users:
        Deferred.fromCoroutine(stepped.chats.send(users[0], each.user_id, "x"))
    stepped.turn()
    stepped.writer.step()
    stepped.turn()
    assert stepped.reader.pending == 1
    stepped.settle()
    assert all(texts(result_of(each).messages) == ["x"] for each in held)


def test_messages_to_other_users_do_not_end_a_poll(system: System) -> None:
    _, bob = pair(system)
    held = poll(system, bob)
    system.send(bob, 1, "hello")
    assert not held.called
    system.clock.advance(30)
    assert result_of(held).why is WakeReason.TIMEOUT


def test_a_poll_times_out_with_an_empty_result(system: System) -> None:
    _, bob = pair(system)
    fill(system, 2)
    held = poll(system, bob, cursor(system, 2), wait=7.25)
    system.clock.advance(7.2)
    assert not held.called
    system.clock.advance(0.05)
    polled = result_of(held)
    assert (polled.messages, polled.why, polled.waited) == ((), WakeReason.TIMEOUT, 7.25)
    assert (polled.cursor, polled.count, polled.more) == (cursor(system, 2), 2, False)


def test_after_a_spurious_wake_up_a_poll_waits_for_the_rest_of_its_time(system: System) -> None:
    _, bob = pair(system)
    held = poll(system, bob, wait=10)
    for _ in range(3):
        system.clock.advance(3)
        system.subscriber.wake([2])
        system.settle()
        assert not held.called
        assert system.notifier.held == 1
    system.clock.advance(0.9)
    assert not held.called
    system.clock.advance(0.1)
    polled = result_of(held)
    assert (polled.why, polled.waited) == (WakeReason.TIMEOUT, 10)


def test_waking_everyone_makes_up_for_lost_wake_ups(system: System) -> None:
    ann, bob = pair(system)
    held = poll(system, bob)
    system.bus.lose = True
    system.send(ann, 2, "hello")
    assert not held.called
    system.subscriber.wake_all()
    system.settle()
    assert texts(result_of(held).messages) == ["hello"]
    assert value(system.metrics, "chatd_wakeups_total", source="resync") == 1


def test_a_message_between_read_and_wait_is_not_missed(stepped: System) -> None:
    ann, bob = pair(stepped)
    held = stepped.start(stepped.chats.poll(bob, BEGINNING, 100, 30))
    stepped.reader.work()
    # The inbox was empty, but that has not been delivered yet when a message arrives.
    sent = stepped.start(stepped.chats.send(ann, 2, "hello"))
    stepped.writer.step()
    assert sent.called
    stepped.settle()
    assert texts(result_of(held).messages) == ["hello"]


def test_a_message_during_the_second_read_is_not_missed(stepped: System) -> None:
    ann, bob = pair(stepped)
    held = poll(stepped, bob)
    stepped.subscriber.wake([2])
    stepped.turn()
    stepped.reader.work()
    sent = stepped.start(stepped.chats.send(ann, 2, "hello"))
    stepped.writer.step()
    assert sent.called
    stepped.settle()
    assert texts(result_of(held).messages) == ["hello"]


def test_a_poll_does_not_wait_if_its_time_was_up_after_the_read(stepped: System) -> None:
    _, bob = pair(stepped)
    held = stepped.start(stepped.chats.poll(bob, BEGINNING, 100, 5))
    stepped.clock.advance(6)
    stepped.settle()
    polled = result_of(held)
    assert (polled.why, polled.waited, polled.messages) == (WakeReason.TIMEOUT, 0, ())


def test_a_poll_does_not_wait_again_if_its_time_is_up(
    stepped: System,
) -> None:
    _, bob = pair(stepped)
    held = poll(stepped, bob, wait=5)
    stepped.clock.advance(4)
    stepped.subscriber.wake([2])
    stepped.turn()
    stepped.clock.advance(2)
    stepped.settle()
    polled = result_of(held)
    assert (polled.why, polled.waited, polled.messages) == (WakeReason.TIMEOUT, 4, ())


def test_messages_of_a_slow_read_are_returned_after_the_time_was_up(stepped: System) -> None:
    ann, bob = pair(stepped)
    held = poll(stepped, bob, wait=5)
    stepped.clock.advance(4)
    stepped.start(stepped.chats.send(ann, 2, "hello"))
    stepped.writer.step()
    stepped.turn()
    stepped.clock.advance(2)
    stepped.settle()
    assert texts(result_of(held).messages) == ["hello"]


def test_beyond_the_limit_per_user_the_oldest_poll_returns_early(system: System) -> None:
    ann, bob = pair(system)
    fill(system, 1)
    since = cursor(system, 1)
    held = [poll(system, bob, since) for _ in range(HELD_PER_USER + 2)]
    for early in held[:2]:
        polled = result_of(early)
        assert (polled.why, polled.messages, polled.cursor) == (WakeReason.SUPERSEDED, (), since)
    system.send(ann, 2, "hello")
    assert all(texts(result_of(each).messages) == ["hello"] for each in held[2:])


def test_beyond_the_limit_of_the_process_a_poll_returns_at_once(tmp_path: Path) -> None:
    with composed(tmp_path, max_held=1) as system:
        ann, bob = pair(system)
        held = poll(system, bob)
        polled = result_of(poll(system, ann))
        assert (polled.why, polled.messages, polled.waited) == (WakeReason.OVERLOAD, (), 0)
        system.send(bob, 1, "hello")
        assert texts(result_of(poll(system, ann)).messages) == ["hello"]
        system.send(ann, 2, "hello")
        assert texts(result_of(held).messages) == ["hello"]
        assert system.is_idle()


def test_polls_of_a_draining_process_return_early(system: System) -> None:
    ann, bob = pair(system)
    fill(system, 1)
    held = poll(system, bob, cursor(system, 1))
    system.clock.advance(3)
    system.notifier.drain()
    polled = result_of(held)
    assert (polled.why, polled.messages, polled.waited) == (WakeReason.DRAIN, (), 3)
    assert polled.cursor == cursor(system, 1)
    assert result_of(poll(system, ann)).why is WakeReason.DRAIN
    assert texts(result_of(poll(system, bob)).messages) == ["1"]


# The end of a session ends its polls


def read_again(system: System) -> None:
    """A spurious wake-up of a held poll."""
    system.settle()
    system.subscriber.wake([2])


# What happens before the session ends.
PHASES: dict[str, list[Callable[[System], object]]] = {
    "before it is read": [],
    "while it is read": [System.turn],
    "between the read and the wait": [System.turn, lambda system: system.reader.work()],
    "while it waits": [System.settle],
    "before it is read again": [read_again],
    "while it is read again": [read_again, System.turn],
    "between the second read and the second wait": [
        read_again,
        System.turn,
        lambda system: system.reader.work(),
    ],
}


@pytest.mark.parametrize("reach", PHASES.values(), ids=PHASES)
@pytest.mark.parametrize("token", [b"the token", None])
def test_a_revocation_ends_a_poll_in_every_phase(
    stepped: System, reach: list[Callable[[System], object]], token: bytes | None
) -> None:
    pair(stepped)
    mine = Deferred.fromCoroutine(stepped.chats.poll(Session(2, b"the token"), BEGINNING, 100, 30))
    other = Deferred.fromCoroutine(stepped.chats.poll(Session(2, b"another"), BEGINNING, 100, 30))
    for step in reach:
        step(stepped)
    stepped.bus.publish_revoked(2, token)
    stepped.settle()
    with pytest.raises(Unauthorized):
        result_of(mine)
    if token is None:
        with pytest.raises(Unauthorized):
            result_of(other)
    else:
        assert not other.called
        cancel(other)


@pytest.mark.parametrize("reach", PHASES.values(), ids=PHASES)
def test_a_deletion_ends_a_poll_in_every_phase(
    stepped: System, reach: list[Callable[[System], object]]
) -> None:
    _, bob = pair(stepped)
    held = Deferred.fromCoroutine(stepped.chats.poll(bob, BEGINNING, 100, 30))
    for step in reach:
        step(stepped)
    deleted = stepped.start(stepped.accounts.delete(bob))
    stepped.writer.step()
    assert deleted.called
    stepped.settle()
    with pytest.raises(Unauthorized):
        result_of(held)


# Clients that disconnect


def test_a_poll_whose_client_disconnects_leaves_nothing_behind(tmp_path: Path) -> None:
    def begin(system: System) -> Deferred[Polled]:
        pair(system)
        return Deferred.fromCoroutine(system.chats.poll(Session(2), BEGINNING, 100, 30))

    def arrive(system: System) -> None:
        Deferred.fromCoroutine(system.chats.send(Session(1), 2, "hello"))

    moments = 0
    for system in cancelled_everywhere(tmp_path, begin, arrive, read_cached=False):
        assert system.is_idle()
        # Nothing was consumed: the next poll returns the message.
        system.send(Session(1), 2, "hello")
        assert "hello" in texts(system.run(system.chats.poll(Session(2), BEGINNING, 1, 0)).messages)
        moments += 1
    # In its first read, waiting, and in its second read.
    assert moments >= 9


def test_a_client_that_disconnects_does_not_affect_others(stepped: System) -> None:
    ann, bob = pair(stepped)
    stays, goes = (
        Deferred.fromCoroutine(stepped.chats.poll(bob, BEGINNING, 100, 30)) for _ in range(2)
    )
    stepped.turn()
    cancel(goes)
    stepped.settle()
    stepped.send(ann, 2, "hello")
    assert texts(result_of(stays).messages) == ["hello"]


def test_an_error_of_the_store_ends_a_poll_and_leaves_nothing_behind(stepped: System) -> None:
    _, bob = pair(stepped)
    held = poll(stepped, bob)
    stepped.subscriber.wake([2])
    stepped.turn()
    stepped.reader.fail(StoreUnavailable("disk", 1))
    with pytest.raises(StoreUnavailable):
        result_of(held)
    assert stepped.is_idle()


# Metrics


def test_every_poll_that_asked_to_wait_is_counted_by_its_outcome(stepped: System) -> None:
    ann, bob = pair(stepped)
    poll(stepped, bob, wait=0)
    assert value(stepped.metrics, "chatd_poll_hold_seconds_count") == 0
    held = poll(stepped, bob, wait=3)
    stepped.clock.advance(3)
    assert held.called
    held = poll(stepped, bob)
    stepped.clock.advance(2)
    stepped.send(ann, 2, "hello")
    assert held.called
    held = poll(stepped, bob, cursor(stepped, 1))
    held.cancel()
    with pytest.raises(CancelledError):
        result_of(held)
    with pytest.raises(CursorEpoch):
        result_of(poll(stepped, bob, cursor(stepped, 9)))
    held = poll(stepped, bob, cursor(stepped, 1))
    stepped.bus.publish_revoked(2, None)
    with pytest.raises(Unauthorized):
        result_of(held)
    held = stepped.start(stepped.chats.poll(bob, BEGINNING, 1, 5))
    stepped.reader.fail(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        result_of(held)
    for outcome in (
        "timeout",
        "message",
        "disconnect",
        "cursor_epoch",
        "unauthorized",
        "error",
    ):
        assert value(stepped.metrics, "chatd_polls_total", outcome=outcome) == 1
    assert value(stepped.metrics, "chatd_poll_hold_seconds_sum") == 5


def test_observers_are_optional(stepped: System) -> None:
    ann, bob = pair(stepped)
    reads = ReadLimits(RateLimits(None, stepped.clock), lambda user_id: True)
    quiet = chatd.domain.chats.Chats(
        stepped.store,
        stepped.bus,
        stepped.notifier,
        RateLimits(None, stepped.clock),
        reads,
        CallerNetworks(),
        StoreCalls(reads, CallerNetworks(), 1),
        DiskSpace(None, 0, stepped.clock),
        clock=stepped.clock,
        max_message_bytes=100,
    )
    held = stepped.start(quiet.poll(bob, BEGINNING, 10, 30))
    stepped.settle()
    stepped.run(quiet.send(ann, 2, "hello"))
    stepped.settle()
    assert texts(result_of(held).messages) == ["hello"]
    assert value(stepped.metrics, "chatd_poll_hold_seconds_count") == 0


def test_the_epoch_of_cursors_is_that_of_the_store(system: System) -> None:
    _, bob = pair(system)
    assert system.run(system.chats.page(bob, 1, 10)).cursor.epoch == system.store.epoch
    [found] = system.wait_for(system.store.read([ReadAfter(2, None, 1)]))
    assert found is not None


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("x" * 16_384, 10),
        # What takes most bytes in JSON.
        ("\x01" * 16_384, 10),
        # Fewer are read, and of these fewer fit into an answer.
        ("x" * 61_440, 3),
        ("\x01" * 61_440, 2),
    ],
)
def test_results_are_limited_in_size(tmp_path: Path, text: str, fits: int) -> None:
    with composed(tmp_path, max_message_bytes=65_536) as system:
        ann, bob = system.session("ann"), system.session("bob")
        for _ in range(25):
            system.send(ann, 2, text)
        seen: list[int] = []
        cursor = BEGINNING
        while len(seen) < 25:
            polled = system.run(system.chats.poll(bob, cursor, 100, 0))
            assert len(polled.messages) == min(fits, 25 - len(seen))
            seen += [message.seq for message in polled.messages]
            cursor = polled.cursor
            assert polled.more is (cursor.seq < 25)
        assert seen == list(range(1, 26))
        before: ConversationCursor | None = None
        while before is not None or len(seen) == 25:
            found = system.run(system.chats.conversation(bob, 1, 100, before))
            assert len(found.messages) == min(fits, 50 - len(seen))
            seen += [message.seq for message in found.messages]
            before = found.older
        assert seen[25:] == list(range(25, 0, -1))


def test_a_message_above_the_size_limit_is_returned_alone(tmp_path: Path) -> None:
    with composed(tmp_path, max_message_bytes=2 * MAX_ANSWER_BYTES) as system:
        ann, bob = system.session("ann"), system.session("bob")
        for _ in range(2):
            system.send(ann, 2, "x" * (MAX_ANSWER_BYTES + 1))
        polled = system.run(system.chats.poll(bob, BEGINNING, 100, 0))
        assert [message.seq for message in polled.messages] == [1]
        assert polled.more


# Fairness


def test_a_burst_to_one_inbox_does_not_delay_others(stepped: System) -> None:
    system = stepped
    ann, bob = pair(system)
    cat = system.session("cat")
    polls = [poll(system, bob, cursor(system, 0)) for _ in range(HELD_PER_USER)]
    other = poll(system, cat, cursor(system, 0))
    size = 3 * MAX_BATCH_SIZE
    burst = [system.start(system.chats.send(ann, 2, f"{number}")) for number in range(size)]
    single = system.start(system.chats.send(bob, 3, "hello"))
    batches = 0
    while not other.called:
        assert system.writer.step()
        system.turn()
        while system.reader.step():
            system.turn()
        batches += 1
    # The first message was one batch, the others filled three.
    assert batches == 4
    assert texts(result_of(other).messages) == ["hello"]
    assert result_of(single).message.text == "hello"
    # Each poll returned the first message, regardless of the others.
    assert [len(result_of(held).messages) for held in polls] == [1] * HELD_PER_USER
    assert [result_of(sent).message.seq for sent in burst] == list(range(1, size + 1))
