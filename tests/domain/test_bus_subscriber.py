"""The subscriber to the bus."""

from __future__ import annotations

import hashlib

import pytest
from twisted.internet.defer import Deferred, fail
from zope.interface.verify import verifyObject

import chatd.domain.bus_subscriber
from chatd.domain.poll import Polled
from chatd.errors import StoreUnavailable, Unauthorized
from chatd.interfaces import ISubscriber
from chatd.model import BEGINNING, AccountChange, Draft, Session, WakeReason
from tests.conftest import LoggedFailures
from tests.domain.waiters import DeferredWaiter
from tests.doubles import System, result_of
from tests.test_metrics import value


def poll(system: System, session: Session) -> Deferred[Polled]:
    held = system.start(system.chats.poll(session, BEGINNING, 100, 55))
    system.settle()
    assert not held.called
    return held


def woken(system: System, source: str) -> float | None:
    return value(system.metrics, "chatd_wakeups_total", source=source)


def session_with_token(system: System, name: str) -> Session:
    user_id = system.account(name).id
    token = hashlib.sha256(name.encode()).digest()
    system.wait_for(system.store.add_token(user_id, token))
    return Session(user_id, token)


def test_it_provides_the_interface(system: System) -> None:
    verifyObject(ISubscriber, system.subscriber)


def test_waking_ends_the_waits_of_the_users_and_is_counted(system: System) -> None:
    ann, bob = system.session("ann"), system.session("bob")
    waiters = [DeferredWaiter(each, system.notifier) for each in (ann, ann, bob)]
    ended = [each.wait(5, system.clock) for each in waiters]
    system.subscriber.wake([1, 4711])
    assert [each.called for each in ended] == [True, True, False]
    assert woken(system, "bus") == 2
    system.subscriber.wake_all()
    assert result_of(ended[2]) is WakeReason.MESSAGE
    assert woken(system, "resync") == 1
    for each in waiters:
        each.close()


def test_those_for_whom_a_turn_has_no_time_are_woken_in_the_next(system: System) -> None:
    sessions = [system.session(name) for name in ("ann", "bob", "cat", "dan")]
    waiters = [SlowWaiter(each, system) for each in sessions]
    users = [each.user_id for each in sessions]
    system.subscriber.wake(users[:3])
    assert woken_waiters(waiters) == [1, 1, 0, 0]
    # Whoever comes later does not overtake them, and nobody is woken twice for nothing.
    system.subscriber.wake([users[3], users[2]])
    assert woken_waiters(waiters) == [1, 1, 0, 0]
    system.clock.advance(0)
    assert woken_waiters(waiters) == [1, 1, 1, 1]
    assert woken(system, "bus") == 4
    system.clock.advance(0)
    system.subscriber.wake(users[:1])
    assert woken_waiters(waiters) == [2, 1, 1, 1]
    for each in waiters:
        system.notifier.remove(each)


def test_those_who_wait_for_changes_are_woken_in_several_turns_too(system: System) -> None:
    sessions = [system.session(name) for name in ("ann", "bob", "cat", "dan", "eve")]
    waiters = [SlowWaiter(each, system, wants_changes=True) for each in sessions[:4]]
    waiters.append(SlowWaiter(sessions[4], system))
    users = [each.user_id for each in sessions]
    system.subscriber.wake_for_changes(users[:3])
    assert woken_waiters(waiters) == [1, 1, 0, 0, 0]
    system.subscriber.wake_for_changes([users[4], users[3], users[2]])
    assert woken_waiters(waiters) == [1, 1, 0, 0, 0]
    system.clock.advance(0)
    assert woken_waiters(waiters) == [1, 1, 1, 1, 0]
    assert woken(system, "bus") == 4
    system.subscriber.wake_for_changes(users[:1])
    assert woken_waiters(waiters) == [2, 1, 1, 1, 0]
    for each in waiters:
        system.notifier.remove(each)


