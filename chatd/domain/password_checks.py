"""Checks of passwords against accounts, with the rate limits of log-ins."""

from __future__ import annotations

from chatd.domain.account_rules import MAX_PASSWORD, is_username
from chatd.domain.passwords import Passwords
from chatd.domain.rate_limits import RateLimits
from chatd.errors import AccountDisabled, Unauthorized
from chatd.interfaces import IStore
from chatd.model import Credentials


class PasswordChecks:
    """Checks usernames and passwords."""

    def __init__(self, store: IStore, passwords: Passwords, limits: RateLimits) -> None:
        self._store = store
        self._passwords = passwords
        self._limits = limits

    def count(self, username: str, address: str) -> None:
        """Count an attempt, before `check`; raises `RateLimited` or `Overloaded`."""
        self._passwords.check_room(address)
        self._limits.count_log_in(address, username)

    async def check(self, username: str, password: str, address: str) -> Credentials:
        """The credentials that match; raises `Unauthorized` if they do not.

        Raises `AccountDisabled` only if they do, so that nobody else learns of it.
        """
        credentials = None
        valid_username = is_username(username)
        if valid_username:
            credentials = await self._store.credentials(username)
        password_hash = None if credentials is None else credentials.password_hash
        matches = await self._passwords.verify(password_hash, password[: MAX_PASSWORD + 1], address)
        if credentials is None or not matches:
            if valid_username:  # Impossible usernames must not fill the rate limiter's memory.
                self._limits.count_failed_log_in(address, username)
            raise Unauthorized("there is no such username and password")
        self._limits.note_right_password(address, username)
        if credentials.disabled:
            raise AccountDisabled("an administrator has disabled this account")
        return credentials
