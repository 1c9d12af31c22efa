"""`Caller`: requests to the API, with the token, retries and separate connections for polls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from treq.client import HTTPClient
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool

from chatd.client.backoff import Backoff
from chatd.client.errors import APIError, NoTokenError, Unreachable
from chatd.client.exchange import Requester, Response, exchange
from chatd.client.lines import LineReader
from chatd.client.streaming import open_stream
from chatd.client.wire import decode, decode_error

T = TypeVar("T")

CALL_SECONDS: Final = 20.0
"""Timeout of one attempt of a call other than a poll."""
POLL_GRACE_SECONDS: Final = 15.0
"""Timeout of a poll, beyond its `wait`."""
CONNECT_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 5.0
CALL_CONNECTIONS: Final = 4
POLL_CONNECTIONS: Final = 8
"""Idle connections kept for each purpose."""

API: Final = "/api/v1"


class Caller:
    """Sends the requests of a `ChatClient`, whose arguments it takes."""

    def __init__(
        self,
        base_url: str,
        token: str | None,
        *,
        retry_seconds: float,
        wait_for_service: bool,
        reactor: Any,
        http: Requester | None,
        polls: Requester | None,
        clock: IReactorTime | None,
        now: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.token = token
        self.url = base_url.rstrip("/").removesuffix(API) + API
        self._retry_seconds = retry_seconds
        # Whether to retry when no connection can be made.
        self._retry_connecting = wait_for_service
        self._pools: list[HTTPConnectionPool] = []
        self._streams: set[LineReader] = set()
        if reactor is None and (http is None or polls is None or clock is None):
            from twisted.internet import reactor
        self.clock: IReactorTime = reactor if clock is None else clock
        self._http: Requester = http or self._new_http_client(reactor, CALL_CONNECTIONS)
        self._polls: Requester = polls or http or self._new_http_client(reactor, POLL_CONNECTIONS)
        self.now = now
        self.random = random

    def _new_http_client(self, reactor: Any, connections: int) -> HTTPClient:
        pool = HTTPConnectionPool(reactor, persistent=True)
        pool.maxPersistentPerHost = connections
        # `call` retries: it knows what is safe to repeat, and when to stop.
        pool.retryAutomatically = False
        self._pools.append(pool)
        return HTTPClient(Agent(reactor, pool=pool, connectTimeout=CONNECT_SECONDS))

    async def close(self) -> None:
        """Close idle connections, and streams that nobody is waiting for."""
        idle = [stream for stream in self._streams if not stream.is_waiting]
        for stream in idle:
            stream.close()
        # With TLS, closing takes an answer, and so forever if the network is gone.
        disconnected = [stream.disconnected for stream in idle]
        await gatherResults(disconnected, consumeErrors=True).addTimeout(
            CLOSE_SECONDS, self.clock, lambda *_: []
        )
        await gatherResults([pool.closeCachedConnections() for pool in self._pools])

    async def poll(self, params: Sequence[tuple[str, str]], wait: float) -> Response:
        """The response to a poll of the inbox that is held for up to `wait` seconds."""
        return await self._attempt(
            self._polls, "GET", "/chats/", params, seconds=wait + POLL_GRACE_SECONDS
        )

    async def open_stream(self, since: str, *, changes: bool = False) -> LineReader:
        """A stream of the inbox after a cursor; raises as `streaming.open_stream` does."""
        stream = await open_stream(
            self._polls,
            self.clock,
            f"{self.url}/chats/",
            since=since,
            changes=changes,
            headers=self._authorization(),
            now=self.now,
        )
        self._streams.add(stream)
        stream.disconnected.addCallback(lambda _: self._streams.discard(stream))
        return stream

    async def call(
        self,
        method: str,
        path: str,
        body_type: type[T],
        params: Sequence[tuple[str, str]] = (),
        *,
        body: object = None,
        key: str | None = None,
        idempotent: bool = True,
        public: bool = False,
        wait: float = 0.0,
    ) -> tuple[T, Response]:
        """Send a request and retry; if not `idempotent`, only where it was not acted on.

        The service may take `wait` seconds longer than usual to respond.
        """
        backoff = Backoff(self.random)
        deadline = self.clock.seconds() + self._retry_seconds
        while True:
            failure: APIError | Unreachable
            try:
                response = await self._attempt(
                    self._polls if wait else self._http,
                    method,
                    path,
                    params,
                    body=body,
                    key=key,
                    public=public,
                    seconds=CALL_SECONDS + wait,
                )
                return decode(response, body_type), response
            except Unreachable as error:
                if not (idempotent if error.sent else self._retry_connecting):
                    raise
                failure, delay = error, backoff.delay()
            except APIError as error:
                if not error.retryable or not (idempotent or error.never_handled):
                    raise
                failure, delay = error, backoff.delay(error.retry_after)
            if self.clock.seconds() + delay > deadline:
                raise failure
            await deferLater(self.clock, delay)

    async def _attempt(
        self,
        http: Requester,
        method: str,
        path: str,
        params: Sequence[tuple[str, str]] = (),
        *,
        body: object = None,
        key: str | None = None,
        public: bool = False,
        seconds: float = CALL_SECONDS,
    ) -> Response:
        headers = {} if public else self._authorization()
        if key is not None:
            headers["Idempotency-Key"] = key
        response = await exchange(
            http,
            self.clock,
            method,
            self.url + path,
            headers=headers,
            params=params,
            body=body,
            seconds=seconds,
        )
        self._retry_connecting = True
        if not 200 <= response.status < 300:
            raise decode_error(response, self.now())
        return response

    def _authorization(self) -> dict[str, str]:
        if self.token is None:
            raise NoTokenError("log in first, or pass a token to the client")
        return {"Authorization": f"Bearer {self.token}"}
