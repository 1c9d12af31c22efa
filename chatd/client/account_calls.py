"""`AccountCalls`: the calls of `ChatClient` that concern accounts and tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any

from chatd.client.caller import Caller
from chatd.client.errors import APIError, NotSupported
from chatd.client.values import Token, User
from chatd.client.wire import IssuedToken, TokensBody


class AccountCalls:
    """Register and log in, look up users, change the account, list and revoke its tokens."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    @property
    def token(self) -> str | None:
        """The token that calls are made with; None before `log_in`."""
        return self._caller.token

    @token.setter
    def token(self, token: str | None) -> None:
        self._caller.token = token

    async def register(self, username: str, email: str, password: str) -> User:
        """Create an account; `APIError` with `username_taken`, `registration_closed`, ...

        Raises `Unreachable` instead of retrying if an attempt without a response may have created
        the account; try to log in to find out.
        """
        body = {"username": username, "email": email, "password": password}
        user, _ = await self._caller.call(
            "POST", "/users/", User, body=body, idempotent=False, public=True
        )
        return user

    async def log_in(
        self,
        username: str,
        password: str,
        *,
        label: str | None = None,
        expires_in: int | None = None,
        scopes: Collection[str] | None = None,
    ) -> str:
        """Get a token, use it for the calls that follow, and return it.

        `label` tells it apart in `tokens`, `expires_in` are the seconds for which it is valid,
        `scopes` are what it is good for: some of `read`, `send`, `account`. By default it is good
        for everything and never expires.
        """
        chosen = {
            "label": label,
            "expires_in": expires_in,
            "scopes": None if scopes is None else list(scopes),
        }
        body: dict[str, Any] = {"username": username, "password": password}
        # Services of version 1 refuse members that they do not know.
        body |= {name: value for name, value in chosen.items() if value is not None}
        issued, _ = await self._caller.call("POST", "/tokens/", IssuedToken, body=body, public=True)
        self.token = issued.token
        return issued.token

    async def log_out(self) -> None:
        """Revoke the token, which ends its polls; succeeds if it was already revoked."""
        try:
            await self._caller.call("DELETE", "/tokens/", NoneType)
        except APIError as error:
            if error.status != 401:
                raise
        self.token = None

    async def tokens(self) -> tuple[Token, ...]:
        """The valid tokens of the account, newest first: who and what is logged in to it."""
        return (await self._caller.call("GET", "/tokens/", TokensBody))[0].tokens

    async def revoke_token(self, token_id: int) -> None:
        """Revoke a token of the account, which ends its polls; `APIError` `token_not_found`.

        Raises that error, too, if the token was revoked by an attempt without a response.
        """
        await self._caller.call("DELETE", "/tokens/", NoneType, [("id", str(token_id))])

    async def revoke_other_tokens(self) -> None:
        """Revoke all tokens of the account but the one of this client."""
        await self._caller.call("DELETE", "/tokens/", NoneType, [("others", "true")])

    async def change_password(self, current_password: str, password: str) -> User:
        """Change the password, which ends all other sessions; `APIError` with `wrong_password`.

        The token of this client stays valid. Raises `Unreachable` instead of retrying if an attempt
        without a response may have changed it: try to log in to find out.
        """
        return await self._change({"current_password": current_password, "password": password})

    async def change_email(self, current_password: str, email: str) -> User:
        """Change the email address; `APIError` with `wrong_password`."""
        return await self._change({"current_password": current_password, "email": email})

    async def _change(self, body: Mapping[str, str]) -> User:
        changes_password = "password" in body
        user, _ = await self._caller.call(
            "PATCH", "/users/", User, body=body, idempotent=not changes_password
        )
        return user

    async def delete_account(self, *, erase: bool = False) -> bool:
        """Delete the account, its tokens and its inbox permanently.

        With `erase`, what it has sent is deleted from the inboxes of others, too; False if the
        service has not finished that yet. Raises `NotSupported`, and deletes nothing, if the
        service is too old for it.
        """
        if erase:
            await self._require_version_1_1()
        params = [("erase", "true")] if erase else []
        _, response = await self._caller.call(
            "DELETE", "/users/", NoneType, params, idempotent=False
        )
        self.token = None
        return response.status != 202

    async def _require_version_1_1(self) -> None:
        """Version 1 would ignore the parameter, and delete the account without the messages."""
        try:
            await self.tokens()
        except APIError as error:
            if error.status != 405:
                raise
            raise NotSupported("the service cannot delete what an account has sent") from None

    async def me(self) -> User:
        """The account that the token belongs to."""
        return (await self._caller.call("GET", "/users/", User))[0]

    async def user(self, user_id: int) -> User:
        """An account by its id; `APIError` with `user_not_found`."""
        return (await self._caller.call("GET", "/users/", User, [("user_id", str(user_id))]))[0]

    async def user_named(self, username: str) -> User:
        """An account by its name, ignoring case; `APIError` with `user_not_found`."""
        return (await self._caller.call("GET", "/users/", User, [("username", username)]))[0]
