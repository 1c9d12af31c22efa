"""The sweep for lost wake-ups."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail

import chatd.domain.sweep
from chatd.domain.poll import Polled
from chatd.domain.sweep import GRACE_SECONDS, LOSSY_SWEEP_SECONDS, SWEEP_SECONDS, Sweep
from chatd.errors import StoreUnavailable
from chatd.model import BEGINNING, Session
from tests.conftest import LoggedFailures
from tests.doubles import System, cancel, fired, result_of
from tests.test_metrics import value


def poll(system: System, session: Session) -> Deferred[Polled]:
    held = system.start(system.chats.poll(session, BEGINNING, 100, 55))
    system.settle()
    assert not held.called
    return held


def woken(system: System, source: str) -> float | None:
    return value(system.metrics, "chatd_wakeups_total", source=source)


def found(system: System) -> float | None:
    return value(system.metrics, "chatd_sweep_found_total")


def test_the_sweep_finds_and_counts_a_poll_whose_wake_up_was_lost(
    system: System, logged_failures: LoggedFailures
) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    held, other = poll(system, bob), poll(system, ann)
    system.bus.lose = True
    system.send(ann, 2, "hello")
    assert not held.called
    swept = system.start(system.sweep.sweep())
    assert not held.called
    system.clock.advance(GRACE_SECONDS)
    assert result_of(swept) == 1
    system.settle()
    assert result_of(held).messages[0].text == "hello"
    assert not other.called
    cancel(other)
    assert found(system) == 1
    assert woken(system, "sweep") == 1
    # It is logged as an error, without a traceback.
    assert logged_failures.flush_messages() in ([], ["1 held polls had missed a wake-up"])


def test_a_poll_that_the_sweep_finds_while_the_bus_is_away_is_no_bug(system: System) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    held = poll(system, bob)
    system.bus.lose = True
    system.bus.broken = "the connection that listens to the database was lost"
    system.send(ann, 2, "hello")
    swept = system.start(system.sweep.sweep())
    system.clock.advance(GRACE_SECONDS)
    assert result_of(swept) == 1
    assert result_of(held).messages[0].text == "hello"
    # An error in the log would fail this test.
    assert found(system) == 0
    assert woken(system, "sweep") == 1


def test_a_sweep_without_findings_ends_at_once(system: System) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    assert system.run(system.sweep.sweep()) == 0
    system.send(ann, 2, "before")
    result_of(system.start(system.chats.poll(bob, BEGINNING, 100, 55)))
    held = poll(system, ann)
    assert system.run(system.sweep.sweep()) == 0
    assert not held.called
    cancel(held)
    assert found(system) == 0


def test_a_wake_up_that_is_merely_late_is_not_counted(system: System) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    held = poll(system, bob)
    system.bus.hold = True
    system.send(ann, 2, "hello")
    swept = system.start(system.sweep.sweep())
    assert not swept.called
    system.clock.advance(GRACE_SECONDS / 2)
    system.bus.release()
    system.settle()
    assert result_of(held).messages[0].text == "hello"
    system.clock.advance(GRACE_SECONDS)
    assert result_of(swept) == 0
    assert found(system) == 0


def test_a_client_that_disconnects_meanwhile_is_not_counted(system: System) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    held = poll(system, bob)
    system.bus.lose = True
    system.send(ann, 2, "hello")
    swept = system.start(system.sweep.sweep())
    cancel(held)
    system.clock.advance(GRACE_SECONDS)
    assert result_of(swept) == 0
    assert found(system) == 0


def test_a_poll_that_is_being_answered_is_not_counted(stepped: System) -> None:
    ann, bob = stepped.session("ann"), stepped.session("bob")
    held = poll(stepped, bob)
    sent = stepped.start(stepped.chats.send(ann, 2, "hello"))
    stepped.writer.work()
    # Committed, but not delivered to the reactor yet.
    swept = stepped.start(stepped.sweep.sweep())
    stepped.reader.step()
    stepped.settle()
    assert sent.called
    assert held.called
    stepped.clock.advance(GRACE_SECONDS)
    assert result_of(swept) == 0


def test_a_deleted_account_is_not_counted(system: System) -> None:
    bob = system.session("bob")
    held = poll(system, bob)
    # As if another process had deleted the account and its notice were late.
    system.wait_for(system.store.delete_account(1))
    assert system.run(system.sweep.sweep()) == 0
    cancel(held)


def test_a_sweep_queries_users_in_parts(stepped: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chatd.domain.sweep, "QUERY_SIZE", 2)
    sessions = [stepped.session(f"user{number}") for number in range(5)]
    held = [poll(stepped, each) for each in sessions]
    swept = stepped.start(stepped.sweep.sweep())
    steps = 0
    while stepped.reader.step():
        steps += 1
    assert steps == 3
    assert result_of(swept) == 0
    for each in held:
        cancel(each)


def test_sweeps_run_regularly_until_they_are_stopped(
    system: System, logged_failures: LoggedFailures
) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    system.sweep.start()
    system.bus.lose = True
    for number in (1, 2):
        held = poll(system, bob) if number == 1 else poll_after(system, bob, 1)
        system.send(ann, 2, "hello")
        system.clock.advance(SWEEP_SECONDS)
        system.clock.advance(GRACE_SECONDS)
        system.settle()
        assert held.called
        assert found(system) == number
    system.run(system.sweep.stop())
    logged_failures.flush_messages()
    held = poll_after(system, bob, 2)
    system.send(ann, 2, "hello")
    system.clock.advance(50)
    assert not held.called
    cancel(held)


def poll_after(system: System, session: Session, seq: int) -> Deferred[Polled]:
    since = chatd.model.Cursor(system.store.epoch, seq)
    return system.start(system.chats.poll(session, since, 100, 55))


def test_a_failed_sweep_is_logged_and_followed_by_the_next_one(
    system: System, logged_failures: LoggedFailures, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    held = poll(system, bob)
    system.sweep.start()
    monkeypatch.setattr(system.store, "last_seqs", lambda ids: fail(StoreUnavailable("disk", 1)))
    system.bus.lose = True
    system.send(ann, 2, "hello")
    system.clock.advance(SWEEP_SECONDS)
    assert len(logged_failures.flush(StoreUnavailable)) == 1
    monkeypatch.undo()
    system.clock.advance(SWEEP_SECONDS - 6)
    assert held.called is False
    system.clock.advance(6)
    # The poll has timed out by now; this only checks that the next sweep runs.
    system.settle()
    assert system.sweep._loop.running
    system.clock.advance(GRACE_SECONDS)
    system.run(system.sweep.stop())
    logged_failures.flush_messages()
    system.settle()
    assert held.called


def test_a_sweep_that_was_never_started_can_be_stopped(system: System) -> None:
    system.run(system.sweep.stop())


def test_stopping_ends_the_grace_time_of_a_sweep(
    system: System, logged_failures: LoggedFailures
) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    held = poll(system, bob)
    system.sweep.start()
    system.bus.lose = True
    system.send(ann, 2, "hello")
    system.clock.advance(SWEEP_SECONDS)
    # It waits for a late wake-up now.
    system.run(system.sweep.stop())
    assert logged_failures.flush() == []
    assert logged_failures.flush_messages() == []
    cancel(held)


def test_stopping_waits_only_for_the_query_of_a_sweep(stepped: System) -> None:
    ann, bob = stepped.session("ann"), stepped.session("bob")
    held = poll(stepped, bob)
    stepped.sweep.start()
    stepped.bus.lose = True
    stepped.send(ann, 2, "hello")
    stepped.clock.advance(SWEEP_SECONDS)
    stopped = stepped.start(stepped.sweep.stop())
    assert not fired(stopped)
    stepped.settle()
    assert fired(stopped)
    cancel(held)


def test_only_polls_that_missed_a_message_are_counted(system: System) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    missed = poll(system, bob)
    system.bus.lose = True
    system.send(ann, 2, "hello")
    # A poll that began after the message has missed nothing.
    up_to_date = poll_after(system, bob, 1)
    swept = system.start(system.sweep.sweep())
    system.clock.advance(GRACE_SECONDS)
    assert result_of(swept) == 1
    assert found(system) == 1
    system.settle()
    assert missed.called
    assert not up_to_date.called
    cancel(up_to_date)


def test_with_a_bus_that_may_lose_wake_ups_finding_some_is_no_error(
    system: System, logged_failures: LoggedFailures
) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    held = poll(system, bob)
    system.bus.lose = True
    sweep = Sweep(system.store, system.notifier, system.clock, system.metrics, lossy=True)
    system.send(ann, 2, "hello")
    sweep.start()
    system.clock.advance(LOSSY_SWEEP_SECONDS)
    system.settle()
    assert not held.called
    system.clock.advance(GRACE_SECONDS)
    system.settle()
    assert result_of(held).messages[0].text == "hello"
    assert found(system) == 1
    assert logged_failures.flush_messages() == []
    system.run(sweep.stop())
