"""Writes of `last_seen_at` of accounts and `last_used_at` of tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Final, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.errors import StoreUnavailable
from chatd.interfaces import IStore
from chatd.model import Account, EncodedTokens, Session

K = TypeVar("K", int, bytes)

MAX_REMEMBERED: Final = 50_000
LAST_SEEN_RESOLUTION: Final = 60_000_000
"""Microseconds after which the time of an active account or token is written again."""
LAST_SEEN_FLUSH_SECONDS: Final = 2.0
LAST_SEEN_BATCH: Final = 250
"""Accounts, and tokens, per write: thousands of clients may reconnect at once, and sends wait for a
write."""
LAST_SEEN_BATCH_PAUSE_SECONDS: Final = 0.1

_log = Logger()


class _Times(Generic[K]):
    """The latest times of at most `MAX_REMEMBERED` accounts or tokens, and those to be written."""

    def __init__(self) -> None:
        self._latest: OrderedDict[K, int] = OrderedDict()
        self.pending: dict[K, int] = {}

    def record(self, key: K, now: int) -> int:
        """Record a use, unless the last one is recent; returns when the next one will count."""
        last = self._latest.get(key)
        if last is not None and now - last < LAST_SEEN_RESOLUTION:
            return last + LAST_SEEN_RESOLUTION
        self._latest[key] = self.pending[key] = now
        self._latest.move_to_end(key)
        if len(self._latest) > MAX_REMEMBERED:
            self._latest.popitem(last=False)
        return now + LAST_SEEN_RESOLUTION

    def later(self, key: K, stored: int | None) -> int | None:
        """The stored time, or the latest one if that is later."""
        latest = self._latest.get(key)
        return stored if latest is None or (stored or 0) >= latest else latest

    def take(self, count: int) -> dict[K, int]:
        """Remove up to `count` times from those to be written."""
        taken = dict(islice(self.pending.items(), count))
        for key in taken:
            del self.pending[key]
        return taken

    def give_back(self, taken: dict[K, int]) -> None:
        """Times that could not be written, of which there may be later ones by now."""
        self.pending = {**taken, **self.pending}


class LastSeenWriter:
    """Writes when accounts and tokens were last used: at most once a minute each, many at once.

    `now` returns microseconds since the Unix epoch.
    """

    def __init__(self, store: IStore, clock: IReactorTime, now: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._now = now
        self._users: _Times[int] = _Times()
        self._tokens: _Times[bytes] = _Times()
        # When the next request of a session has to be recorded: by token, or by user with Basic.
        self._due: OrderedDict[bytes | int, int] = OrderedDict()
        self._scheduled: IDelayedCall | None = None

    def touch(self, session: Session) -> None:
        """Record that a request was made with the session now."""
        now = self._now()
        due = self._due.get(session.token or session.user_id)
        if due is None or now >= due:
            self._record(session, now)

    def _record(self, session: Session, now: int) -> None:
        due = self._users.record(session.user_id, now)
        if session.token is not None:
            due = min(due, self._tokens.record(session.token, now))
        key = session.token or session.user_id
        self._due[key] = due
        self._due.move_to_end(key)
        if len(self._due) > MAX_REMEMBERED:
            self._due.popitem(last=False)
        if self._scheduled is None and (self._users.pending or self._tokens.pending):
            self._scheduled = self._clock.callLater(LAST_SEEN_FLUSH_SECONDS, self._write_batch)

    def with_last_seen(self, account: Account) -> Account:
        """The account with the latest `last_seen_at`, whether it is written yet or not."""
        seen = self._users.later(account.id, account.last_seen_at)
        if seen == account.last_seen_at:
            return account
        return Account(account.id, account.username, account.email, account.date_joined, seen)

    def later_uses(self, tokens: EncodedTokens) -> dict[int, int]:
        """The latest `last_used_at` of those tokens for which it is not written yet, by their
        places in the list."""
        later = self._tokens.later
        stored = enumerate(zip(tokens.digests, tokens.last_used_at, strict=True))
        latest = ((place, used, later(digest, used)) for place, (digest, used) in stored)
        return {place: new for place, used, new in latest if new is not None and new != used}

    async def flush(self) -> None:
        """Write everything that is pending, for the last time."""
        self._cancel()
        users = self._users.take(MAX_REMEMBERED)
        tokens = self._tokens.take(MAX_REMEMBERED)
        if users or tokens:
            try:
                await self._store.record_seen(users, tokens)
            finally:
                # A write before may have failed meanwhile.
                self._cancel()

    def _cancel(self) -> None:
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None

    def _write_batch(self) -> None:
        users = self._users.take(LAST_SEEN_BATCH)
        tokens = self._tokens.take(LAST_SEEN_BATCH)
        self._scheduled = None
        if self._users.pending or self._tokens.pending:
            self._scheduled = self._clock.callLater(
                LAST_SEEN_BATCH_PAUSE_SECONDS, self._write_batch
            )
        self._store.record_seen(users, tokens).addErrback(self._failed, users, tokens)

    def _failed(self, failure: Failure, users: dict[int, int], tokens: dict[bytes, int]) -> None:
        if not failure.check(StoreUnavailable):
            _log.failure("last_seen_at could not be written", failure)
            return
        # The store says itself what is wrong with it.
        self._users.give_back(users)
        self._tokens.give_back(tokens)
        if self._scheduled is None:
            self._scheduled = self._clock.callLater(LAST_SEEN_FLUSH_SECONDS, self._write_batch)
