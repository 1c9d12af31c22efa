"""`ChatClient`: the calls of the API."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import NoneType, TracebackType
from typing import Any, Final, Literal, Self, get_args, overload

from twisted.internet.interfaces import IReactorTime

from chatd.client.account_calls import AccountCalls
from chatd.client.backoff import parse_retry_after
from chatd.client.caller import Caller
from chatd.client.errors import ChatError, HistoryChanged, NotSupported
from chatd.client.exchange import Requester
from chatd.client.follow import Follow, FollowChanges
from chatd.client.polling import Polling
from chatd.client.streaming import Streaming
from chatd.client.values import (
    BlockedUser,
    Conversation,
    Conversations,
    Message,
    Page,
    Poll,
    Position,
    Sent,
)
from chatd.client.wire import (
    BlocksBody,
    ConversationBody,
    ConversationsBody,
    PageBody,
    PollBody,
    SentBody,
    decode,
    decode_changes,
)

Receipt = Literal["delivered", "read"]
"""What `ChatClient.send` can wait for."""

REMOVAL_SECONDS: Final = 100.0
"""How much longer than other calls a removal may take: there may be a million messages."""

FollowTransport = Literal["auto", "stream", "poll"]
"""How `ChatClient.follow` receives messages."""


class ChatClient(AccountCalls):
    """A client for one account of the service at `base_url` (`http://host:port`).

    Calls raise `APIError` for an error response and `Unreachable` if there is no response. What
    is safe to repeat is retried after connection failures, 408, 429, 502, 503 and 504, with backoff
    and as `Retry-After` requests, for up to `retry_seconds`. With `wait_for_service=False`, calls
    raise `Unreachable` at once if no connection can be made, until the service has responded once.

    Polls and streams use separate connections, so a send never queues behind them. `reactor`
    defaults to the global one. Tests may replace treq's clients (`http` and `polls`), `clock`,
    `now` (Unix time) and `random`.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        retry_seconds: float = 60.0,
        wait_for_service: bool = True,
        reactor: Any = None,
        http: Requester | None = None,
        polls: Requester | None = None,
        clock: IReactorTime | None = None,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(
            Caller(
                base_url,
                token,
                retry_seconds=retry_seconds,
                wait_for_service=wait_for_service,
                reactor=reactor,
                http=http,
                polls=polls,
                clock=clock,
                now=now,
                random=random,
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close idle connections, and streams of loops that were left.

        This does not end calls in progress: cancel those.
        """
        await self._caller.close()

    async def send(
        self,
        user_id: int,
        text: str,
        *,
        key: str | None = None,
        wait_for: Receipt | None = None,
        wait: float = 30.0,
    ) -> Sent:
        """Send a message to `user_id`; returns once it is stored durably.

        With `wait_for`, returns when the message is delivered or read, or after `wait` seconds, at
        most 55; `Sent.received` tells which.

        The message is stored exactly once, however often the request is retried: all attempts
        carry one Idempotency-Key. Pass your own `key` to retry across restarts of your program:
        sends with the same key within 24 hours are stored once.
        """
        key = key or secrets.token_urlsafe(18)
        body = {"user_id": user_id, "message": text}
        params = [] if wait_for is None else [("wait_for", wait_for), ("wait", f"{wait:g}")]
        sent, response = await self._caller.call(
            "POST",
            "/chats/",
            SentBody,
            params,
            body=body,
            key=key,
            wait=0.0 if wait_for is None else wait,
        )
        received = sent.read if wait_for == "read" else sent.delivered
        if wait_for is not None and received is None:
            raise NotSupported("the service does not tell what is delivered and read")
        message = Message(sent.seq, sent.sent_by, sent.text, sent.sent_at, sent.received_by)
        return Sent(message, response.header("Idempotency-Replayed") == "true", received)

    async def edit(self, user_id: int, seq: int, text: str) -> Message:
        """Change the text of a message that this account sent to `user_id`; returns it then.

        `seq` is that of the `Sent` message. `APIError` with `message_not_found`, `not_the_sender`,
        `message_deleted`, `too_late`, `blocked`.
        """
        body = {"user_id": user_id, "seq": seq, "message": text}
        return (await self._caller.call("PATCH", "/chats/", Message, body=body))[0]

    async def delete(self, user_id: int, seq: int) -> None:
        """Delete a message that this account sent to `user_id`; it may be deleted already.

        `APIError` with `message_not_found`, `not_the_sender`, `too_late`.
        """
        params = [("user_id", str(user_id)), ("seq", str(seq))]
        await self._caller.call("DELETE", "/chats/", NoneType, params)

    async def remove_oldest(self, up_to: int) -> None:
        """Remove the messages of this account's inbox up to the seq `up_to`, whoever sent them.

        They are gone for good, also for those who sent them, and make room in a full inbox.
        `APIError` with `invalid_query` past the end of the inbox. After `Unreachable` some may be
        removed: the same call goes on from there.
        """
        params = [("up_to", str(up_to))]
        await self._caller.call("DELETE", "/chats/", NoneType, params, wait=REMOVAL_SECONDS)

    async def block(self, user_id: int) -> None:
        """Refuse what an account sends from now on; it may be blocked already.

        `APIError` with `user_not_found`, `too_many_blocks`.
        """
        await self._caller.call("PUT", "/blocks/", NoneType, body={"user_id": user_id})

    async def unblock(self, user_id: int) -> None:
        """Undo `block`; the account need not be blocked."""
        await self._caller.call("DELETE", "/blocks/", NoneType, [("user_id", str(user_id))])

    async def blocks(self) -> tuple[BlockedUser, ...]:
        """The accounts that this one has blocked, in the order of names."""
        return (await self._caller.call("GET", "/blocks/", BlocksBody))[0].blocks

    async def page(self, page: int = 1, *, limit: int = 10, at: str | None = None) -> Page:
        """A page of the inbox, newest first; `at` (a cursor) pins it while messages arrive."""
        params = [("page", str(page)), ("limit", str(limit))]
        if at is not None:
            params.append(("at", at))
        body, _ = await self._caller.call("GET", "/chats/", PageBody, params)
        meta = body.meta
        return Page(
            body.messages, meta.count, meta.next, meta.previous, meta.cursor, meta.limit or limit
        )

    async def conversation(
        self, user_id: int, *, limit: int = 50, before: str | None = None
    ) -> Conversation:
        """The messages between this account and `user_id`, newest first."""
        params = [("with", str(user_id)), ("limit", str(limit))]
        if before is not None:
            params.append(("before", before))
        body, _ = await self._caller.call("GET", "/chats/", ConversationBody, params)
        meta = body.meta
        return Conversation(body.messages, meta.older, meta.peer_read, meta.peer_delivered)

    async def conversations(self, *, limit: int = 50, before: str | None = None) -> Conversations:
        """The conversations of this account, the one with the newest message first."""
        params = [("limit", str(limit))]
        if before is not None:
            params.append(("before", before))
        body, _ = await self._caller.call("GET", "/conversations/", ConversationsBody, params)
        return Conversations(body.conversations, body.meta.older)

    async def mark_read(self, user_id: int, seq: int) -> None:
        """What `user_id` sent is read up to the message `seq` of this account's inbox."""
        body = {"user_id": user_id, "seq": seq}
        await self._caller.call("PUT", "/conversations/read/", NoneType, body=body)

    async def cursor(self) -> str:
        """The current end of the inbox: `follow(since=cursor)` yields what arrives from now on."""
        return (await self.poll("now", 0)).cursor

    async def poll(
        self, since: str, wait: float = 30.0, limit: int = 100, *, changes: bool = False
    ) -> Poll:
        """Messages after `since` (a cursor, `0` or `now`), waiting up to `wait` seconds.

        With `changes`, also changes; raises `NotSupported` if the service knows none.

        A single attempt without retries; `follow` is built on it.
        """
        params = [("since", since), ("wait", f"{wait:g}"), ("limit", str(limit))]
        if changes:
            params.append(("changes", "true"))
        response = await self._caller.poll(params, wait)
        body = decode(response, PollBody)
        if changes and body.changes is None:
            raise NotSupported("the service does not tell changes")
        meta = body.meta
        return Poll(
            body.messages,
            meta.cursor,
            meta.count,
            meta.more,
            meta.timed_out,
            meta.superseded,
            meta.waited / 1000,
            parse_retry_after(response.header("Retry-After"), self._caller.now),
            decode_changes(body.changes or ()),
        )

    @overload
    def follow(
        self,
        since: str | Position = "now",
        *,
        changes: Literal[False] = False,
        wait: float = 30.0,
        transport: FollowTransport = "auto",
        on_resync: Callable[[HistoryChanged], str | Awaitable[str]] | None = None,
        on_connection_change: Callable[[ChatError | None], object] | None = None,
    ) -> Follow: ...

    @overload
    def follow(
        self,
        since: str | Position = "now",
        *,
        changes: Literal[True],
        wait: float = 30.0,
        transport: FollowTransport = "auto",
        on_resync: Callable[[HistoryChanged], str | Awaitable[str]] | None = None,
        on_connection_change: Callable[[ChatError | None], object] | None = None,
    ) -> FollowChanges: ...

    def follow(
        self,
        since: str | Position = "now",
        *,
        changes: bool = False,
        wait: float = 30.0,
        transport: FollowTransport = "auto",
        on_resync: Callable[[HistoryChanged], str | Awaitable[str]] | None = None,
        on_connection_change: Callable[[ChatError | None], object] | None = None,
    ) -> Follow | FollowChanges:
        """Iterate over every message after `since`, exactly once and in order: see `Follow`.

        With `changes`, also over what the account's other devices send and read, over edits and
        deletions, and over what is delivered and read: see `FollowChanges`.

        `transport` is `stream` (one response that does not end), `poll` (requests held for up to
        `wait` seconds), or `auto`: a stream, and polls instead once the service proves too old for
        streams or a proxy buffers them.
        """
        if transport not in get_args(FollowTransport):
            raise ValueError(f"{transport!r} is not a transport")
        clock, random = self._caller.clock, self._caller.random
        open_stream = partial(self._caller.open_stream, changes=changes)
        streaming = Streaming(open_stream, random=random)
        poll = partial(self.poll, changes=changes)
        kind = FollowChanges if changes else Follow
        return kind(
            Polling(poll, wait=wait, clock=clock, random=random),
            None if transport == "poll" else streaming,
            since,
            may_fall_back=transport == "auto",
            on_resync=on_resync,
            on_connection_change=on_connection_change,
            clock=clock,
            random=random,
        )