class SlowWaiter:
    """A waiter that is held all the time, and takes as long as half a turn to wake."""

    held = True
    is_behind = False
    seq = 0

    def __init__(self, session: Session, system: System, *, wants_changes: bool = False) -> None:
        self.session = session
        self.wants_changes = wants_changes
        self.woken = 0
        self._clock = system.clock
        system.notifier.add(self)

    def wake(self, reason: WakeReason) -> None:
        self.woken += 1
        self._clock.rightNow += chatd.domain.bus_subscriber.WAKE_SECONDS / 2

    def revoke(self) -> None:
        raise AssertionError


def woken_waiters(waiters: list[SlowWaiter]) -> list[int]:
    return [each.woken for each in waiters]


def test_changed_messages_are_counted_and_wake_nobody(system: System) -> None:
    ann = system.session("ann")
    held = poll(system, ann)
    for _ in range(2):
        system.subscriber.changed(ann.user_id, 1, 2)
    assert not held.called
    assert value(system.metrics, "chatd_changed_messages_total") == 2
    held.cancel()
    held.addErrback(lambda _: None)


def test_a_revocation_ends_waits_and_sessions(system: System) -> None:
    system.account("ann")
    issued = system.run(system.accounts.log_in("ann", "password", "192.0.2.1"))
    session = system.run(system.accounts.bearer(issued.token.encode("ascii")))
    held = poll(system, session)
    system.wait_for(system.store.delete_token(1, session.token or b""))
    system.subscriber.revoked(1, session.token)
    with pytest.raises(Unauthorized):
        result_of(held)
    with pytest.raises(Unauthorized):
        system.run(system.accounts.bearer(issued.token.encode("ascii")))
    system.run(system.accounts.stop())


def test_changed_sessions_are_looked_up_and_ended(stepped: System) -> None:
    """What another process has revoked, as its notice tells."""
    system = stepped
    ann, bob = session_with_token(system, "ann"), session_with_token(system, "bob")
    other = Session(ann.user_id, hashlib.sha256(b"other").digest())
    assert other.token is not None
    system.wait_for(system.store.add_token(other.user_id, other.token))
    old_hash = password_hash(system, ann.user_id)
    basic = Session(ann.user_id, password_hash=old_hash)
    sessions = (ann, other, basic, bob)
    polls = [poll(system, each) for each in sessions]
    # Nothing has changed.
    system.subscriber.sessions_changed(ann.user_id)
    system.settle()
    assert not any(held.called for held in polls)
    change = AccountChange(ann.user_id, old_hash, "new hash", kept=ann.token)
    system.wait_for(system.store.change_account(change))
    # Somebody else is told of: Ann's are not looked up.
    system.subscriber.sessions_changed(bob.user_id)
    system.settle()
    assert not any(held.called for held in polls)
    system.subscriber.sessions_changed(ann.user_id)
    system.settle()
    assert [held.called for held in polls] == [False, True, True, False]
    for held in polls[1:3]:
        with pytest.raises(Unauthorized):
            result_of(held)
    for each in (ann, bob):
        system.send(each, each.user_id, "still here")
    assert [result_of(polls[0]).why, result_of(polls[3]).why] == [WakeReason.MESSAGE] * 2


def password_hash(system: System, user_id: int) -> str:
    hashes: dict[int, str] = system.wait_for(system.store.password_hashes([user_id]))
    return hashes[user_id]


def test_a_password_changed_while_the_bus_was_down_ends_basic_polls(system: System) -> None:
    system.account("ann")
    session = system.run(system.accounts.basic("ann", "password", "192.0.2.1"))
    held = poll(system, session)
    change = AccountChange(1, password_hash(system, 1), "new hash")
    system.wait_for(system.store.change_account(change))
    system.subscriber.wake_all()
    system.settle()
    with pytest.raises(Unauthorized):
        result_of(held)
    system.run(system.accounts.stop())


