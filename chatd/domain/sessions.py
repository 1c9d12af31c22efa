"""Caches of authenticated sessions, revocations during look-ups, and writes of `last_seen_at`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chatd.interfaces import IStore
from chatd.model import Account, Session

MAX_CACHED: Final = 50_000
LAST_SEEN_RESOLUTION: Final = 60_000_000
"""Microseconds after which `last_seen_at` of an active account is written again."""
LAST_SEEN_FLUSH_SECONDS: Final = 2.0
LAST_SEEN_BATCH: Final = 250
"""Accounts per write: thousands of clients may reconnect at once, and sends wait for a write."""
LAST_SEEN_BATCH_PAUSE_SECONDS: Final = 0.1

_log = Logger()


class RevocationTracker:
    """Tells whether a user's sessions were revoked while one of them was being looked up.

    Revocations have increasing numbers; they are remembered only while a look-up runs.
    """

    def __init__(self) -> None:
        self._last = 0
        self._look_ups = 0
        self._last_of_all = 0
        self._last_by_user: dict[int, int] = {}

    @contextmanager
    def look_up(self) -> Iterator[int]:
        """Surround a look-up; yields the `since` argument of `was_revoked`."""
        self._look_ups += 1
        try:
            yield self._last
        finally:
            self._look_ups -= 1
            if not self._look_ups:
                self._last_by_user.clear()

    def was_revoked(self, user_id: int, since: int) -> bool:
        """Whether sessions of the user, or of all users, were revoked after `since`."""
        return max(self._last_of_all, self._last_by_user.get(user_id, 0)) > since

    def record(self, user_id: int) -> None:
        """Record a revocation of one or all sessions of a user."""
        self._last += 1
        if self._look_ups:
            self._last_by_user[user_id] = self._last

    def record_all(self) -> None:
        """Record that any session may have been revoked."""
        self._last += 1
        self._last_of_all = self._last


class SessionCache:
    """Sessions by a hash of their credentials: at most `MAX_CACHED`, each for `seconds`."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._sessions: OrderedDict[bytes, tuple[Session, float]] = OrderedDict()
        # Tuples: most users have one session, and a set takes three times the memory.
        self._keys: dict[int, tuple[bytes, ...]] = {}

    def get(self, key: bytes) -> Session | None:
        entry = self._sessions.get(key)
        if entry is None:
            return None
        session, expires_at = entry
        if expires_at <= self._clock.seconds():
            self.discard(key)
            return None
        return session

    def put(self, key: bytes, session: Session) -> None:
        self.discard(key)
        self._sessions[key] = (session, self._clock.seconds() + self._seconds)
        self._keys[session.user_id] = (*self._keys.get(session.user_id, ()), key)
        if len(self._sessions) > MAX_CACHED:
            self.discard(next(iter(self._sessions)))

    def discard(self, key: bytes) -> None:
        entry = self._sessions.pop(key, None)
        if entry is not None:
            user_id = entry[0].user_id
            keys = tuple(other for other in self._keys[user_id] if other != key)
            if keys:
                self._keys[user_id] = keys
            else:
                del self._keys[user_id]

    def discard_user(self, user_id: int) -> None:
        for key in self._keys.get(user_id, ()):
            self.discard(key)

    def clear(self) -> None:
        self._sessions.clear()
        self._keys.clear()


class LastSeenWriter:
    """Writes `last_seen_at`, at most once a minute per account, many accounts in one write.

    `now` returns microseconds since the Unix epoch.
    """

    def __init__(self, store: IStore, clock: IReactorTime, now: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._now = now
        self._last: OrderedDict[int, int] = OrderedDict()
        self._pending: dict[int, int] = {}
        self._scheduled: IDelayedCall | None = None

    def touch(self, user_id: int) -> None:
        """Record that the user has made a request now."""
        now = self._now()
        last = self._last.get(user_id)
        if last is not None and now - last < LAST_SEEN_RESOLUTION:
            return
        self._last[user_id] = self._pending[user_id] = now
        self._last.move_to_end(user_id)
        if len(self._last) > MAX_CACHED:
            self._last.popitem(last=False)
        if self._scheduled is None:
            self._scheduled = self._clock.callLater(LAST_SEEN_FLUSH_SECONDS, self._write_batch)

    def with_last_seen(self, account: Account) -> Account:
        """The account with the latest `last_seen_at`, whether it is written yet or not."""
        last = self._last.get(account.id)
        if last is None or (account.last_seen_at or 0) >= last:
            return account
        return Account(account.id, account.username, account.email, account.date_joined, last)

    async def flush(self) -> None:
        """Write everything that is pending."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        pending, self._pending = self._pending, {}
        if pending:
            await self._store.record_seen(pending)

    def _write_batch(self) -> None:
        self._scheduled = None
        if len(self._pending) > LAST_SEEN_BATCH:
            self._scheduled = self._clock.callLater(
                LAST_SEEN_BATCH_PAUSE_SECONDS, self._write_batch
            )
        batch = dict(islice(self._pending.items(), LAST_SEEN_BATCH))
        for user_id in batch:
            del self._pending[user_id]
        self._store.record_seen(batch).addErrback(
            lambda failure: _log.failure("last_seen_at could not be written", failure)
        )
