"""The states of a poll, with reads that the test answers."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from chatd.domain.answer_size import MAX_READ_BYTES
from chatd.domain.notifier import Notifier, Waiter
from chatd.domain.poll import Poll, Polled, Polls
from chatd.domain.session_expiry import SessionExpiry
from chatd.errors import CursorEpoch, Overloaded, Unauthorized
from chatd.model import Cursor, InboxSlice, Message, ReadAfter, Session, WakeReason
from chatd.model_sync import ReadChanges
from tests.conftest import LoggedFailures
from tests.doubles import Now, fired

ANN = Session(1, b"ann's token")
STAMP = 900_000
EMPTY = InboxSlice(4, (), STAMP)
MESSAGE = Message(1, 5, 2, 1_000_000, "hai")
NEWS = InboxSlice(5, (MESSAGE,), STAMP)


class Sink:
    """Records the result."""

    def __init__(self) -> None:
        self.result: Polled | Failure | None = None

    def poll_ended(self, polled: Polled) -> None:
        assert self.result is None
        self.result = polled

    def poll_failed(self, failure: Failure) -> None:
        assert self.result is None
        self.result = failure

    @property
    def polled(self) -> Polled:
        assert isinstance(self.result, Polled)
        return self.result

    def error(self, kind: type[Exception]) -> None:
        assert isinstance(self.result, Failure)
        assert self.result.check(kind)


class Harness:
    """Polls of one inbox, whose reads are answered by `results`."""

    def __init__(self, *results: Any) -> None:
        self.clock = Clock()
        expiry = SessionExpiry(self.clock, Now(self.clock))
        self.notifier = Notifier(max_held=100, expiry=expiry)
        self.results = list(results)
        self.delivered: list[tuple[int, int]] = []
        self.queries: list[tuple[ReadAfter, bool]] = []
        self.observed: list[tuple[str, float]] = []
        self.polls = Polls(
            self.notifier,
            self._read,
            self.clock,
            lambda: "abcdefgh",
            lambda outcome, seconds: self.observed.append((outcome, seconds)),
            self._read_changes,
            lambda user_id, seq: self.delivered.append((user_id, seq)),
            lambda user_id, messages: None,
        )

    def _read_changes(self, query: ReadChanges) -> Any:
        raise AssertionError(query)

    def _read(self, query: ReadAfter, *, listening: bool) -> Any:
        self.queries.append((query, listening))
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    def start(
        self, after: int | None = 4, wait: float = 30, stamp: int | None = STAMP
    ) -> tuple[Poll, Sink]:
        sink = Sink()
        since = None if after is None else Cursor("abcdefgh", after, stamp)
        return self.polls.start(ANN, since, 100, wait, sink), sink

    def assert_over(self) -> None:
        """Check that nothing is left of any poll."""
        assert self.results == []
        assert self.notifier.held == 0
        assert self.notifier._waiters == {}
        assert len(self.polls.deadlines) == 0
        assert self.clock.getDelayedCalls() == []


def test_it_implements_the_protocol_of_the_notifier() -> None:
    harness = Harness(EMPTY)
    waiter: Waiter = harness.start()[0]
    assert waiter.held
    assert waiter.seq == 4


def test_messages_end_it_at_once() -> None:
    harness = Harness(NEWS)
    _, sink = harness.start()
    assert sink.polled.messages == (MESSAGE,)
    assert (str(sink.polled.cursor), sink.polled.why) == (
        f"abcdefgh-5-{1_000_000:x}",
        WakeReason.MESSAGE,
    )
    assert harness.queries == [(ReadAfter(1, 4, 100, MAX_READ_BYTES), True)]
    assert harness.observed == [("message", 0.0)]
    harness.assert_over()


def test_without_a_wait_it_ends_at_once() -> None:
    harness = Harness(EMPTY)
    _, sink = harness.start(None, wait=0)
    assert (str(sink.polled.cursor), sink.polled.count) == (f"abcdefgh-4-{STAMP:x}", 4)
    assert harness.queries == [(ReadAfter(1, None, 100, MAX_READ_BYTES), False)]
    assert harness.observed == []
    harness.assert_over()


def test_it_times_out() -> None:
    harness = Harness(EMPTY)
    _, sink = harness.start()
    harness.clock.advance(29.999)
    assert sink.result is None
    harness.clock.advance(0.001)
    assert (sink.polled.why, sink.polled.waited) == (WakeReason.TIMEOUT, 30)
    assert harness.observed == [("timeout", 30)]
    harness.assert_over()


def test_a_message_ends_the_wait() -> None:
    harness = Harness(EMPTY, NEWS)
    _, sink = harness.start()
    harness.clock.advance(7)
    assert harness.notifier.wake([1]) == 1
    assert (sink.polled.messages, sink.polled.waited) == ((MESSAGE,), 7)
    assert harness.queries[1] == (ReadAfter(1, 4, 100, MAX_READ_BYTES), False)
    harness.assert_over()


def test_a_wake_up_without_a_message_continues_the_wait() -> None:
    harness = Harness(EMPTY, EMPTY)
    _, sink = harness.start()
    harness.clock.advance(10)
    harness.notifier.wake([1])
    assert sink.result is None
    assert harness.notifier.held == 1
    harness.clock.advance(20)
    assert (sink.polled.why, sink.polled.waited) == (WakeReason.TIMEOUT, 30)
    harness.assert_over()


def test_a_wake_up_during_a_read_has_it_read_again() -> None:
    first: Deferred[Any] = Deferred()
    harness = Harness(first, NEWS)
    _, sink = harness.start()
    assert harness.notifier.wake([1]) == 0
    assert harness.notifier.held_by_user() == {}
    first.callback(EMPTY)
    assert sink.polled.messages == (MESSAGE,)
    harness.assert_over()


@pytest.mark.parametrize("reason", [WakeReason.DRAIN, WakeReason.SUPERSEDED])
def test_another_reason_during_a_read_ends_it_unless_there_are_messages(reason: WakeReason) -> None:
    for inbox, why in ((EMPTY, reason), (NEWS, WakeReason.MESSAGE)):
        first: Deferred[Any] = Deferred()
        harness = Harness(first)
        poll, sink = harness.start()
        poll.wake(WakeReason.MESSAGE)
        poll.wake(reason)
        first.callback(inbox)
        assert sink.polled.why is why
        harness.assert_over()


def test_a_revocation_during_a_read_overrides_messages_that_come_later() -> None:
    first: Deferred[Any] = Deferred()
    harness = Harness(first)
    _, sink = harness.start()
    harness.notifier.wake([1])
    harness.notifier.revoke(1, None)
    harness.notifier.wake([1])
    first.callback(EMPTY)
    sink.error(Unauthorized)
    assert harness.observed == [("unauthorized", 0.0)]
    harness.assert_over()


def test_a_revocation_ends_the_wait() -> None:
    harness = Harness(EMPTY)
    poll, sink = harness.start()
    harness.clock.advance(3)
    harness.notifier.revoke(1, ANN.token)
    sink.error(Unauthorized)
    assert poll.waited == 3
    harness.assert_over()


def test_a_read_that_takes_longer_than_the_wait_times_out() -> None:
    first: Deferred[Any] = Deferred()
    harness = Harness(first)
    _, sink = harness.start(wait=2)
    harness.clock.advance(5)
    first.callback(EMPTY)
    assert (sink.polled.why, sink.polled.waited) == (WakeReason.TIMEOUT, 0)
    harness.assert_over()


def test_a_cursor_past_the_end_fails() -> None:
    harness = Harness(EMPTY)
    _, sink = harness.start(5)
    sink.error(CursorEpoch)
    assert harness.observed == [("cursor_epoch", 0.0)]
    harness.assert_over()


def test_a_cursor_of_another_message_fails() -> None:
    for slice in (EMPTY, NEWS):
        harness = Harness(slice)
        _, sink = harness.start(4, stamp=STAMP + 1)
        sink.error(CursorEpoch)
        harness.assert_over()
    assert harness.delivered == []


def test_a_cursor_without_a_stamp_is_answered_with_one() -> None:
    harness = Harness(EMPTY)
    _, sink = harness.start(4, 0, None)
    assert str(sink.polled.cursor) == f"abcdefgh-4-{STAMP:x}"
    harness.assert_over()


@pytest.mark.parametrize(
    "found", [InboxSlice(3, (), None), InboxSlice(4, (), 7), InboxSlice(5, (MESSAGE,), 7)]
)
@pytest.mark.parametrize("stamp", [None, STAMP])
def test_a_database_that_is_set_back_ends_the_wait(found: InboxSlice, stamp: int | None) -> None:
    harness = Harness(EMPTY, found)
    _, sink = harness.start(4, stamp=stamp)
    harness.notifier.wake([1])
    sink.error(CursorEpoch)
    harness.assert_over()


def test_a_deleted_account_fails() -> None:
    first: Deferred[Any] = Deferred()
    harness = Harness(first)
    _, sink = harness.start()
    first.callback(None)
    sink.error(Unauthorized)
    harness.assert_over()


@pytest.mark.parametrize("result", [Overloaded("full", 1), fail(Overloaded("full", 1))])
def test_a_read_that_fails(result: Any) -> None:
    harness = Harness(result)
    _, sink = harness.start()
    sink.error(Overloaded)
    assert harness.observed == [("overloaded", 0.0)]
    harness.assert_over()


def test_a_held_poll_is_closed() -> None:
    harness = Harness(EMPTY)
    poll, sink = harness.start()
    harness.clock.advance(4)
    poll.close()
    poll.close()
    assert sink.result is None
    assert harness.observed == [("disconnect", 4)]
    assert poll.waited == 4
    harness.assert_over()


@pytest.mark.parametrize("result", [EMPTY, None, Failure(Overloaded("full", 1))])
def test_a_poll_is_closed_while_it_reads(result: Any) -> None:
    first: Deferred[Any] = Deferred()
    harness = Harness(first)
    poll, sink = harness.start()
    poll.close()
    harness.assert_over()
    first.callback(result)
    assert sink.result is None


def test_a_closed_poll_withdraws_its_query() -> None:
    first: Deferred[Any] = Deferred()
    poll, sink = Harness(first).start()
    assert not first.called
    poll.close()
    assert fired(first)
    assert sink.result is None


@pytest.mark.parametrize("last", [NEWS, Overloaded("full", 1)])
def test_a_sink_that_raises_does_not_keep_others_from_being_woken(
    monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures, last: Any
) -> None:
    harness = Harness(EMPTY, EMPTY, last, NEWS)
    _, broken = harness.start()
    _, other = harness.start()

    def broke(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(broken, "poll_ended", broke)
    monkeypatch.setattr(broken, "poll_failed", broke)
    harness.notifier.wake([1])
    assert other.polled.messages == (MESSAGE,)
    [failure] = logged_failures.flush()
    assert failure.check(ZeroDivisionError)
    harness.assert_over()
