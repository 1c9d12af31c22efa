"""Streams: what they write, when they pause, how they end."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from chatd.domain.message_stream import READ_LIMIT
from chatd.domain.notifier import HELD_PER_USER, Waiter
from chatd.domain.sweep import GRACE_SECONDS
from chatd.errors import CursorEpoch, Overloaded, StoreUnavailable, Unauthorized
from chatd.model import BEGINNING, Cursor, InboxSlice, ReadAfter, Session, WakeReason
from tests.conftest import LoggedFailures
from tests.domain.sinks import RecordingSink
from tests.doubles import System, cancel, composed, result_of

ANN = Session(1)


@pytest.fixture(autouse=True)
def _accounts(request: pytest.FixtureRequest) -> None:
    for fixture in ("system", "stepped"):
        if fixture in request.fixturenames:
            request.getfixturevalue(fixture).account("ann")


def send(system: System, count: int = 1, text: str = "x") -> None:
    for _ in range(count):
        system.run(system.chats.send(ANN, 1, text))


def stamp_of(system: System, seq: int) -> int | None:
    [inbox] = system.wait_for(system.store.read([ReadAfter(1, seq, 1)]))
    assert inbox is not None
    return inbox.stamp


def test_it_implements_the_protocol_of_the_notifier(system: System) -> None:
    stream: Waiter = (sink := RecordingSink()).open(system, ANN, None)
    assert stream.held
    assert sink.messages == []
    system.notifier.drain()


def test_it_writes_what_there_is_and_what_is_sent_later(system: System) -> None:
    send(system, 3)
    sink = RecordingSink()
    stream = sink.open(system, ANN, Cursor(system.store.epoch, 1))
    assert sink.seqs == [2, 3]
    assert stream.cursor == Cursor(system.store.epoch, 1, stamp_of(system, 1))
    send(system, 2)
    assert sink.seqs == [2, 3, 4, 5]
    assert stream.seq == 5
    assert system.notifier.held == 1
    stream.close()
    send(system)
    assert sink.seqs == [2, 3, 4, 5]
    assert sink.ended is None
    assert system.notifier.held == 0


def test_from_now_it_writes_only_what_is_sent_later(system: System) -> None:
    send(system)
    sink = RecordingSink()
    stream = sink.open(system, ANN, None)
    assert stream.cursor == Cursor(system.store.epoch, 1, stamp_of(system, 1))
    send(system)
    assert sink.seqs == [2]
    stream.close()


def test_a_long_inbox_is_read_in_parts(system: System) -> None:
    send(system, 2 * READ_LIMIT + 50)
    sink = RecordingSink(takes=7)
    sink.open(system, ANN, BEGINNING).close()
    assert sink.seqs == list(range(1, 2 * READ_LIMIT + 51))


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("read_cached", [True, False])
def test_no_turn_writes_more_than_fits_into_an_answer(
    tmp_path: Any, read_cached: bool, changes: bool
) -> None:
    with composed(tmp_path, read_cached=read_cached) as system:
        system.account("ann")
        sink = RecordingSink()
        send(system, 30, "\x01" * 16_000)
        turns: list[int] = []
        started = Deferred.fromCoroutine(
            system.chats.stream(ANN, BEGINNING, sink, changes=changes)
        ).addCallback(sink.attach)
        while len(sink.messages) < 30:
            before = len(sink.messages) + len(sink.changes)
            one_turn(system)
            turns.append(len(sink.messages) + len(sink.changes) - before)
        # An answer of messages, and one of changes.
        assert max(turns) <= (20 if changes else 10)
        assert sink.seqs == list(range(1, 31))
        result_of(started).close()
        system.clock.advance(0)


@pytest.mark.parametrize("read_cached", [True, False])
def test_changes_are_read_when_all_messages_have_been(tmp_path: Any, read_cached: bool) -> None:
    with composed(tmp_path, read_cached=read_cached) as system:
        system.account("ann")
        send(system, 30, "\x01" * 16_000)
        sink = RecordingSink(room=1)
        reads: list[int] = []
        changes = system.store.sync.changes

        def counted(query: Any) -> Any:
            reads.append(len(sink.messages))
            return changes(query)

        system.store.sync.changes = counted  # type: ignore[method-assign]
        started = Deferred.fromCoroutine(system.chats.stream(ANN, BEGINNING, sink, changes=True))
        started.addCallback(sink.attach)
        system.clock.pump([0] * 5)
        assert sink.seqs == [1]
        assert not reads
        stream = sink.stream
        assert stream is not None
        sink.room = 1000
        stream.resume()
        system.clock.pump([0] * 50)
        assert sink.seqs == list(range(1, 31))
        assert len(sink.changes) == 30
        assert min(reads) >= 25
        stream.close()
        system.clock.advance(0)


def one_turn(system: System) -> None:
    """What is due now, without what that schedules."""
    calls: list[Any] = system.clock.calls
    for call in [each for each in calls if each.getTime() <= system.clock.seconds()]:
        calls.remove(call)
        call.called = 1
        call.func(*call.args, **call.kw)


def test_what_a_stream_begins_with_and_changes_count_as_reads(system: System) -> None:
    send(system, 30)
    charged: list[int] = []
    limits: Any = system.chats._read_limits
    limits.charge = lambda user_id, messages: charged.append(len(messages))
    RecordingSink().open(system, ANN, BEGINNING).close()
    assert charged == [30]
    # Those of messages are counted elsewhere.
    system.run(system.chats.poll(ANN, BEGINNING, 100, 0, changes=True))
    assert charged == [30, 30]


@pytest.mark.parametrize("read_cached", [True, False])
def test_a_paused_sink_is_given_nothing_until_it_resumes(tmp_path: Any, read_cached: bool) -> None:
    with composed(tmp_path, read_cached=read_cached) as system:
        system.account("ann")
        sink = RecordingSink(room=3)
        stream = sink.open(system, ANN, BEGINNING)
        send(system, 10)
        assert sink.seqs == [1, 2, 3]
        assert stream.held
        sink.room = 4
        stream.resume()
        system.settle()
        assert sink.seqs == list(range(1, 8))
        # Resuming a sink that has no room yet is not the stream's concern: it writes.
        sink.room = 100
        stream.resume()
        system.settle()
        assert sink.seqs == list(range(1, 11))
        stream.close()


def test_messages_committed_during_a_read_are_read_again(stepped: System) -> None:
    sink = RecordingSink()
    started = sink.start(stepped, ANN, BEGINNING)
    send(stepped)
    assert result_of(started).held
    stepped.settle()
    assert sink.seqs == [1]
    stepped.subscriber.wake([1])
    # The query runs before the commit, its result arrives after it.
    stepped.turn()
    stepped.reader.work()
    send(stepped)
    stepped.settle()
    assert sink.seqs == [1, 2]
    result_of(started).close()


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (lambda system: system.notifier.drain(), WakeReason.DRAIN),
        (lambda system: system.notifier.revoke(1, None), Unauthorized),
        (lambda system: system.subscriber.revoked(1, None), Unauthorized),
    ],
)
def test_it_ends_once(system: System, end: Any, why: Any) -> None:
    sink = RecordingSink()
    stream = sink.open(system, ANN, None)
    system.clock.advance(2.5)
    end(system)
    assert sink.ended is why or isinstance(sink.ended, why)
    assert not stream.held
    assert sink.held_seconds == 2.5
    end(system)
    stream.wake(WakeReason.MESSAGE)
    stream.resume()
    stream.close()
    assert system.notifier.held == 0


def test_a_paused_stream_ends_too(system: System) -> None:
    sink = RecordingSink(room=1)
    sink.open(system, ANN, BEGINNING)
    send(system, 2)
    system.notifier.drain()
    assert sink.ended is WakeReason.DRAIN
    assert sink.seqs == [1]


def test_the_oldest_of_too_many_is_superseded(system: System) -> None:
    sinks = [RecordingSink() for _ in range(HELD_PER_USER + 1)]
    streams = [sink.open(system, ANN, None) for sink in sinks]
    assert [sink.ended for sink in sinks] == [WakeReason.SUPERSEDED, *[None] * HELD_PER_USER]
    for stream in streams:
        stream.close()


def test_beyond_the_limit_it_writes_what_there_is_and_ends(tmp_path: Any) -> None:
    with composed(tmp_path, max_held=0) as system:
        system.account("ann")
        send(system, 2)
        sink = RecordingSink()
        sink.open(system, ANN, BEGINNING)
        assert sink.seqs == [1, 2]
        assert sink.ended is WakeReason.OVERLOAD


def test_a_cursor_of_another_history_is_refused(system: System) -> None:
    for cursor in (Cursor("a" * 16, 0), Cursor(system.store.epoch, 1)):
        with pytest.raises(CursorEpoch):
            RecordingSink().open(system, ANN, cursor)
    assert system.notifier.held == 0


@pytest.mark.parametrize(
    "found", [InboxSlice(1, (), None), InboxSlice(2, (), 7), InboxSlice(3, (), 7)]
)
def test_a_database_that_is_set_back_ends_the_stream(
    system: System, monkeypatch: pytest.MonkeyPatch, found: InboxSlice
) -> None:
    send(system, 2)
    sink = RecordingSink()
    sink.open(system, ANN, BEGINNING)
    monkeypatch.setattr(system.store, "read_cached", lambda query, listening: found)
    system.subscriber.wake([1])
    assert isinstance(sink.ended, CursorEpoch)
    assert sink.seqs == [1, 2]
    assert system.notifier.held == 0


def test_a_session_that_ends_while_the_stream_opens(stepped: System) -> None:
    started = RecordingSink().start(stepped, ANN, BEGINNING)
    stepped.notifier.revoke(1, None)
    stepped.settle()
    with pytest.raises(Unauthorized):
        result_of(started)
    assert stepped.notifier.held == 0


def test_a_client_that_disconnects_while_the_stream_opens(stepped: System) -> None:
    sink = RecordingSink()
    cancel(sink.start(stepped, ANN, BEGINNING))
    stepped.settle()
    assert stepped.notifier.held == 0
    assert sink.ended is None
    assert sink.held_seconds == 0


def test_a_deleted_account_ends_it(stepped: System) -> None:
    sink = RecordingSink()
    sink.open(stepped, ANN, BEGINNING)
    stepped.wait_for(stepped.store.delete_account(1))
    stepped.subscriber.wake([1])
    stepped.settle()
    assert isinstance(sink.ended, Unauthorized)


@pytest.mark.parametrize("error", [StoreUnavailable("down", 1), Overloaded("full", 1)])
def test_an_error_of_the_store_ends_it(
    stepped: System, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    sink = RecordingSink()
    sink.open(stepped, ANN, BEGINNING)
    monkeypatch.setattr(stepped.chats._reads, "_run", lambda *_: fail(error))
    stepped.subscriber.wake([1])
    stepped.settle()
    assert sink.ended is error
    assert stepped.notifier.held == 0


def test_an_unexpected_error_ends_it_and_wakes_the_others(
    system: System, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    broken, other = RecordingSink(), RecordingSink()
    broken.open(system, ANN, None)
    stream = other.open(system, ANN, None)

    def write_messages(messages: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(broken, "write_messages", write_messages)
    send(system)
    assert isinstance(broken.ended, Failure)
    assert broken.ended.check(ZeroDivisionError)
    assert other.seqs == [1]
    stream.close()
    assert logged_failures.flush() == []


def test_an_unexpected_error_after_the_client_has_disconnected_is_logged(
    stepped: System, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    sink = RecordingSink()
    stream = sink.open(stepped, ANN, BEGINNING)
    reading: Deferred[Any] = Deferred()
    monkeypatch.setattr(stepped.chats._reads, "_run", lambda *_: reading)
    stepped.subscriber.wake([1])
    stepped.turn()
    stream.close()
    reading.errback(ZeroDivisionError())
    [failure] = logged_failures.flush(ZeroDivisionError)
    assert failure.check(ZeroDivisionError)
    assert sink.ended is None


def test_only_one_query_runs_at_a_time(stepped: System, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = RecordingSink()
    stream = sink.open(stepped, ANN, BEGINNING)
    queries: list[Any] = []
    result: Deferred[Any] = Deferred()

    def read(asked: Any, within: float) -> Deferred[Any]:
        queries.append(asked)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(stepped.chats._reads, "_run", read)
        for _ in range(3):
            stepped.subscriber.wake([1])
            stepped.turn()
        assert len(queries) == 1
    send(stepped)
    result.callback([InboxSlice(0, ())])
    stepped.settle()
    assert sink.seqs == [1]
    stream.close()


def test_messages_of_one_read_are_not_read_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(system, READ_LIMIT)
    queries: list[Any] = []
    read = system.chats._read_inbox

    def count(query: Any, *, listening: bool) -> Any:
        queries.append(query)
        return read(query, listening=listening)

    sink = RecordingSink(takes=7)
    started = Deferred.fromCoroutine(system.chats.stream(ANN, BEGINNING, sink))
    system.settle()
    stream, inbox = result_of(started)
    monkeypatch.setattr(stream, "_read", count)
    sink.attach((stream, inbox))
    assert sink.seqs == list(range(1, READ_LIMIT + 1))
    assert queries == []
    stream.close()


def test_a_slow_sink_has_not_missed_a_wake_up(
    system: System, logged_failures: LoggedFailures
) -> None:
    sink = RecordingSink(room=1)
    stream = sink.open(system, ANN, BEGINNING)
    send(system, 2)
    assert stream.is_behind

    def missed() -> int:
        sweeping = system.start(system.sweep.sweep())
        system.clock.advance(GRACE_SECONDS)
        system.settle()
        return result_of(sweeping)

    assert missed() == 0
    # One that has taken everything may have missed a wake-up.
    sink.room = 100
    stream.resume()
    caught_up = not stream.is_behind
    assert caught_up
    system.bus.lose = True
    send(system)
    assert missed() == 1
    assert sink.seqs == [1, 2, 3]
    assert len(logged_failures.flush_messages()) <= 1
    stream.close()


def test_a_sink_that_fails_at_once(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    send(system)
    sink = RecordingSink()

    def write_messages(messages: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(sink, "write_messages", write_messages)
    assert not sink.open(system, ANN, BEGINNING).held
    assert isinstance(sink.ended, Failure)
