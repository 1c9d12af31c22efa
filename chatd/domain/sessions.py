"""What is remembered of callers: sessions, revocations meanwhile, when they were last seen."""

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

REMEMBERED: Final = 50_000
SEEN_EVERY: Final = 60_000_000
SEEN_FLUSH_SECONDS: Final = 2.0
SEEN_AT_ONCE: Final = 250
"""Accounts in one write: messages wait for it. Thousands may come back at the same moment."""
SEEN_PAUSE_SECONDS: Final = 0.1

_log = Logger()


class RevocationTracker:
    """Tells a look-up whether something of its user was revoked while it was under way."""

    def __init__(self) -> None:
        self._number = 0
        self._under_way = 0
        self._all = 0
        self._users: dict[int, int] = {}

    @contextmanager
    def watched(self) -> Iterator[int]:
        """Around a look-up; gives what `any` is to be asked with."""
        self._under_way += 1
        try:
            yield self._number
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._users.clear()

    def any(self, user_id: int, since: int) -> bool:
        """Whether the user, or everybody, was noted since then."""
        return max(self._all, self._users.get(user_id, 0)) > since

    def note(self, user_id: int) -> None:
        """Something of the user was revoked."""
        self._number += 1
        if self._under_way:
            self._users[user_id] = self._number

    def note_all(self) -> None:
        """Something of anybody may have been revoked."""
        self._number += 1
        self._all = self._number


class SessionCache:
    """Sessions by a hash of what proves them, for some seconds, the most recent `REMEMBERED`."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._sessions: OrderedDict[bytes, tuple[Session, float]] = OrderedDict()
        # Tuples: nearly everyone has one, and a set takes three times the room.
        self._keys: dict[int, tuple[bytes, ...]] = {}

    def get(self, key: bytes) -> Session | None:
        found = self._sessions.get(key)
        if found is None:
            return None
        if found[1] <= self._clock.seconds():
            self.forget(key)
            return None
        return found[0]

    def put(self, key: bytes, session: Session) -> None:
        self.forget(key)
        self._sessions[key] = (session, self._clock.seconds() + self._seconds)
        self._keys[session.user_id] = (*self._keys.get(session.user_id, ()), key)
        if len(self._sessions) > REMEMBERED:
            self.forget(next(iter(self._sessions)))

    def forget(self, key: bytes) -> None:
        found = self._sessions.pop(key, None)
        if found is not None:
            user_id = found[0].user_id
            keys = tuple(other for other in self._keys[user_id] if other != key)
            if keys:
                self._keys[user_id] = keys
            else:
                del self._keys[user_id]

    def forget_user(self, user_id: int) -> None:
        for key in self._keys.get(user_id, ()):
            self.forget(key)

    def clear(self) -> None:
        self._sessions.clear()
        self._keys.clear()


class LastSeenWriter:
    """`last_seen_at`, written at most once a minute an account, many accounts in one write."""

    def __init__(self, store: IStore, clock: IReactorTime, now: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._now = now
        self._last: OrderedDict[int, int] = OrderedDict()
        self._pending: dict[int, int] = {}
        self._flushing: IDelayedCall | None = None

    def now(self, user_id: int) -> None:
        at = self._now()
        last = self._last.get(user_id)
        if last is not None and at - last < SEEN_EVERY:
            return
        self._last[user_id] = self._pending[user_id] = at
        self._last.move_to_end(user_id)
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        if self._flushing is None:
            self._flushing = self._clock.callLater(SEEN_FLUSH_SECONDS, self._flush_later)

    def applied(self, account: Account) -> Account:
        """The account as it will be once everything is written."""
        at = self._last.get(account.id)
        if at is None or (account.last_seen_at or 0) >= at:
            return account
        return Account(account.id, account.username, account.email, account.date_joined, at)

    async def flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        pending, self._pending = self._pending, {}
        if pending:
            await self._store.record_seen(pending)

    def _flush_later(self) -> None:
        self._flushing = None
        if len(self._pending) > SEEN_AT_ONCE:
            self._flushing = self._clock.callLater(SEEN_PAUSE_SECONDS, self._flush_later)
        part = dict(islice(self._pending.items(), SEEN_AT_ONCE))
        for user_id in part:
            del self._pending[user_id]
        self._store.record_seen(part).addErrback(
            lambda failure: _log.failure("last_seen_at was not recorded", failure)
        )
