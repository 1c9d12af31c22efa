"""Caches of authenticated sessions, and revocations during look-ups."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Final

from twisted.internet.interfaces import IReactorTime

from chatd.model import Session

MAX_CACHED: Final = 50_000
MAX_CACHED_OF_USER: Final = 100
"""Sessions of one user, who may have any number of tokens: whoever has more of them in use neither
displaces those of others, nor makes dropping them take long."""


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
    """Sessions by a hash of their credentials: at most `MAX_CACHED`, `MAX_CACHED_OF_USER` of them
    of one user, each for `seconds`."""

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

    def put(self, key: bytes, session: Session, seconds: float = inf) -> None:
        """Add a session for at most so many seconds."""
        self.discard(key)
        keys = self._keys.get(session.user_id, ())
        if len(keys) >= MAX_CACHED_OF_USER:
            del self._sessions[keys[0]]
            keys = keys[1:]
        self._sessions[key] = (session, self._clock.seconds() + min(self._seconds, seconds))
        self._keys[session.user_id] = (*keys, key)
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
        for key in self._keys.pop(user_id, ()):
            del self._sessions[key]

    def clear(self) -> None:
        self._sessions.clear()
        self._keys.clear()
