"""`ChatClient`: the calls of the API."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Literal, Self, get_args

from twisted.internet.interfaces import IReactorTime

from chatd.client.account_calls import AccountCalls
from chatd.client.backoff import parse_retry_after
from chatd.client.caller import Caller
from chatd.client.errors import ChatError, HistoryChanged
from chatd.client.exchange import Requester
from chatd.client.follow import Follow
from chatd.client.polling import Polling
from chatd.client.streaming import Streaming
from chatd.client.values import Conversation, Message, Page, Poll, Position, Sent
from chatd.client.wire import (
    ConversationBody,
    PageBody,
    PollBody,
    decode,
)

FollowTransport = Literal["auto", "stream", "poll"]
"""How `ChatClient.follow` receives messages."""


class ChatClient(AccountCalls):
    """A client for one account of the service at `base_url` (`http://host:port`).

    Calls raise `APIError` for an error response and `Unreachable` if there is no response. What
    is safe to repeat is retried after connection failures, 429, 502, 503 and 504, with backoff
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

    async def send(self, user_id: int, text: str, *, key: str | None = None) -> Sent:
        """Send a message to `user_id`; returns once it is stored durably.

        The message is stored exactly once, however often the request is retried: all attempts
        carry one Idempotency-Key. Pass your own `key` to retry across restarts of your program:
        sends with the same key within 24 hours are stored once.
        """
        key = key or secrets.token_urlsafe(18)
        body = {"user_id": user_id, "message": text}
        message, response = await self._caller.call("POST", "/chats/", Message, body=body, key=key)
        return Sent(message, response.header("Idempotency-Replayed") == "true")

    async def page(self, page: int = 1, *, limit: int = 10, at: str | None = None) -> Page:
        """A page of the inbox, newest first; `at` (a cursor) pins it while messages arrive."""
        params = [("page", str(page)), ("limit", str(limit))]
        if at is not None:
            params.append(("at", at))
        body, _ = await self._caller.call("GET", "/chats/", PageBody, params)
        meta = body.meta
        return Page(body.messages, meta.count, meta.next, meta.previous, meta.cursor)

    async def conversation(
        self, user_id: int, *, limit: int = 50, before: str | None = None
    ) -> Conversation:
        """The messages between this account and `user_id`, newest first."""
        params = [("with", str(user_id)), ("limit", str(limit))]
        if before is not None:
            params.append(("before", before))
        body, _ = await self._caller.call("GET", "/chats/", ConversationBody, params)
        return Conversation(body.messages, body.meta.older)

    async def cursor(self) -> str:
        """The current end of the inbox: `follow(since=cursor)` yields what arrives from now on."""
        return (await self.poll("now", 0)).cursor

    async def poll(self, since: str, wait: float = 30.0, limit: int = 100) -> Poll:
        """Messages after `since` (a cursor, `0` or `now`), waiting up to `wait` seconds.

        A single attempt without retries; `follow` is built on it.
        """
        params = [("since", since), ("wait", f"{wait:g}"), ("limit", str(limit))]
        response = await self._caller.poll(params, wait)
        body = decode(response, PollBody)
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
        )

    def follow(
        self,
        since: str | Position = "now",
        *,
        wait: float = 30.0,
        transport: FollowTransport = "auto",
        on_resync: Callable[[HistoryChanged], str | Awaitable[str]] | None = None,
        on_connection_change: Callable[[ChatError | None], object] | None = None,
    ) -> Follow:
        """Iterate over every message after `since`, exactly once and in order: see `Follow`.

        `transport` is `stream` (one response that does not end), `poll` (requests held for up to
        `wait` seconds), or `auto`: a stream, and polls instead once the service proves too old for
        streams or a proxy buffers them.
        """
        if transport not in get_args(FollowTransport):
            raise ValueError(f"{transport!r} is not a transport")
        clock, random = self._caller.clock, self._caller.random
        streaming = Streaming(self._caller.open_stream, random=random)
        return Follow(
            Polling(self.poll, wait=wait, clock=clock, random=random),
            None if transport == "poll" else streaming,
            since,
            may_fall_back=transport == "auto",
            on_resync=on_resync,
            on_connection_change=on_connection_change,
            clock=clock,
            random=random,
        )
