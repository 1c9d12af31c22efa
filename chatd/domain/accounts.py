"""Accounts: registration, log-in, authentication of requests, look-up, deletion.

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

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from chatd.domain.account_rules import (
    check_email,
    check_password,
    check_storable,
    check_username,
    is_username,
)
from chatd.domain.basic_sessions import BasicSessions
from chatd.domain.caller_networks import CallerNetworks
from chatd.domain.disk_space import DiskSpace
from chatd.domain.erasures import Erasures
from chatd.domain.lane_batcher import LaneBatcher
from chatd.domain.last_seen import LastSeenWriter
from chatd.domain.outcomes import announced
from chatd.domain.password_checks import PasswordChecks
from chatd.domain.passwords import Passwords
from chatd.domain.rate_limits import RateLimits
from chatd.domain.read_batcher import ReadBatcher
from chatd.domain.sessions import RevocationTracker, SessionCache
from chatd.domain.store_calls import StoreCalls
from chatd.errors import (
    DirectoryClosed,
    RegistrationClosed,
    Unauthorized,
    UserNotFound,
)
from chatd.interfaces import IBus, IStore
from chatd.model import (
    LOCAL,
    UNLIMITED,
    Account,
    Credentials,
    IssuedToken,
    Session,
    TokenOptions,
    UserName,
)
from chatd.runtime.networks import network
from chatd.runtime.shield import ShieldedTasks

TOKEN_PREFIX: Final = "chatd_"
"""Makes tokens recognizable, for people and secret scanners. The id of the owner follows."""

_OWNED: Final = re.compile(rb"chatd_([1-9][0-9]{0,15})\.")

TOKEN_CACHE_SECONDS: Final = 300.0

NO_LANE: Final = -1
"""In place of the lane of tokens that do not name their owner; older versions issued those."""

LookUp = tuple[bytes, int | None, str]
"""The SHA-256 of a token, its owner if the token names one, and the network of the client."""


class Accounts:
    """Use cases of accounts.

    `clock` measures seconds, for the caches; `now` returns microseconds since the Unix epoch, for
    tokens that expire. `tasks` run what completes even if its client disconnects. Attributes may be
    changed while it is used.
    """

    def __init__(
        self,
        store: IStore,
        bus: IBus,
        passwords: Passwords,
        checks: PasswordChecks,
        limits: RateLimits,
        last_seen: LastSeenWriter,
        tasks: ShieldedTasks,
        callers: CallerNetworks,
        calls: StoreCalls,
        disk: DiskSpace,
        erasures: Erasures,
        *,
        clock: IReactorTime,
        now: Callable[[], int],
        registration_open: bool,
        directory_open: bool,
        emails_shown: bool,
        min_password_length: int,
    ) -> None:
        self._store = store
        self._bus = bus
        self._passwords = passwords
        self._checks = checks
        self._limits = limits
        self._now = now
        self._directory_open = directory_open
        self._emails_shown = emails_shown
        self.registration_open = registration_open
        self.min_password_length = min_password_length
        self._look_ups: LaneBatcher[LookUp, Session | None] = LaneBatcher(
            lambda items, within: store.sessions(
                [digest for digest, _, _ in items],
                {digest: owner for digest, owner, _ in items if owner is not None},
            ),
            lambda item: NO_LANE if item[1] is None else store.lane(item[1]),
            lambda run: ReadBatcher(
                run,
                clock,
                max_queued=20_000,
                max_batch_size=1000,
                owner=lambda item: item[0],
                group=lambda item: item[2],
                weigh=lambda item: 1,
                max_weight=1000,
            ),
        )
        self._tokens = SessionCache(clock, TOKEN_CACHE_SECONDS)
        self._revocations = RevocationTracker()
        self._basic = BasicSessions(checks, self._revocations, tasks, clock)
        self._tasks = tasks
        self._callers = callers
        self._calls = calls
        self._disk = disk
        self._erasures = erasures
        self._last_seen = last_seen

    async def register(self, username: str, email: str, password: str, address: str) -> Account:
        """Create an account.

        Raises `RegistrationClosed`, `InvalidBody`, `RateLimited`, `InsufficientStorage`,
        `UsernameTaken`.
        """
        if not self.registration_open:
            raise RegistrationClosed("accounts are made by the operator of this service")
        check_username(username)
        check_email(email)
        check_password(password, self.min_password_length)
        self._disk.check()
        self._passwords.check_room(address)
        self._limits.count_registration(address)
        # Nobody waits for the hash if the client disconnects, and nothing has happened until then.
        password_hash = await self._passwords.hash(password, address)
        return await self._tasks.run(self._register(username, email, password_hash))

    async def _register(self, username: str, email: str, password_hash: str) -> Account:
        return await self._store.add_account(username, email, password_hash)

    async def log_in(
        self, username: str, password: str, address: str, options: TokenOptions = UNLIMITED
    ) -> IssuedToken:
        """Check a password and issue a token, for which another one may be revoked if the user has
        as many as there may be.

        Raises `Unauthorized`, `RateLimited`, or `InvalidBody` for the label.
        """
        if options.label is not None:
            check_storable("label", options.label)
        self._checks.count(username, address)
        issued = None
        while issued is None:
            # Nobody waits for the check if the client disconnects.
            checked = await self._checks.check(username, password, address)
            issued = await self._tasks.run(self._issue(checked, options))
        return issued

    async def _issue(self, checked: Credentials, options: TokenOptions) -> IssuedToken | None:
        """A new token; None if the password was changed or the account deleted meanwhile."""
        user_id = checked.user_id
        token = f"{TOKEN_PREFIX}{user_id}.{secrets.token_urlsafe(32)}"
        digest = token_digest(token.encode("ascii"))
        added = await announced(
            self._store.add_token(user_id, digest, options, checked.password_hash),
            lambda: self._bus.publish_sessions_changed(user_id),
            lambda added: added is not None and added.displaced,
        )
        if added is None:
            return None
        # The user was here, but has not used the token yet.
        self._last_seen.touch(Session(user_id))
        return IssuedToken(token, user_id, added.token)

    async def bearer(self, token: bytes, address: str = LOCAL) -> Session:
        """Authenticate a bearer token; raises `Unauthorized`."""
        digest = token_digest(token)
        session = self.known_session(digest)
        if session is None:
            session = await self._look_up(digest, token_owner(token), address)
        self._callers.note(session.user_id, address)
        return session

    async def _look_up(self, digest: bytes, owner: int | None, address: str) -> Session:
        look_up = digest, owner, network(address)
        session = None
        while session is None:
            with self._revocations.look_up() as since:
                found = await self._look_ups.submit(look_up)
                if found is None:
                    raise Unauthorized("the token is unknown, was revoked or has expired")
                if not self._revocations.was_revoked(found.user_id, since):
                    session = found
                    self._tokens.put(digest, session, session.seconds_left(self._now()))
        self._last_seen.touch(session)
        return session

    def known_session(self, digest: bytes) -> Session | None:
        """The session of a token with this digest, if it is known without a query."""
        session = None if self._bus.problem() else self._tokens.get(digest)
        if session is not None:
            self._last_seen.touch(session)
        return session

    async def basic(self, username: str, password: str, address: str) -> Session:
        """Authenticate a username and password; raises `Unauthorized` or `RateLimited`."""
        session = await self._basic.authenticate(
            username, password, address, cached=not self._bus.problem()
        )
        self._last_seen.touch(session)
        self._callers.note(session.user_id, address)
        return session

    def touch(self, session: Session) -> None:
        """Record that a session is in use."""
        self._last_seen.touch(session)

    def note_caller(self, session: Session, address: str) -> None:
        """A client of this address uses a session that is known."""
        self._callers.note(session.user_id, address)

    async def delete(self, session: Session, *, erase: bool = False) -> bool:
        """Delete the caller's account with its tokens and inbox, and end its polls.

        With `erase`, also what it has sent; False if that goes on in the background.
        """
        return await self._tasks.run(self._delete(session.user_id, erase))

    async def _delete(self, user_id: int, erase: bool) -> bool:
        def delete() -> Deferred[bool]:
            deletion = self._store.delete_account(user_id, erase=erase)
            return announced(deletion, lambda: self._bus.publish_revoked(user_id, None))

        # As an edit is: many may be deleted at once, and sends would wait behind all of them.
        await self._calls.run(user_id, delete)
        return await self._erasures.erase(user_id) if erase else True

    async def by_id(self, caller: Session, user_id: int) -> Account:
        """Look up an account; raises `UserNotFound`."""
        account = await self._calls.run(caller.user_id, lambda: self._store.account(user_id))
        return self._found(account, f"there is no user {user_id}")

    async def by_name(self, caller: Session, username: str) -> Account:
        """Look up an account by its case-insensitive username; raises `UserNotFound`."""
        account = None
        if is_username(username):
            account = await self._calls.run(
                caller.user_id, lambda: self._store.account_named(username)
            )
        return self._found(account, "there is no user of that name")

    async def caller(self, session: Session) -> Account:
        """The caller's own account; raises `Unauthorized` if it was just deleted."""
        user_id = session.user_id
        account = await self._calls.run(user_id, lambda: self._store.account(user_id))
        if account is None:
            raise Unauthorized("the account was deleted")
        return self._last_seen.with_last_seen(account)

    def as_seen_by(self, caller: Session, account: Account) -> Account:
        """The account as the caller may see it: where emails are not shown, without another's."""
        if self._emails_shown or account.id == caller.user_id:
            return account
        return msgspec.structs.replace(account, email="")

    async def search(self, caller: Session, prefix: str, limit: int) -> Sequence[UserName]:
        """The first users by name whose names begin with `prefix`; raises `DirectoryClosed`."""
        if not self._directory_open:
            raise DirectoryClosed("this service has no directory: look users up by their name")
        if not is_username(prefix):
            return []
        return await self._calls.run(caller.user_id, lambda: self._store.find_users(prefix, limit))

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

    async def find_ended(self, sessions: Sequence[Session]) -> list[Session]:
        """Those of the given sessions that are no longer valid."""
        tokens = {each.token: each.user_id for each in sessions if each.token is not None}
        users = {each.user_id for each in sessions if each.token is None}
        found = await self._store.sessions(list(tokens), tokens) if tokens else []
        valid = {each.token for each in found if each is not None}
        hashes = await self._store.password_hashes(users) if users else {}
        return [
            each
            for each in sessions
            if (
                each.token not in valid
                if each.token is not None
                else hashes.get(each.user_id) != each.password_hash
            )
        ]

    async def stop(self) -> None:
        """Wait for running work to finish, then write what is pending."""
        await self._tasks.wait_idle()
        await self._last_seen.flush()


def token_owner(token: bytes) -> int | None:
    """The user whom a token names as its owner, who need not be; None if it names none."""
    match = _OWNED.match(token)
    return None if match is None else int(match[1])


def token_digest(token: bytes) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token).digest()
