"""Accounts: register, log in, find out who is calling, revoke, delete.

Sessions are remembered for a while, so that a client that repeats itself costs no look into the
store and no password hash. What makes that safe: every revocation in any process reaches
`Accounts.revoked` through the bus, a look-up that a revocation overtook is done again, and
while the bus is down nothing remembered is believed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from chatd.domain.batch import Batcher
from chatd.domain.passwords import Passwords
from chatd.domain.rate_limits import RateLimits
from chatd.domain.sessions import LastSeenWriter, RevocationTracker, SessionCache
from chatd.errors import InvalidBody, NotAToken, RegistrationClosed, Unauthorized, UserNotFound
from chatd.interfaces import IBus, IStore
from chatd.model import Account, IssuedToken, Session
from chatd.runtime.shield import shield

T = TypeVar("T")

TOKEN_PREFIX: Final = "chatd_"
"""Lets secret scanners and people recognise a token."""

BASIC_SECONDS: Final = 60.0
TOKEN_SECONDS: Final = 300.0
MAX_PASSWORD: Final = 1024
MAX_EMAIL: Final = 254

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_USERNAME: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")

_log = Logger()


class Accounts:
    """The verbs of accounts; `clock` tells seconds for expiry, `now` microseconds for records."""

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
            store.token_owners, clock, bound=20_000, largest=1000
        )
        self._tokens = SessionCache(clock, TOKEN_SECONDS)
        self._basic = SessionCache(clock, BASIC_SECONDS)
        # Basic credentials are remembered only as a keyed hash; the key dies with the process.
        self._basic_key = secrets.token_bytes(32)
        self._verifying: dict[bytes, list[Deferred[Session]]] = {}
        self._overtaken = RevocationTracker()
        self._under_way = 0
        self._idle: list[Deferred[None]] = []
        self._seen = LastSeenWriter(store, clock, now)

    async def register(self, username: str, email: str, password: str, address: str) -> Account:
        """Make an account.

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
        self._limits.registration(address)
        return await self._whole(self._register(username, email, password))

    async def _register(self, username: str, email: str, password: str) -> Account:
        return await self._store.add_account(username, email, await self._passwords.hash(password))

    async def log_in(self, username: str, password: str, address: str) -> IssuedToken:
        """Check a password and issue a token; raises `Unauthorized` or `RateLimited`."""
        self._limits.log_in(address, username)
        return await self._whole(self._log_in(username, password, address))

    async def _log_in(self, username: str, password: str, address: str) -> IssuedToken:
        user_id = await self._verify(username, password, address)
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        created_at = await self._store.add_token(user_id, _digest(token.encode("ascii")))
        if created_at is None:
            raise Unauthorized("the account was deleted")
        self._seen.now(user_id)
        return IssuedToken(token, user_id, created_at)

    async def bearer(self, token: bytes) -> Session:
        """The session of a bearer token; raises `Unauthorized`."""
        digest = _digest(token)
        session = None if self._bus.problem() else self._tokens.get(digest)
        while session is None:
            with self._overtaken.watched() as since:
                user_id = await self._owners.ask(digest)
                if user_id is None:
                    raise Unauthorized("the token is unknown or was revoked")
                if not self._overtaken.any(user_id, since):
                    session = Session(user_id, digest)
                    self._tokens.put(digest, session)
        self._seen.now(session.user_id)
        return session

    async def basic(self, username: str, password: str, address: str) -> Session:
        """The session of a username and password; raises `Unauthorized` or `RateLimited`."""
        # Only ASCII: other letters may have a lower case that somebody else is called.
        name = username.lower() if username.isascii() else username
        key = hashlib.blake2b(
            f"{name}\0{password}".encode("utf-8", "surrogatepass"),
            key=self._basic_key,
            digest_size=32,
        ).digest()
        session = None if self._bus.problem() else self._basic.get(key)
        if session is None:
            session = await self._basic_once(key, username, password, address)
        self._seen.now(session.user_id)
        return session

    def _basic_once(
        self, key: bytes, username: str, password: str, address: str
    ) -> Deferred[Session]:
        """Check credentials once however many requests bring them meanwhile."""
        asked: Deferred[Session] = Deferred()
        if key in self._verifying:
            self._verifying[key].append(asked)
            return asked
        self._limits.log_in(address, username)
        self._verifying[key] = [asked]

        def tell(result: object) -> None:
            for waiting in self._verifying.pop(key):
                waiting.callback(result)  # type: ignore[arg-type]  # a Failure makes it an errback

        self._whole(self._basic_session(key, username, password, address)).addBoth(tell)
        return asked

    async def _basic_session(
        self, key: bytes, username: str, password: str, address: str
    ) -> Session:
        while True:
            with self._overtaken.watched() as since:
                session = Session(await self._verify(username, password, address))
                if not self._overtaken.any(session.user_id, since):
                    self._basic.put(key, session)
                    return session

    async def _verify(self, username: str, password: str, address: str) -> int:
        known = None
        possible = _USERNAME.fullmatch(username) is not None
        if possible:
            known = await self._store.credentials(username)
        password_hash = None if known is None else known.password_hash
        fits = await self._passwords.verify(password_hash, password[: MAX_PASSWORD + 1])
        if known is None or not fits:
            if possible:  # Nobody guesses at an account that cannot be, nor fills memory with it.
                self._limits.failed_log_in(address, username)
            raise Unauthorized("there is no such username and password")
        return known.user_id

    async def log_out(self, session: Session) -> None:
        """Revoke the token of the session and end its polls; raises `NotAToken` for Basic."""
        if session.token is None:
            raise NotAToken("only a token can be revoked, and this request was made without one")
        await self._whole(self._log_out(session.user_id, session.token))

    async def _log_out(self, user_id: int, token: bytes) -> None:
        try:
            await self._store.delete_token(user_id, token)
        finally:
            # A failed commit may have happened all the same, and its owner wants it gone.
            self._bus.publish_revoked(user_id, token)

    async def delete(self, session: Session) -> None:
        """Delete the caller's account with its tokens and inbox, and end its polls."""
        await self._whole(self._delete(session.user_id))

    async def _delete(self, user_id: int) -> None:
        try:
            await self._store.delete_account(user_id)
        finally:
            self._bus.publish_revoked(user_id, None)

    async def by_id(self, user_id: int) -> Account:
        """An account; raises `UserNotFound`."""
        account = await shield(self._store.account(user_id))
        return self._found(account, f"there is no user {user_id}")

    async def by_name(self, username: str) -> Account:
        """An account by its name, whatever its case; raises `UserNotFound`."""
        account = None
        if _USERNAME.fullmatch(username) is not None:
            account = await shield(self._store.account_named(username))
        return self._found(account, "there is no user of that name")

    async def caller(self, session: Session) -> Account:
        """The caller's own account; raises `Unauthorized` if it was deleted meanwhile."""
        account = await shield(self._store.account(session.user_id))
        if account is None:
            raise Unauthorized("the account was deleted")
        return self._seen.applied(account)

    def _found(self, account: Account | None, otherwise: str) -> Account:
        if account is None:
            raise UserNotFound(otherwise)
        return self._seen.applied(account)

    def revoked(self, user_id: int, token: bytes | None) -> None:
        """Forget sessions that a revocation ended; part of `ISubscriber`."""
        self._overtaken.note(user_id)
        if token is not None:
            self._tokens.forget(token)
        else:
            self._tokens.forget_user(user_id)
            self._basic.forget_user(user_id)

    def forget_all(self) -> None:
        """Forget every session: revocations may have been missed."""
        self._overtaken.note_all()
        self._tokens.clear()
        self._basic.clear()

    async def revoked_among(self, tokens: Sequence[bytes]) -> set[bytes]:
        """Which of these tokens, given by their SHA-256, are not valid any more."""
        owners = await self._store.token_owners(tokens)
        return {token for token, owner in zip(tokens, owners, strict=True) if owner is None}

    def _whole(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Do work that goes on when its client goes away, and that `stop` waits for."""

        async def counted() -> T:
            self._under_way += 1
            try:
                return await work
            finally:
                self._under_way -= 1
                if not self._under_way:
                    idle, self._idle = self._idle, []
                    for waiting in idle:
                        waiting.callback(None)

        return shield(counted())

    async def stop(self) -> None:
        """Finish what is under way and write down what is still to be recorded."""
        if self._under_way:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        await self._seen.flush()


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
