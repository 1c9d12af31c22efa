"""What administrators do with accounts and tokens, as requests and replies that can be encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from chatd.domain.account_rules import check_email, check_username
from chatd.domain.outcomes import announced
from chatd.errors import TokenNotFound, UserNotFound
from chatd.interfaces import IBus, IStore
from chatd.model import (
    AccountState,
    BlockedUser,
    ConversationCursor,
    Message,
    ReadAfter,
    ReadConversation,
    Token,
    scope_names,
)

T = TypeVar("T")

_log = Logger()


class AddUser(Struct, frozen=True, tag=True):
    """Create an account; works where registration is closed, too."""

    username: str
    email: str
    password_hash: str


class ListUsers(Struct, frozen=True, tag=True):
    """List up to `limit` accounts whose ids are above `after`."""

    after: int
    limit: int


class ShowUser(Struct, frozen=True, tag=True):
    """Look an account up."""

    username: str


class SetPassword(Struct, frozen=True, tag=True):
    """Change a password, which ends all sessions of the account."""

    username: str
    password_hash: str


class DisableUser(Struct, frozen=True, tag=True):
    """End all sessions of an account and refuse log-ins to it."""

    username: str


class EnableUser(Struct, frozen=True, tag=True):
    """Let a disabled account log in again."""

    username: str


class DeleteUser(Struct, frozen=True, tag=True):
    """Delete an account with its tokens and inbox; with `erase`, daemons delete what it sent."""

    username: str
    erase: bool = False


class ListTokens(Struct, frozen=True, tag=True):
    """List the valid tokens of an account."""

    username: str


class RevokeTokens(Struct, frozen=True, tag=True):
    """Revoke one token of an account, or with None all."""

    username: str
    token_id: int | None


class ReadInbox(Struct, frozen=True, tag=True):
    """Read up to `limit` messages of an inbox after a seq."""

    username: str
    after: int
    limit: int


class ListRecipients(Struct, frozen=True, tag=True):
    """List to whom an account has sent messages."""

    username: str


class ReadConversationWith(Struct, frozen=True, tag=True):
    """Read up to `limit` messages that an account exchanged with another, newest first.

    With `before`, the `older` of a reply, those that are older.
    """

    username: str
    peer: int
    before: str | None
    limit: int


class ListBlocks(Struct, frozen=True, tag=True):
    """List whom an account has blocked."""

    username: str


Request = (
    AddUser
    | ListUsers
    | ShowUser
    | SetPassword
    | DisableUser
    | EnableUser
    | DeleteUser
    | ListTokens
    | RevokeTokens
    | ReadInbox
    | ListRecipients
    | ReadConversationWith
    | ListBlocks
)

_Reading = ShowUser | ListTokens | ReadInbox | ListRecipients | ReadConversationWith | ListBlocks


class TokenState(Struct, frozen=True):
    """A token without what it is recognised by."""

    id: int
    label: str | None
    scopes: Sequence[str]
    created_at: int
    last_used_at: int | None
    expires_at: int | None


class Reply(Struct, frozen=True):
    """What was asked for, or the account as it was changed.

    `older` goes into the next `ReadConversationWith`; None when there is nothing older.
    """

    users: Sequence[AccountState] = ()
    tokens: Sequence[TokenState] = ()
    messages: Sequence[Message] = ()
    recipients: Sequence[int] = ()
    blocks: Sequence[BlockedUser] = ()
    older: str | None = None


class Refusal(Struct, frozen=True):
    """A request that failed: the code and the detail of a `DomainError`."""

    code: str
    detail: str


class Answer(Struct, frozen=True):
    """What is sent in answer to a request; one of the two is None."""

    reply: Reply | None = None
    refusal: Refusal | None = None


REQUESTS: Final = msgspec.json.Decoder(Request)
ANSWERS: Final = msgspec.json.Decoder(Answer)


class Administration:
    """Performs requests on a store; whatever ends sessions is announced on the bus."""

    def __init__(self, store: IStore, bus: IBus) -> None:
        self._store = store
        self._bus = bus

    async def stop(self) -> None:
        """Stop the bus, once everything is announced; for a process that does nothing else."""
        await self._bus.stop()

    async def perform(self, request: Request) -> Reply:
        """Perform a request; raises `DomainError`."""
        if isinstance(request, ListUsers):
            return Reply(users=await self._store.admin.accounts(request.after, request.limit))
        if isinstance(request, AddUser):
            return await self._add(request)
        state = await self._state(request.username)
        user_id = state.account.id
        if isinstance(request, _Reading):
            return await self._read(state, request)
        if isinstance(request, DeleteUser):
            await self._delete(user_id, request)
        elif isinstance(request, RevokeTokens):
            await self._revoke(user_id, request.token_id)
        elif isinstance(request, SetPassword):
            await self._set_password(user_id, request)
        elif isinstance(request, DisableUser):
            await self._disable(user_id, request.username)
        else:
            _require(await self._store.admin.enable(user_id), request.username)
        name = state.account.username
        _log.info("administration: {what} of {user}", what=type(request).__name__, user=name)
        return Reply() if isinstance(request, DeleteUser) else await self._show(request.username)

    async def _read(self, state: AccountState, request: _Reading) -> Reply:
        user_id, store = state.account.id, self._store
        if isinstance(request, ListTokens):
            tokens = await store.tokens(user_id)
            return Reply(tokens=[_token_state(token) for token in tokens])
        if isinstance(request, ListBlocks):
            blocks = await store.blocks(user_id)
            return Reply(blocks=msgspec.json.decode(blocks.text, type=list[BlockedUser]))
        if isinstance(request, ListRecipients):
            return Reply(recipients=await store.admin.recipients(user_id))
        if isinstance(request, ReadInbox):
            [inbox] = await store.read([ReadAfter(user_id, request.after, request.limit)])
            return Reply(messages=() if inbox is None else inbox.messages)
        if isinstance(request, ReadConversationWith):
            before = None if request.before is None else ConversationCursor.parse(request.before)
            query = ReadConversation(user_id, request.peer, request.limit, before)
            found = await store.conversation(query)
            messages = () if found is None else found.messages
            older = str(ConversationCursor.of(messages[-1])) if found and found.older else None
            return Reply(messages=messages, older=older)
        return Reply(users=[state])

    async def _add(self, request: AddUser) -> Reply:
        check_username(request.username)
        check_email(request.email)
        await self._store.add_account(request.username, request.email, request.password_hash)
        _log.info("administration: AddUser of {user}", user=request.username)
        return await self._show(request.username)

    async def _set_password(self, user_id: int, request: SetPassword) -> None:
        setting = self._store.admin.set_password(user_id, request.password_hash)
        changed = await self._ending_sessions(user_id, setting)
        _require(changed, request.username)

    async def _disable(self, user_id: int, username: str) -> None:
        changed = await self._ending_sessions(user_id, self._store.admin.disable(user_id))
        _require(changed, username)

    async def _delete(self, user_id: int, request: DeleteUser) -> None:
        deleted = await announced(
            self._store.delete_account(user_id, erase=request.erase),
            lambda: self._bus.publish_revoked(user_id, None),
        )
        _require(deleted, request.username)

    async def _revoke(self, user_id: int, token_id: int | None) -> None:
        if token_id is None:
            await self._ending_sessions(user_id, self._store.delete_other_tokens(user_id, None))
            return
        deletion = self._store.delete_token_by_id(user_id, token_id)
        if not await self._ending_sessions(user_id, deletion):
            raise TokenNotFound(f"the account has no token {token_id}")

    def _ending_sessions(self, user_id: int, call: Deferred[T]) -> Deferred[T]:
        return announced(call, lambda: self._bus.publish_sessions_changed(user_id))

    async def _show(self, username: str) -> Reply:
        return Reply(users=[await self._state(username)])

    async def _state(self, username: str) -> AccountState:
        state = await self._store.admin.account_named(username)
        if state is None:
            raise _not_found(username)
        return state


def _require(found: bool, username: str) -> None:
    """Fail if the account was deleted meanwhile."""
    if not found:
        raise _not_found(username)


def _not_found(username: str) -> UserNotFound:
    return UserNotFound(f"there is no user of the name {username}")


def _token_state(token: Token) -> TokenState:
    times = (token.created_at, token.last_used_at, token.expires_at)
    return TokenState(token.id, token.label, scope_names(token.scopes), *times)
