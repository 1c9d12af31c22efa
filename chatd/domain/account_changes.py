"""Changing the password and the email address of an account."""

from __future__ import annotations

from collections.abc import Callable

from chatd.domain.account_rules import check_email, check_password
from chatd.domain.outcomes import announced
from chatd.domain.password_checks import PasswordChecks
from chatd.domain.passwords import Passwords
from chatd.domain.store_calls import StoreCalls
from chatd.errors import AccountDisabled, InvalidBody, Unauthorized, WrongPassword
from chatd.interfaces import IBus, IStore
from chatd.model import Account, AccountChange, Session
from chatd.runtime.shield import ShieldedTasks


class AccountChanges:
    """Changes accounts; `with_last_seen` adds what is not written yet."""

    def __init__(
        self,
        store: IStore,
        bus: IBus,
        passwords: Passwords,
        checks: PasswordChecks,
        tasks: ShieldedTasks,
        calls: StoreCalls,
        with_last_seen: Callable[[Account], Account],
        *,
        min_password_length: int,
    ) -> None:
        self._store = store
        self._bus = bus
        self._passwords = passwords
        self._checks = checks
        self._tasks = tasks
        self._calls = calls
        self._with_last_seen = with_last_seen
        self.min_password_length = min_password_length

    async def change(
        self,
        session: Session,
        current_password: str,
        password: str | None,
        email: str | None,
        address: str,
    ) -> Account:
        """Change the caller's password or email, or both, and return the account.

        A new password ends every other session of the user: all tokens but the one used, and all
        that were authenticated with the old password. Raises `InvalidBody`, `RateLimited`,
        `WrongPassword`, and `Unauthorized` if the account was just deleted.
        """
        if password is None and email is None:
            raise InvalidBody("give a new password, a new email, or both")
        if password is not None:
            check_password(password, self.min_password_length)
        if email is not None:
            check_email(email)
        user_id = session.user_id
        account = await self._calls.run(user_id, lambda: self._store.account(user_id))
        if account is None:
            raise Unauthorized("the account was deleted")
        self._checks.count(account.username, address)
        return await self._tasks.run(
            self._change(session, account.username, current_password, password, email, address)
        )

    async def _change(
        self,
        session: Session,
        username: str,
        current_password: str,
        password: str | None,
        email: str | None,
        address: str,
    ) -> Account:
        password_hash = None
        while True:
            try:
                checked = await self._checks.check(username, current_password, address)
            except AccountDisabled:
                raise
            except Unauthorized:
                raise WrongPassword("current_password: this is not your password") from None
            if password is not None and password_hash is None:
                password_hash = await self._passwords.hash(password, address)
            change = AccountChange(
                session.user_id, checked.password_hash, password_hash, email, session.token
            )
            account = await self._commit(change)
            # None: the password was changed meanwhile, so check the new one.
            if account is not None:
                return self._with_last_seen(account)

    async def _commit(self, change: AccountChange) -> Account | None:
        def publish() -> None:
            if change.password_hash is not None:
                self._bus.publish_sessions_changed(change.user_id)

        return await announced(self._store.change_account(change), publish)