def test_changed_sessions_that_could_not_be_looked_up_are_ended_by_the_sweep(
    system: System, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    ann = session_with_token(system, "ann")
    held = poll(system, ann)
    system.wait_for(system.store.delete_other_tokens(ann.user_id, None))
    with monkeypatch.context() as patch:
        patch.setattr(
            system.store, "sessions", lambda *_: fail(StoreUnavailable("away", retry_after=1))
        )
        system.subscriber.sessions_changed(ann.user_id)
        system.settle()
    assert len(logged_failures.flush(StoreUnavailable)) == 1
    assert not held.called
    assert system.run(system.sweep.sweep()) == 0
    with pytest.raises(Unauthorized):
        result_of(held)


def test_checked_users_are_woken_if_they_have_missed_a_message(system: System) -> None:
    ann, bob = session_with_token(system, "ann"), session_with_token(system, "bob")
    polls = [poll(system, each) for each in (ann, bob)]
    system.subscriber.check([ann.user_id, bob.user_id, 4711])
    system.settle()
    assert not any(held.called for held in polls)
    # Another process stored this, and its wake-up was lost.
    system.wait_for(system.store.append([Draft(ann.user_id, bob.user_id, "hello")]))
    system.subscriber.check([ann.user_id, bob.user_id])
    system.settle()
    assert not polls[0].called
    assert [message.text for message in result_of(polls[1]).messages] == ["hello"]
    assert woken(system, "check") == 1
    polls[0].cancel()
    polls[0].addErrback(lambda _: None)


def test_a_check_wakes_who_waits_for_changes(system: System) -> None:
    class ChangesWaiter(DeferredWaiter):
        wants_changes = True

    ann = session_with_token(system, "ann")
    waiter = ChangesWaiter(ann, system.notifier)
    waited = waiter.wait(5, system.clock)
    system.subscriber.check([ann.user_id])
    system.settle()
    assert result_of(waited) is WakeReason.MESSAGE
    waiter.close()


def test_a_check_that_fails_is_left_to_the_sweep(
    system: System, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    ann = session_with_token(system, "ann")
    held = poll(system, ann)
    for error in (StoreUnavailable("away", retry_after=1), ZeroDivisionError()):
        monkeypatch.setattr(system.store, "last_seqs", lambda _, error=error: fail(error))
        system.subscriber.check([ann.user_id])
        system.settle()
        assert not held.called
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    held.cancel()
    held.addErrback(lambda _: None)


# The sweep


def test_revocations_missed_while_the_bus_was_down_end_their_polls(
    system: System,
) -> None:
    sessions = [session_with_token(system, name) for name in ("ann", "bob", "cat", "dan")]
    ann, bob, cat, dan = sessions
    polls = [poll(system, each) for each in sessions]
    # Another process did this, without a notice.
    assert bob.token is not None
    system.wait_for(system.store.delete_token(bob.user_id, bob.token))
    system.wait_for(system.store.delete_account(cat.user_id))
    system.subscriber.wake_all()
    system.settle()
    assert [held.called for held in polls] == [False, True, True, False]
    for held in polls[1:3]:
        with pytest.raises(Unauthorized):
            result_of(held)
    for each in (ann, dan):
        system.send(each, each.user_id, "still here")
    assert [result_of(held).why for held in (polls[0], polls[3])] == [WakeReason.MESSAGE] * 2


def test_sessions_are_verified_in_parts(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chatd.domain.bus_subscriber, "QUERY_SIZE", 2)
    sessions = [session_with_token(system, f"user{number}") for number in range(5)]
    polls = [poll(system, each) for each in sessions]
    for each in sessions:
        assert each.token is not None
        system.wait_for(system.store.delete_token(each.user_id, each.token))
    system.subscriber.wake_all()
    system.settle()
    for held in polls:
        with pytest.raises(Unauthorized):
            result_of(held)


def test_a_failed_verification_is_repeated_by_the_next_sweep(
    system: System, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    ann = session_with_token(system, "ann")
    held = poll(system, ann)
    assert ann.token is not None
    system.wait_for(system.store.delete_token(ann.user_id, ann.token))
    with monkeypatch.context() as patch:
        patch.setattr(
            system.store, "sessions", lambda *_: fail(StoreUnavailable("away", retry_after=1))
        )
        system.subscriber.wake_all()
        system.settle()
    assert len(logged_failures.flush(StoreUnavailable)) == 1
    assert not held.called
    sweep = system.sweep
    assert system.run(sweep.sweep()) == 0
    with pytest.raises(Unauthorized):
        result_of(held)
    # Once it succeeded, it is not repeated.
    monkeypatch.delattr(type(system.store), "sessions")
    assert system.run(sweep.sweep()) == 0
