"""Sessions that are authenticated with a username and password in each request (RFC 7617)."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from chatd.domain.password_checks import PasswordChecks
from chatd.domain.sessions import RevocationTracker, SessionCache
from chatd.model import Session
from chatd.runtime.shield import ShieldedTasks
from chatd.runtime.slices import in_slices

BASIC_CACHE_SECONDS: Final = 60.0


class BasicSessions:
    """Checks credentials and remembers which were right.

    Credentials are cached only as a keyed hash, whose key is lost with the process.
    """

    def __init__(
        self,
        checks: PasswordChecks,
        revocations: RevocationTracker,
        tasks: ShieldedTasks,
        clock: IReactorTime,
    ) -> None:
        self._checks = checks
        self._revocations = revocations
        self._tasks = tasks
        self._clock = clock
        self._cache = SessionCache(clock, BASIC_CACHE_SECONDS)
        self._key = secrets.token_bytes(32)
        self._verifying: dict[bytes, list[Deferred[Session]]] = {}

    async def authenticate(
        self, username: str, password: str, address: str, *, cached: bool
    ) -> Session:
        """The session of these credentials, from the cache if that is allowed.

        Raises `Unauthorized` or `RateLimited`.
        """
        # ASCII only: the lower case of other letters may be somebody else's username.
        name = username.lower() if username.isascii() else username
        key = hashlib.blake2b(
            f"{name}\0{password}".encode("utf-8", "surrogatepass"),
            key=self._key,
            digest_size=32,
        ).digest()
        session = self._cache.get(key) if cached else None
        if session is None:
            session = await self._verify_once(key, username, password, address)
        return session

    def discard_user(self, user_id: int) -> None:
        """Forget the sessions of a user."""
        self._cache.discard_user(user_id)

    def clear(self) -> None:
        """Forget all sessions."""
        self._cache.clear()

    def _verify_once(
        self, key: bytes, username: str, password: str, address: str
    ) -> Deferred[Session]:
        """Verify credentials once for all concurrent requests that present them.

        There may be thousands, since they are free: so not all are answered in one turn of the
        reactor.
        """
        result: Deferred[Session] = Deferred()
        if key in self._verifying:
            self._verifying[key].append(result)
            return result
        self._checks.count(username, address)
        self._verifying[key] = [result]

        def fire_all(outcome: Session | Failure) -> None:
            def fire(waiting: Deferred[Session]) -> None:
                if not isinstance(outcome, Failure) and self._cache.get(key) is not outcome:
                    # The session has ended in an earlier turn.
                    again = maybeDeferred(self._verify_once, key, username, password, address)
                    again.chainDeferred(waiting)
                else:
                    waiting.callback(outcome)  # a Failure is passed to the errbacks

            in_slices(self._clock, iter(self._verifying.pop(key)), fire)

        self._tasks.run(self._verify(key, username, password, address)).addBoth(fire_all)
        return result

    async def _verify(self, key: bytes, username: str, password: str, address: str) -> Session:
        while True:
            with self._revocations.look_up() as since:
                checked = await self._checks.check(username, password, address)
                session = Session(checked.user_id, password_hash=checked.password_hash)
                if not self._revocations.was_revoked(session.user_id, since):
                    self._cache.put(key, session)
                    return session
