"""Cached sessions, revocations during look-ups, and writes of `last_seen_at`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

import chatd.domain.sessions
from chatd.domain.sessions import (
    LAST_SEEN_BATCH,
    LAST_SEEN_BATCH_PAUSE_SECONDS,
    LAST_SEEN_FLUSH_SECONDS,
    LAST_SEEN_RESOLUTION,
    LastSeenWriter,
    RevocationTracker,
    SessionCache,
)
from chatd.errors import StoreUnavailable
from chatd.model import Account, Session
from tests.conftest import LoggedFailures
from tests.doubles import result_of

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


def test_the_oldest_sessions_are_discarded_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chatd.domain.sessions, "MAX_CACHED", 2)
    cache = SessionCache(Clock(), 10)
    for key, user_id in ((b"a", 1), (b"b", 1), (b"c", 2)):
        cache.put(key, Session(user_id))
    assert [cache.get(key) for key in (b"a", b"b", b"c")] == [None, Session(1), Session(2)]
    assert cache._keys == {1: (b"b",), 2: (b"c",)}


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


# LastSeenWriter


class FakeStore:
    """Records every write of `last_seen_at`."""

    def __init__(self) -> None:
        self.writes: list[dict[int, int]] = []
        self.result: Deferred[None] = succeed(None)

    def record_seen(self, seen: dict[int, int]) -> Deferred[None]:
        self.writes.append(dict(seen))
        return self.result


class Watch:
    """A `LastSeenWriter` with a clock that starts at 1,000 s."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = FakeStore()
        self.set_back = 0
        store: Any = self.store
        self.seen = LastSeenWriter(store, self.clock, self.now)

    def now(self) -> int:
        return 1_000_000_000 + int(self.clock.seconds() * 1_000_000) - self.set_back

    def shown(self, user_id: int = 1, written: int | None = None) -> int | None:
        """The `last_seen_at` shown for an account that has `written` in the store."""
        return self.seen.with_last_seen(Account(user_id, "ann", "a@b", 0, written)).last_seen_at


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_an_active_account_is_written_once_a_minute(watch: Watch) -> None:
    first = watch.now()
    for _ in range(60):
        watch.seen.touch(1)
        watch.clock.advance(1)
    assert watch.store.writes == [{1: first}]
    assert watch.shown() == first
    watch.seen.touch(1)
    assert watch.shown() == first + LAST_SEEN_RESOLUTION
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert watch.store.writes[1:] == [{1: first + LAST_SEEN_RESOLUTION}]


def test_many_accounts_share_a_write(watch: Watch) -> None:
    at = watch.now()
    for user_id in (1, 2, 3):
        watch.seen.touch(user_id)
    assert watch.store.writes == []
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert watch.store.writes == [{1: at, 2: at, 3: at}]
    assert watch.clock.getDelayedCalls() == []


def test_very_many_accounts_are_written_in_batches(watch: Watch) -> None:
    everybody = dict.fromkeys(range(1, 2 * LAST_SEEN_BATCH + 2), watch.now())
    for user_id in everybody:
        watch.seen.touch(user_id)
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert [len(part) for part in watch.store.writes] == [LAST_SEEN_BATCH]
    watch.clock.pump([LAST_SEEN_BATCH_PAUSE_SECONDS] * 2)
    assert [len(part) for part in watch.store.writes] == [LAST_SEEN_BATCH, LAST_SEEN_BATCH, 1]
    assert {user: at for part in watch.store.writes for user, at in part.items()} == everybody
    assert watch.clock.getDelayedCalls() == []


def test_flushing_writes_pending_accounts_once(watch: Watch) -> None:
    watch.seen.touch(1)
    for _ in range(2):
        result_of(Deferred.fromCoroutine(watch.seen.flush()))
    assert watch.store.writes == [{1: watch.now()}]
    assert watch.clock.getDelayedCalls() == []


def test_a_clock_that_is_set_back_changes_nothing(watch: Watch) -> None:
    first = watch.now()
    watch.seen.touch(1)
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    watch.set_back = 3_600_000_000
    watch.seen.touch(1)
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert watch.store.writes == [{1: first}]
    assert watch.shown() == first


def test_the_later_of_the_stored_and_the_pending_time_is_shown(watch: Watch) -> None:
    assert watch.shown() is None
    assert watch.shown(written=5) == 5
    watch.seen.touch(1)
    assert watch.shown() == watch.shown(written=5) == watch.now()
    # Another process has seen the user since.
    assert watch.shown(written=watch.now() + 1) == watch.now() + 1


def test_a_failed_write_is_logged_and_made_up_for_by_the_next_one(
    watch: Watch, logged_failures: LoggedFailures
) -> None:
    watch.store.result = Deferred()
    watch.seen.touch(1)
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    watch.store.result.errback(StoreUnavailable("disk", 1))
    assert len(logged_failures.flush(StoreUnavailable)) == 1
    watch.store.result = succeed(None)
    watch.clock.advance(60)
    again = watch.now()
    watch.seen.touch(1)
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert watch.store.writes[1:] == [{1: again}]


def test_the_least_recently_seen_account_is_discarded(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatd.domain.sessions, "MAX_CACHED", 2)
    for user_id in (1, 2, 3):
        watch.seen.touch(user_id)
    assert [watch.shown(user_id) for user_id in (1, 2, 3)] == [None, watch.now(), watch.now()]
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert [sorted(write) for write in watch.store.writes] == [[1, 2, 3]]
