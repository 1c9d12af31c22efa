"""Cached sessions, and revocations during look-ups."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

import chatd.domain.sessions
from chatd.domain.sessions import RevocationTracker, SessionCache
from chatd.model import Session

# RevocationTracker


def test_a_look_up_notices_revocations_of_its_user_only() -> None:
    revocations = RevocationTracker()
    revocations.record(1)
    with revocations.look_up() as since:
        assert not revocations.was_revoked(1, since)
        revocations.record(1)
        assert revocations.was_revoked(1, since)
        assert not revocations.was_revoked(2, since)
        with revocations.look_up() as later:
            assert not revocations.was_revoked(1, later)


def test_every_look_up_notices_a_revocation_of_all_sessions() -> None:
    revocations = RevocationTracker()
    with revocations.look_up() as since:
        revocations.record_all()
        assert revocations.was_revoked(1, since)
    with revocations.look_up() as since:
        assert not revocations.was_revoked(1, since)


def test_revocations_are_cache_only_during_look_ups() -> None:
    revocations = RevocationTracker()
    revocations.record(1)
    assert revocations._last_by_user == {}
    with revocations.look_up() as since:
        with revocations.look_up():
            revocations.record(2)
        assert revocations.was_revoked(2, since)
    assert revocations._last_by_user == {}


# SessionCache


def test_cached_sessions_expire() -> None:
    clock = Clock()
    cache = SessionCache(clock, 10)
    session = Session(1)
    cache.put(b"a", session)
    clock.advance(9)
    assert cache.get(b"a") is session
    assert cache.get(b"b") is None
    cache.put(b"a", session)
    clock.advance(9)
    assert cache.get(b"a") is session
    clock.advance(1)
    assert cache.get(b"a") is None
    assert not cache._sessions
    assert not cache._keys


def test_a_session_may_expire_earlier_than_the_cache() -> None:
    clock = Clock()
    cache = SessionCache(clock, 10)
    cache.put(b"a", Session(1), 4)
    cache.put(b"b", Session(1), 40)
    clock.advance(4)
    assert cache.get(b"a") is None
    assert cache.get(b"b") is not None
    clock.advance(6)
    assert cache.get(b"b") is None


def test_the_oldest_sessions_are_discarded_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chatd.domain.sessions, "MAX_CACHED", 2)
    cache = SessionCache(Clock(), 10)
    for key, user_id in ((b"a", 1), (b"b", 1), (b"c", 2)):
        cache.put(key, Session(user_id))
    assert [cache.get(key) for key in (b"a", b"b", b"c")] == [None, Session(1), Session(2)]
    assert cache._keys == {1: (b"b",), 2: (b"c",)}


def test_a_user_with_many_sessions_displaces_those_of_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chatd.domain.sessions, "MAX_CACHED", 4)
    monkeypatch.setattr(chatd.domain.sessions, "MAX_CACHED_OF_USER", 2)
    cache = SessionCache(Clock(), 10)
    cache.put(b"other", Session(2))
    for number in range(10):
        cache.put(b"%d" % number, Session(1))
        cache.put(b"%d" % number, Session(1))
    assert cache._keys == {1: (b"8", b"9"), 2: (b"other",)}
    assert set(cache._sessions) == {b"other", b"8", b"9"}
    cache.discard_user(1)
    assert set(cache._sessions) == {b"other"}
    assert cache._keys == {2: (b"other",)}


def test_all_sessions_of_a_user_can_be_discarded() -> None:
    cache = SessionCache(Clock(), 10)
    for key, user_id in ((b"a", 1), (b"b", 2), (b"c", 1)):
        cache.put(key, Session(user_id))
    cache.discard_user(1)
    cache.discard_user(3)
    assert [cache.get(key) for key in (b"a", b"b", b"c")] == [None, Session(2), None]
    cache.clear()
    assert cache.get(b"b") is None
    cache.discard_user(2)
