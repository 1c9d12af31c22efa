"""What is remembered of callers, what overtakes a look-up, and when somebody was last seen."""

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

# Overtaken


def test_a_look_up_is_revocations_by_what_is_revoked_of_its_user_meanwhile() -> None:
    revocations = RevocationTracker()
    revocations.record(1)
    with revocations.look_up() as since:
        assert not revocations.was_revoked(1, since)
        revocations.record(1)
        assert revocations.was_revoked(1, since)
        assert not revocations.was_revoked(2, since)
        with revocations.look_up() as later:
            assert not revocations.was_revoked(1, later)


def test_every_look_up_is_revocations_when_anything_may_have_been_revoked() -> None:
    revocations = RevocationTracker()
    with revocations.look_up() as since:
        revocations.record_all()
        assert revocations.was_revoked(1, since)
    with revocations.look_up() as since:
        assert not revocations.was_revoked(1, since)


def test_revocations_are_kept_while_somebody_looks_up_and_no_longer() -> None:
    revocations = RevocationTracker()
    revocations.record(1)
    assert revocations._last_by_user == {}
    with revocations.look_up() as since:
        with revocations.look_up():
            revocations.record(2)
        assert revocations.was_revoked(2, since)
    assert revocations._last_by_user == {}


# Remembered


def test_a_session_is_remembered_for_some_seconds() -> None:
    clock = Clock()
    remembered = SessionCache(clock, 10)
    session = Session(1)
    remembered.put(b"a", session)
    clock.advance(9)
    assert remembered.get(b"a") is session
    assert remembered.get(b"b") is None
    remembered.put(b"a", session)
    clock.advance(9)
    assert remembered.get(b"a") is session
    clock.advance(1)
    assert remembered.get(b"a") is None
    assert not remembered._sessions
    assert not remembered._keys


def test_the_longest_remembered_sessions_are_forgotten_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chatd.domain.sessions, "MAX_CACHED", 2)
    remembered = SessionCache(Clock(), 10)
    for key, user_id in ((b"a", 1), (b"b", 1), (b"c", 2)):
        remembered.put(key, Session(user_id))
    assert [remembered.get(key) for key in (b"a", b"b", b"c")] == [None, Session(1), Session(2)]
    assert remembered._keys == {1: (b"b",), 2: (b"c",)}


def test_all_sessions_of_a_user_can_be_forgotten() -> None:
    remembered = SessionCache(Clock(), 10)
    for key, user_id in ((b"a", 1), (b"b", 2), (b"c", 1)):
        remembered.put(key, Session(user_id))
    remembered.discard_user(1)
    remembered.discard_user(3)
    assert [remembered.get(key) for key in (b"a", b"b", b"c")] == [None, Session(2), None]
    remembered.clear()
    assert remembered.get(b"b") is None
    remembered.discard_user(2)


# Seen


class Written:
    """Stands for the store: what was written of users, write by write."""

    def __init__(self) -> None:
        self.writes: list[dict[int, int]] = []
        self.answer: Deferred[None] = succeed(None)

    def record_seen(self, seen: dict[int, int]) -> Deferred[None]:
        self.writes.append(dict(seen))
        return self.answer


class Watch:
    """`LastSeenWriter`, and all that it is told: the time of the clock starts at 1,000 s."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = Written()
        self.set_back = 0
        store: Any = self.store
        self.seen = LastSeenWriter(store, self.clock, self.now)

    def now(self) -> int:
        return 1_000_000_000 + int(self.clock.seconds() * 1_000_000) - self.set_back

    def shown(self, user_id: int = 1, written: int | None = None) -> int | None:
        """What is shown of an account of which this is written."""
        return self.seen.with_last_seen(Account(user_id, "ann", "a@b", 0, written)).last_seen_at


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_a_busy_client_is_written_down_once_a_minute(watch: Watch) -> None:
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


def test_many_who_were_seen_are_one_write(watch: Watch) -> None:
    at = watch.now()
    for user_id in (1, 2, 3):
        watch.seen.touch(user_id)
    assert watch.store.writes == []
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert watch.store.writes == [{1: at, 2: at, 3: at}]
    assert watch.clock.getDelayedCalls() == []


def test_a_crowd_is_written_in_parts_so_that_messages_need_not_wait_for_all(watch: Watch) -> None:
    everybody = dict.fromkeys(range(1, 2 * LAST_SEEN_BATCH + 2), watch.now())
    for user_id in everybody:
        watch.seen.touch(user_id)
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert [len(part) for part in watch.store.writes] == [LAST_SEEN_BATCH]
    watch.clock.pump([LAST_SEEN_BATCH_PAUSE_SECONDS] * 2)
    assert [len(part) for part in watch.store.writes] == [LAST_SEEN_BATCH, LAST_SEEN_BATCH, 1]
    assert {user: at for part in watch.store.writes for user, at in part.items()} == everybody
    assert watch.clock.getDelayedCalls() == []


def test_what_is_not_written_yet_is_written_when_asked(watch: Watch) -> None:
    watch.seen.touch(1)
    for _ in range(2):
        result_of(Deferred.fromCoroutine(watch.seen.flush()))
    assert watch.store.writes == [{1: watch.now()}]
    assert watch.clock.getDelayedCalls() == []


def test_a_clock_that_was_set_back_changes_nothing(watch: Watch) -> None:
    first = watch.now()
    watch.seen.touch(1)
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    watch.set_back = 3_600_000_000
    watch.seen.touch(1)
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert watch.store.writes == [{1: first}]
    assert watch.shown() == first


def test_the_later_of_what_is_written_and_what_is_known_here_is_shown(watch: Watch) -> None:
    assert watch.shown() is None
    assert watch.shown(written=5) == 5
    watch.seen.touch(1)
    assert watch.shown() == watch.shown(written=5) == watch.now()
    # Another process has seen them since.
    assert watch.shown(written=watch.now() + 1) == watch.now() + 1


def test_a_write_that_fails_is_logged_and_tried_again_with_the_next_one(
    watch: Watch, logged_failures: LoggedFailures
) -> None:
    watch.store.answer = Deferred()
    watch.seen.touch(1)
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    watch.store.answer.errback(StoreUnavailable("disk", 1))
    assert len(logged_failures.flush(StoreUnavailable)) == 1
    watch.store.answer = succeed(None)
    watch.clock.advance(60)
    again = watch.now()
    watch.seen.touch(1)
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert watch.store.writes[1:] == [{1: again}]


def test_what_is_known_of_the_longest_unseen_is_forgotten(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatd.domain.sessions, "MAX_CACHED", 2)
    for user_id in (1, 2, 3):
        watch.seen.touch(user_id)
    assert [watch.shown(user_id) for user_id in (1, 2, 3)] == [None, watch.now(), watch.now()]
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert [sorted(write) for write in watch.store.writes] == [[1, 2, 3]]
