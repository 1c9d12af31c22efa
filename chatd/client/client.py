"""The verbs of chatd for a Twisted program."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from types import NoneType, TracebackType
from typing import Any, Final, Self, TypeVar

from treq.client import HTTPClient
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool

from chatd.client.backoff import Backoff, retry_after
from chatd.client.errors import APIError, ChatError, HistoryChanged, NoTokenError, Unreachable
from chatd.client.exchange import Answer, Http, exchange
from chatd.client.follow import Follow
from chatd.client.values import Conversation, Message, Page, Poll, Position, Sent, User
from chatd.client.wire import (
    ConversationAnswer,
    IssuedToken,
    PageAnswer,
    PollAnswer,
    read,
    refusal,
)

T = TypeVar("T")

CALL_SECONDS: Final = 20.0
"""How long one try of a call may take, polls excepted."""
GRACE_SECONDS: Final = 15.0
"""How much later than its `wait` the answer of a poll may come."""
CONNECT_SECONDS: Final = 10.0
POLLS_A_HOST: Final = 8

API: Final = "/api/v1"


class ChatClient:
    """One account's view of the service at `base_url` (`http://host:port`).

    Calls raise `APIError` for an answer that is an error and `Unreachable` where there was none.
    What is safe to repeat is repeated after connection failures, 429, 502, 503 and 504, with
    backoff and as `Retry-After` asks, for up to `patience` seconds. Without `wait_for_service`
    a call does not wait for a service that has not answered this client before and that no
    connection can be made to: it raises `Unreachable` at once.

    Polls have connections of their own, so a send never queues behind one that is held. `reactor`
    is the global one unless given; `http` and `polls` replace treq's clients, `clock`, `now`
    (Unix time) and `random` what a test wants to control.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        patience: float = 60.0,
        wait_for_service: bool = True,
        reactor: Any = None,
        http: Http | None = None,
        polls: Http | None = None,
        clock: IReactorTime | None = None,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.token = token
        self._api = base_url.rstrip("/").removesuffix(API) + API
        self._patience = patience
        # Whether a connection that cannot be made is worth another try.
        self._retry_connecting = wait_for_service
        self._pools: list[HTTPConnectionPool] = []
        if reactor is None and (http is None or polls is None or clock is None):
            from twisted.internet import reactor
        self._clock: IReactorTime = reactor if clock is None else clock
        self._http: Http = http or self._connections(reactor, 4)
        self._polls: Http = polls or http or self._connections(reactor, POLLS_A_HOST)
        self._now = now
        self._random = random

    def _connections(self, reactor: Any, a_host: int) -> HTTPClient:
        pool = HTTPConnectionPool(reactor, persistent=True)
        pool.maxPersistentPerHost = a_host
        # Repeating is decided here, where it is known what is safe, and when to stop.
        pool.retryAutomatically = False
        self._pools.append(pool)
        return HTTPClient(Agent(reactor, pool=pool, connectTimeout=CONNECT_SECONDS))

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
        """Close the idle connections. Calls under way are not ended: cancel them."""
        await gatherResults([pool.closeCachedConnections() for pool in self._pools])

    async def register(self, username: str, email: str, password: str) -> User:
        """Make an account; `APIError` with `username_taken`, `registration_closed`, ...

        Not repeated where the account may have been made by a try that got no answer: then it
        raises `Unreachable`, and logging in tells.
        """
        body = {"username": username, "email": email, "password": password}
        return (await self._call("POST", "/users/", User, body=body, once=True, public=True))[0]

    async def log_in(self, username: str, password: str) -> str:
        """Get a token, use it from now on and return it."""
        body = {"username": username, "password": password}
        issued, _ = await self._call("POST", "/tokens/", IssuedToken, body=body, public=True)
        self.token = issued.token
        return issued.token

    async def log_out(self) -> None:
        """Revoke the token; its polls end. A token that is no longer known is revoked enough."""
        try:
            await self._call("DELETE", "/tokens/", NoneType)
        except APIError as refused:
            if refused.status != 401:
                raise
        self.token = None

    async def delete_account(self) -> None:
        """Delete the account with its tokens and its inbox, for ever."""
        await self._call("DELETE", "/users/", NoneType, once=True)
        self.token = None

    async def me(self) -> User:
        """The account that the token belongs to."""
        return (await self._call("GET", "/users/", User))[0]

    async def user(self, user_id: int) -> User:
        """An account by its id; `APIError` with `user_not_found`."""
        return (await self._call("GET", "/users/", User, [("user_id", str(user_id))]))[0]

    async def user_named(self, username: str) -> User:
        """An account by its name, whatever its case; `APIError` with `user_not_found`."""
        return (await self._call("GET", "/users/", User, [("username", username)]))[0]

    async def send(self, user_id: int, text: str, *, key: str | None = None) -> Sent:
        """Store a message in the inbox of `user_id`; returns when it is durable.

        It is stored once, however often the request has to be repeated: all tries carry one
        Idempotency-Key. Give `key` to have that across restarts of the program too: the same
        key and message within a day are one send.
        """
        key = key or secrets.token_urlsafe(18)
        body = {"user_id": user_id, "message": text}
        message, answer = await self._call("POST", "/chats/", Message, body=body, key=key)
        return Sent(message, answer.header("Idempotency-Replayed") == "true")

    async def page(self, page: int = 1, *, limit: int = 10, at: str | None = None) -> Page:
        """A page of the inbox, newest first; `at` (a cursor) pins it while messages arrive."""
        params = [("page", str(page)), ("limit", str(limit))]
        if at is not None:
            params.append(("at", at))
        got, _ = await self._call("GET", "/chats/", PageAnswer, params)
        meta = got.meta
        return Page(got.messages, meta.count, meta.next, meta.previous, meta.cursor)

    async def conversation(
        self, user_id: int, *, limit: int = 50, before: str | None = None
    ) -> Conversation:
        """What the caller and `user_id` sent each other, newest first."""
        params = [("with", str(user_id)), ("limit", str(limit))]
        if before is not None:
            params.append(("before", before))
        got, _ = await self._call("GET", "/chats/", ConversationAnswer, params)
        return Conversation(got.messages, got.meta.older)

    async def cursor(self) -> str:
        """The end of the inbox now: `follow(since=cursor)` gives everything after this moment."""
        return (await self.poll("now", 0)).cursor

    async def poll(self, since: str, wait: float = 30.0, limit: int = 100) -> Poll:
        """Messages after `since` (a cursor, `0` or `now`), waiting up to `wait` seconds.

        One try, without repeating: `follow` is built on it.
        """
        params = [("since", since), ("wait", f"{wait:g}"), ("limit", str(limit))]
        answer = await self._once(
            self._polls, "GET", "/chats/", params, seconds=wait + GRACE_SECONDS
        )
        got = read(answer, PollAnswer)
        meta = got.meta
        return Poll(
            got.messages,
            meta.cursor,
            meta.count,
            meta.more,
            meta.timed_out,
            meta.superseded,
            meta.waited / 1000,
            retry_after(answer.header("Retry-After"), self._now),
        )

    def follow(
        self,
        since: str | Position = "now",
        *,
        wait: float = 30.0,
        on_resync: Callable[[HistoryChanged], str | Awaitable[str]] | None = None,
        on_trouble: Callable[[ChatError | None], object] | None = None,
    ) -> Follow:
        """Every message after `since`, once and in order, for ever: see `Follow`."""
        return Follow(
            self.poll,
            since,
            wait=wait,
            on_resync=on_resync,
            on_trouble=on_trouble,
            clock=self._clock,
            random=self._random,
        )

    async def _call(
        self,
        method: str,
        path: str,
        shape: type[T],
        params: Sequence[tuple[str, str]] = (),
        *,
        body: object = None,
        key: str | None = None,
        once: bool = False,
        public: bool = False,
    ) -> tuple[T, Answer]:
        """Ask until there is an answer; with `once` nothing that may have acted is repeated."""
        backoff = Backoff(self._random)
        patience_ends = self._clock.seconds() + self._patience
        while True:
            trouble: APIError | Unreachable
            try:
                answer = await self._once(
                    self._http, method, path, params, body=body, key=key, public=public
                )
                return read(answer, shape), answer
            except Unreachable as problem:
                if once if problem.sent else not self._retry_connecting:
                    raise
                trouble, delay = problem, backoff.delay()
            except APIError as problem:
                if not problem.passing or (once and problem.status != 429):
                    raise
                trouble, delay = problem, backoff.delay(problem.retry_after)
            if self._clock.seconds() + delay > patience_ends:
                raise trouble
            await deferLater(self._clock, delay)

    async def _once(
        self,
        http: Http,
        method: str,
        path: str,
        params: Sequence[tuple[str, str]] = (),
        *,
        body: object = None,
        key: str | None = None,
        public: bool = False,
        seconds: float = CALL_SECONDS,
    ) -> Answer:
        headers = {}
        if not public:
            if self.token is None:
                raise NoTokenError("log in first, or give the client a token")
            headers["Authorization"] = f"Bearer {self.token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        answer = await exchange(
            http,
            self._clock,
            method,
            self._api + path,
            headers=headers,
            params=params,
            body=body,
            seconds=seconds,
        )
        self._retry_connecting = True
        if not 200 <= answer.status < 300:
            raise refusal(answer, self._now())
        return answer
