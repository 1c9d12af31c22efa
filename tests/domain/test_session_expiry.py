"""Polls and streams whose tokens expire."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from chatd.domain.session_expiry import SessionExpiry
from chatd.model import Session
from tests.doubles import Now


class Waiter:
    """A poll that notes whether it was ended."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.revoked = 0

    def revoke(self) -> None:
        self.revoked += 1


class Expiring:
    """A `SessionExpiry` with waiters whose tokens expire after so many seconds."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.now = Now(self.clock)
        self.expiry = SessionExpiry(self.clock, self.now)

    def watch(self, seconds: float | None) -> Waiter:
        expires_at = None if seconds is None else self.now() + round(seconds * 1_000_000)
        waiter = Waiter(Session(1, b"token", 1, expires_at=expires_at))
        self.expiry.watch(waiter)
        return waiter


@pytest.fixture
def expiring() -> Expiring:
    return Expiring()


def test_waiters_end_when_their_sessions_expire(expiring: Expiring) -> None:
    soon, later, never = (expiring.watch(seconds) for seconds in (10, 20, None))
    expiring.clock.advance(9.9)
    assert (soon.revoked, later.revoked) == (0, 0)
    expiring.clock.advance(0.1)
    assert (soon.revoked, later.revoked) == (1, 0)
    expiring.clock.advance(10)
    assert (soon.revoked, later.revoked, never.revoked) == (1, 1, 0)


def test_a_clock_that_was_set_back_ends_no_session_early(expiring: Expiring) -> None:
    waiter = expiring.watch(10)
    expiring.now.offset -= 60_000_000
    expiring.clock.advance(69)
    assert waiter.revoked == 0
    expiring.clock.advance(1)
    assert waiter.revoked == 1


def test_waiters_that_have_ended_leave_nothing_behind(expiring: Expiring) -> None:
    waiters = [expiring.watch(seconds) for seconds in (10, 20, None)]
    expiring.clock.advance(10)
    for waiter in waiters:
        expiring.expiry.unwatch(waiter)
    assert expiring.clock.getDelayedCalls() == []
    assert [waiter.revoked for waiter in waiters] == [1, 0, 0]


def test_a_session_that_has_expired_already_ends_at_once(expiring: Expiring) -> None:
    waiter = expiring.watch(-5)
    expiring.clock.advance(0)
    assert waiter.revoked == 1
