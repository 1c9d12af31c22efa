"""Writes of `last_seen_at` and `last_used_at`."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

import chatd.domain.last_seen
from chatd.domain.last_seen import (
    LAST_SEEN_BATCH,
    LAST_SEEN_BATCH_PAUSE_SECONDS,
    LAST_SEEN_FLUSH_SECONDS,
    LAST_SEEN_RESOLUTION,
    LastSeenWriter,
)
from chatd.errors import StoreUnavailable
from chatd.model import Account, EncodedTokens, Session
from tests.conftest import LoggedFailures
from tests.doubles import result_of


class FakeStore:
    """Records every write: `last_seen_at` by user, and `last_used_at` by token."""

    def __init__(self) -> None:
        self.writes: list[dict[int, int]] = []
        self.used: list[dict[bytes, int]] = []
        self.result: Deferred[None] = succeed(None)

    def record_seen(self, users: dict[int, int], tokens: dict[bytes, int]) -> Deferred[None]:
        self.writes.append(dict(users))
        self.used.append(dict(tokens))
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

    def used(self, digest: bytes, written: int | None = None) -> int | None:
        """The `last_used_at` shown for a token that has `written` in the store."""
        other = b"never used"
        tokens = EncodedTokens(2, "", [other, digest], [None, written])
        later = self.seen.later_uses(tokens)
        assert later in ({}, {1: later.get(1)})
        return later.get(1, written)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_an_active_account_is_written_once_a_minute(watch: Watch) -> None:
    first = watch.now()
    for _ in range(60):
        watch.seen.touch(Session(1))
        watch.clock.advance(1)
    assert watch.store.writes == [{1: first}]
    assert watch.shown() == first
    watch.seen.touch(Session(1))
    assert watch.shown() == first + LAST_SEEN_RESOLUTION
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert watch.store.writes[1:] == [{1: first + LAST_SEEN_RESOLUTION}]


def test_many_accounts_share_a_write(watch: Watch) -> None:
    at = watch.now()
    for user_id in (1, 2, 3):
        watch.seen.touch(Session(user_id))
    assert watch.store.writes == []
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert watch.store.writes == [{1: at, 2: at, 3: at}]
    assert watch.clock.getDelayedCalls() == []


def test_very_many_accounts_are_written_in_batches(watch: Watch) -> None:
    everybody = dict.fromkeys(range(1, 2 * LAST_SEEN_BATCH + 2), watch.now())
    for user_id in everybody:
        watch.seen.touch(Session(user_id))
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert [len(part) for part in watch.store.writes] == [LAST_SEEN_BATCH]
    watch.clock.pump([LAST_SEEN_BATCH_PAUSE_SECONDS] * 2)
    assert [len(part) for part in watch.store.writes] == [LAST_SEEN_BATCH, LAST_SEEN_BATCH, 1]
    assert {user: at for part in watch.store.writes for user, at in part.items()} == everybody
    assert watch.clock.getDelayedCalls() == []


def test_flushing_writes_pending_accounts_once(watch: Watch) -> None:
    watch.seen.touch(Session(1))
    for _ in range(2):
        result_of(Deferred.fromCoroutine(watch.seen.flush()))
    assert watch.store.writes == [{1: watch.now()}]
    assert watch.clock.getDelayedCalls() == []


def test_a_clock_that_is_set_back_changes_nothing(watch: Watch) -> None:
    first = watch.now()
    watch.seen.touch(Session(1))
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    watch.set_back = 3_600_000_000
    watch.seen.touch(Session(1))
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert watch.store.writes == [{1: first}]
    assert watch.shown() == first


def test_the_later_of_the_stored_and_the_pending_time_is_shown(watch: Watch) -> None:
    assert watch.shown() is None
    assert watch.shown(written=5) == 5
    watch.seen.touch(Session(1))
    assert watch.shown() == watch.shown(written=5) == watch.now()
    # Another process has seen the user since.
    assert watch.shown(written=watch.now() + 1) == watch.now() + 1


def test_what_an_unavailable_store_does_not_take_is_written_again(watch: Watch) -> None:
    watch.store.result = Deferred()
    watch.seen.touch(Session(1, b"t"))
    seen = watch.now()
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    watch.seen.touch(Session(2))
    failed, watch.store.result = watch.store.result, succeed(None)
    failed.errback(StoreUnavailable("disk", 1))
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    later = seen + int(LAST_SEEN_FLUSH_SECONDS * 1e6)
    assert watch.store.writes == [{1: seen}, {1: seen, 2: later}]
    assert watch.store.used == [{b"t": seen}] * 2


def test_a_write_that_fails_during_the_last_one_is_not_made_again(watch: Watch) -> None:
    early, last = Deferred[None](), Deferred[None]()
    watch.store.result = early
    watch.seen.touch(Session(1))
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    watch.store.result = last
    watch.seen.touch(Session(2))
    flushed = Deferred.fromCoroutine(watch.seen.flush())
    early.errback(StoreUnavailable("disk", 1))
    last.errback(StoreUnavailable("disk", 1))
    with pytest.raises(StoreUnavailable):
        result_of(flushed)
    assert watch.clock.getDelayedCalls() == []


def test_a_failed_write_is_logged_and_made_up_for_by_the_next_one(
    watch: Watch, logged_failures: LoggedFailures
) -> None:
    watch.store.result = Deferred()
    watch.seen.touch(Session(1))
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    watch.store.result.errback(ZeroDivisionError())
    assert len(logged_failures.flush(ZeroDivisionError)) == 1
    watch.store.result = succeed(None)
    watch.clock.advance(60)
    again = watch.now()
    watch.seen.touch(Session(1))
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert watch.store.writes[1:] == [{1: again}]


def test_the_least_recently_seen_account_is_discarded(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatd.domain.last_seen, "MAX_REMEMBERED", 2)
    for user_id in (1, 2, 3):
        watch.seen.touch(Session(user_id))
    assert [watch.shown(user_id) for user_id in (1, 2, 3)] == [None, watch.now(), watch.now()]
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert [sorted(write) for write in watch.store.writes] == [[1, 2, 3]]


PHONE, PAGE = Session(1, b"phone", 1), Session(1, b"page", 2)


def test_the_use_of_a_token_is_written_with_its_user(watch: Watch) -> None:
    at = watch.now()
    watch.seen.touch(PHONE)
    watch.seen.touch(PHONE)
    assert watch.used(b"phone") == at
    assert watch.used(b"page") is None
    assert watch.used(b"phone", written=at + 1) == at + 1
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert (watch.store.writes, watch.store.used) == ([{1: at}], [{b"phone": at}])


def test_a_second_token_is_written_without_its_user(watch: Watch) -> None:
    watch.seen.touch(PHONE)
    watch.clock.advance(30)
    at = watch.now()
    watch.seen.touch(PAGE)
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    assert (watch.store.writes[1:], watch.store.used[1:]) == ([{}], [{b"page": at}])


def test_several_tokens_keep_their_user_up_to_date(watch: Watch) -> None:
    first = watch.now()
    watch.seen.touch(PHONE)
    watch.clock.advance(59)
    watch.seen.touch(PAGE)
    assert watch.shown() == first
    watch.clock.advance(1)
    watch.seen.touch(PAGE)
    # A minute after the phone, though the page itself was recorded a second ago.
    assert watch.shown() == watch.now()
    assert watch.used(b"page") == watch.now() - 1_000_000
    watch.clock.advance(58)
    watch.seen.touch(PAGE)
    assert watch.used(b"page") == watch.now() - 59_000_000
    watch.clock.advance(1)
    watch.seen.touch(PAGE)
    assert watch.used(b"page") == watch.now()
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)


def test_very_many_tokens_are_written_in_batches(watch: Watch) -> None:
    for number in range(LAST_SEEN_BATCH + 1):
        watch.seen.touch(Session(1, b"%d" % number, number))
    watch.clock.advance(LAST_SEEN_FLUSH_SECONDS)
    watch.clock.advance(LAST_SEEN_BATCH_PAUSE_SECONDS)
    assert [len(part) for part in watch.store.used] == [LAST_SEEN_BATCH, 1]
    assert watch.store.writes[1:] == [{}]
    assert watch.clock.getDelayedCalls() == []
