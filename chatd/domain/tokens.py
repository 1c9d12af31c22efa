"""A user's tokens: listing and revoking them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred

from chatd.domain.outcomes import announced
from chatd.domain.store_calls import StoreCalls
from chatd.errors import NotAToken, TokenNotFound
from chatd.interfaces import IBus, IStore
from chatd.model import EncodedTokens, Scope, Session
from chatd.runtime.shield import ShieldedTasks

T = TypeVar("T")


class Tokens:
    """Use cases of tokens; `later_uses` knows what is not written yet.

    Whatever is revoked ends with its polls and streams, in every process. A revocation that fails
    may have been committed, and one that was repeated finds no token: it is announced unless it was
    refused before it reached the store.
    """

    def __init__(
        self,
        store: IStore,
        bus: IBus,
        tasks: ShieldedTasks,
        calls: StoreCalls,
        later_uses: Callable[[EncodedTokens], dict[int, int]],
    ) -> None:
        self._store = store
        self._bus = bus
        self._tasks = tasks
        self._calls = calls
        self._later_uses = later_uses

    async def list(self, session: Session) -> tuple[EncodedTokens, dict[int, int]]:
        """The caller's tokens, newest first, and by place in that list when those that were used
        since were last used."""
        user_id, current = session.user_id, session.token_id
        tokens = await self._calls.run(
            user_id, lambda: self._store.encoded_tokens(user_id, current), is_large=True
        )
        return tokens, self._later_uses(tokens)

    async def log_out(self, session: Session) -> None:
        """Revoke the session's token and end its polls; raises `NotAToken` for Basic."""
        if session.token is None:
            raise NotAToken("only a token can be revoked, and this request was made without one")
        await self._tasks.run(self._log_out(session.user_id, session.token))

    async def _log_out(self, user_id: int, token: bytes) -> None:
        def publish() -> None:
            self._bus.publish_revoked(user_id, token)

        await self._calls.run(
            user_id, lambda: announced(self._store.delete_token(user_id, token), publish)
        )

    async def revoke(self, session: Session, token_id: int) -> None:
        """Revoke one of the caller's tokens; raises `TokenNotFound` or `InsufficientScope`.

        Every token may revoke itself.
        """
        if token_id == session.token_id:
            await self.log_out(session)
        else:
            session.require(Scope.ACCOUNT)
            await self._tasks.run(self._revoke(session.user_id, token_id))

    async def _revoke(self, user_id: int, token_id: int) -> None:
        found = await self._change(
            user_id, lambda: self._store.delete_token_by_id(user_id, token_id)
        )
        if not found:
            raise TokenNotFound(f"you have no token {token_id}")

    async def revoke_others(self, session: Session) -> None:
        """Revoke all tokens of the caller but the one that the session was made with."""
        session.require(Scope.ACCOUNT)
        await self._tasks.run(self._revoke_others(session.user_id, session.token))

    async def _revoke_others(self, user_id: int, kept: bytes | None) -> None:
        await self._change(user_id, lambda: self._store.delete_other_tokens(user_id, kept))

    async def _change(self, user_id: int, call: Callable[[], Deferred[T]]) -> T:
        def publish() -> None:
            self._bus.publish_sessions_changed(user_id)

        return await self._calls.run(user_id, lambda: announced(call(), publish))
