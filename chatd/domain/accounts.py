"""Accounts: registration, log-in, authentication of requests, revocation, deletion.

Sessions are cached, so that repeated requests cost neither a query nor a password hash. This is
safe because every revocation in any process reaches `Accounts.revoked` through the bus, a look-up
during which a revocation arrived is repeated, and the cache is bypassed while the bus is down.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from chatd.domain.batch import Batcher
from chatd.domain.passwords import Passwords
from chatd.domain.rate_limits import RateLimits
from chatd.domain.sessions import LastSeenWriter, RevocationTracker, SessionCache
from chatd.errors import InvalidBody, NotAToken, RegistrationClosed, Unauthorized, UserNotFound
from chatd.interfaces import IBus, IStore
from chatd.model import Account, IssuedToken, Session
from chatd.runtime.shield import ShieldedTasks, shield

TOKEN_PREFIX: Final = "chatd_"
"""Makes tokens recognizable, for people and secret scanners."""

BASIC_CACHE_SECONDS: Final = 60.0
TOKEN_CACHE_SECONDS: Final = 300.0
MAX_PASSWORD: Final = 1024
MAX_EMAIL: Final = 254

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_USERNAME: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")


class Accounts:
    """Use cases of accounts.

    `clock` measures seconds, for expiry; `now` returns microseconds since the Unix epoch, for
    `last_seen_at`.
    """

    def __init__(
        self,
        store: IStore,
        bus: IBus,
        passwords: Passwords,
        limits: RateLimits,
        *,
        clock: IReactorTime,
        now: Callable[[], int],
        registration_open: bool,
        min_password_length: int,
    ) -> None:
        self._store = store
        self._bus = bus
        self._passwords = passwords
        self._limits = limits
        self._registration_open = registration_open
        self._min_password_length = min_password_length
        self._owners: Batcher[bytes, int | None] = Batcher(
            store.token_owners, clock, max_queued=20_000, max_batch_size=1000
        )
        self._tokens = SessionCache(clock, TOKEN_CACHE_SECONDS)
        self._basic = SessionCache(clock, BASIC_CACHE_SECONDS)
        # Basic credentials are cached only as a keyed hash; the key is lost with the process.
        self._basic_key = secrets.token_bytes(32)
        self._verifying: dict[bytes, list[Deferred[Session]]] = {}
        self._revocations = RevocationTracker()
        # Work that completes even if its client disconnects.
        self._tasks = ShieldedTasks()
        self._last_seen = LastSeenWriter(store, clock, now)

    async def register(self, username: str, email: str, password: str, address: str) -> Account:
        """Create an account.

        Raises `RegistrationClosed`, `InvalidBody`, `RateLimited`, `UsernameTaken`.
        """
        if not self._registration_open:
            raise RegistrationClosed("accounts are made by the operator of this service")
        if _USERNAME.fullmatch(username) is None:
            raise InvalidBody(
                "username: 1 to 32 of ASCII letters, digits, dot, underscore and hyphen"
            )
        local, at, domain = email.partition("@")
        if not (local and at and domain) or "@" in domain or len(email) > MAX_EMAIL:
            raise InvalidBody(f"email: up to {MAX_EMAIL} characters with one @ inside")
        if _UNSTORABLE.search(email):
            raise InvalidBody("email: U+0000 and lone surrogates cannot be stored")
        if not self._min_password_length <= len(password) <= MAX_PASSWORD:
            raise InvalidBody(f"password: {self._min_password_length} to {MAX_PASSWORD} characters")
        self._limits.count_registration(address)
        return await self._tasks.run(self._register(username, email, password))

    async def _register(self, username: str, email: str, password: str) -> Account:
        return await self._store.add_account(username, email, await self._passwords.hash(password))

    async def log_in(self, username: str, password: str, address: str) -> IssuedToken:
        """Check a password and issue a token; raises `Unauthorized` or `RateLimited`."""
        self._limits.count_log_in(address, username)
        return await self._tasks.run(self._log_in(username, password, address))

    async def _log_in(self, username: str, password: str, address: str) -> IssuedToken:
        user_id = await self._verify(username, password, address)
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        created_at = await self._store.add_token(user_id, token_digest(token.encode("ascii")))
        if created_at is None:
            raise Unauthorized("the account was deleted")
        self._last_seen.touch(user_id)
        return IssuedToken(token, user_id, created_at)

    async def bearer(self, token: bytes) -> Session:
        """Authenticate a bearer token; raises `Unauthorized`."""
        digest = token_digest(token)
        session = self.known_session(digest)
        if session is not None:
            return session
        while session is None:
            with self._revocations.look_up() as since:
                user_id = await self._owners.submit(digest)
                if user_id is None:
                    raise Unauthorized("the token is unknown or was revoked")
                if not self._revocations.was_revoked(user_id, since):
                    session = Session(user_id, digest)
                    self._tokens.put(digest, session)
        self._last_seen.touch(session.user_id)
        return session

    def known_session(self, digest: bytes) -> Session | None:
        """The session of a token with this digest, if it is known without a query."""
        session = None if self._bus.problem() else self._tokens.get(digest)
        if session is not None:
            self._last_seen.touch(session.user_id)
        return session

    async def basic(self, username: str, password: str, address: str) -> Session:
        """Authenticate a username and password; raises `Unauthorized` or `RateLimited`."""
        # ASCII only: the lower case of other letters may be somebody else's username.
        name = username.lower() if username.isascii() else username
        key = hashlib.blake2b(
            f"{name}\0{password}".encode("utf-8", "surrogatepass"),
            key=self._basic_key,
            digest_size=32,
        ).digest()
        session = None if self._bus.problem() else self._basic.get(key)
        if session is None:
            session = await self._verify_once(key, username, password, address)
        self._last_seen.touch(session.user_id)
        return session

    def _verify_once(
        self, key: bytes, username: str, password: str, address: str
    ) -> Deferred[Session]:
        """Verify credentials once for all concurrent requests that present them."""
        result: Deferred[Session] = Deferred()
        if key in self._verifying:
            self._verifying[key].append(result)
            return result
        self._limits.count_log_in(address, username)
        self._verifying[key] = [result]

        def fire_all(outcome: Session | Failure) -> None:
            for waiting in self._verifying.pop(key):
                waiting.callback(outcome)  # a Failure is passed to the errbacks

        self._tasks.run(self._basic_session(key, username, password, address)).addBoth(fire_all)
        return result

    async def _basic_session(
        self, key: bytes, username: str, password: str, address: str
    ) -> Session:
        while True:
            with self._revocations.look_up() as since:
                session = Session(await self._verify(username, password, address))
                if not self._revocations.was_revoked(session.user_id, since):
                    self._basic.put(key, session)
                    return session

    async def _verify(self, username: str, password: str, address: str) -> int:
        credentials = None
        valid_username = _USERNAME.fullmatch(username) is not None
        if valid_username:
            credentials = await self._store.credentials(username)
        password_hash = None if credentials is None else credentials.password_hash
        matches = await self._passwords.verify(password_hash, password[: MAX_PASSWORD + 1])
        if credentials is None or not matches:
            if valid_username:  # Impossible usernames must not fill the rate limiter's memory.
                self._limits.count_failed_log_in(address, username)
            raise Unauthorized("there is no such username and password")
        return credentials.user_id

    async def log_out(self, session: Session) -> None:
        """Revoke the session's token and end its polls; raises `NotAToken` for Basic."""
        if session.token is None:
            raise NotAToken("only a token can be revoked, and this request was made without one")
        await self._tasks.run(self._log_out(session.user_id, session.token))

    async def _log_out(self, user_id: int, token: bytes) -> None:
        try:
            await self._store.delete_token(user_id, token)
        finally:
            # The failed commit may have been applied: end the polls as requested.
            self._bus.publish_revoked(user_id, token)

    async def delete(self, session: Session) -> None:
        """Delete the caller's account with its tokens and inbox, and end its polls."""
        await self._tasks.run(self._delete(session.user_id))

    async def _delete(self, user_id: int) -> None:
        try:
            await self._store.delete_account(user_id)
        finally:
            self._bus.publish_revoked(user_id, None)

    async def by_id(self, user_id: int) -> Account:
        """Look up an account; raises `UserNotFound`."""
        account = await shield(self._store.account(user_id))
        return self._found(account, f"there is no user {user_id}")

    async def by_name(self, username: str) -> Account:
        """Look up an account by its case-insensitive username; raises `UserNotFound`."""
        account = None
        if _USERNAME.fullmatch(username) is not None:
            account = await shield(self._store.account_named(username))
        return self._found(account, "there is no user of that name")

    async def caller(self, session: Session) -> Account:
        """The caller's own account; raises `Unauthorized` if it was just deleted."""
        account = await shield(self._store.account(session.user_id))
        if account is None:
            raise Unauthorized("the account was deleted")
        return self._last_seen.with_last_seen(account)

    def _found(self, account: Account | None, error: str) -> Account:
        if account is None:
            raise UserNotFound(error)
        return self._last_seen.with_last_seen(account)

    def revoked(self, user_id: int, token: bytes | None) -> None:
        """Drop revoked sessions from the caches; see `ISubscriber.revoked`."""
        self._revocations.record(user_id)
        if token is not None:
            self._tokens.discard(token)
        else:
            self._tokens.discard_user(user_id)
            self._basic.discard_user(user_id)

    def clear_cache(self) -> None:
        """Drop all cached sessions, since revocations may have been missed."""
        self._revocations.record_all()
        self._tokens.clear()
        self._basic.clear()

    async def find_revoked(self, tokens: Sequence[bytes]) -> set[bytes]:
        """The given tokens (SHA-256 digests) that are no longer valid."""
        owners = await self._store.token_owners(tokens)
        return {token for token, owner in zip(tokens, owners, strict=True) if owner is None}

    async def stop(self) -> None:
        """Wait for running work to finish, then write what is pending."""
        await self._tasks.wait_idle()
        await self._last_seen.flush()


def token_digest(token: bytes) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token).digest()
