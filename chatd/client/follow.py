"""`Follow`: iterate over an inbox, every message exactly once and in order.

A loop of long polls. Each passes the cursor of the previous response, so a lost response is simply
requested again; `seq` proves that nothing was lost or repeated (docs/protocol.md).
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from chatd.client.backoff import Backoff
from chatd.client.errors import APIError, ChatError, Gap, HistoryChanged, Unreachable
from chatd.client.values import Message, Poll, Position

MAX_LIMIT: Final = 100
"""Messages requested at once; fewer after a response did not get through."""
MIN_WAIT_SECONDS: Final = 5.0
"""Polls are never made shorter than this, however early a proxy seems to cut them."""
EARLY_SECONDS: Final = 1.0
"""After an empty response that came earlier than this, the next poll is delayed."""


class Follow:
    """An asynchronous iterator over the messages after `since`; it waits for new ones.

    It survives failing connections, restarts, proxies that cut held polls (by polling for shorter
    times), networks that lose long responses (by requesting fewer messages), 429 and 5xx: it waits,
    with full jitter and as `Retry-After` requests, and continues. It raises `Gap` if a message is
    missing, and any other `APIError` (401: the token was revoked). Iteration can be resumed after
    an exception.

    `since` is `now` (the moment of the first poll), `0` (the beginning of the inbox), a cursor, or
    a saved `Position`. `on_resync` is called when the service rejects the cursor
    (`HistoryChanged`) and returns, directly or as an awaitable, where to continue; without it the
    error is raised. `on_connection_change` is called with the error when polls
    begin to fail, and with None once one succeeds again.
    """

    def __init__(
        self,
        poll: Callable[[str, float, int], Awaitable[Poll]],
        since: str | Position,
        *,
        wait: float,
        on_resync: Callable[[HistoryChanged], str | Awaitable[str]] | None,
        on_connection_change: Callable[[ChatError | None], object] | None,
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        self._poll = poll
        self._on_resync = on_resync
        self._on_connection_change = on_connection_change
        self._clock = clock
        self._full_wait = self._wait = wait
        self._limit = MAX_LIMIT
        self._failure_backoff = Backoff(random)
        self._early_backoff = Backoff(random)
        self._disconnected = False
        self._ready: deque[Message] = deque()
        self._pause = 0.0
        self._start_at(since)

    def _start_at(self, since: str | Position) -> None:
        position = since if isinstance(since, Position) else Position(since)
        if position.cursor == "0" and position.seq is None:
            position = Position("0", 0)
        self._position = position
        # The cursor after everything in `_ready`, and the seq of its last message.
        self._cursor = position.cursor
        self._last_seq = position.seq

    @property
    def position(self) -> Position:
        """After the last message that was taken: `follow(since=position)` continues from there."""
        return self._position

    def __aiter__(self) -> Follow:
        return self

    async def __anext__(self) -> Message:
        while not self._ready:
            await self._poll_once()
        message = self._ready.popleft()
        # Cursors lie between responses: within one, the seq says what was already taken.
        cursor = self._position.cursor if self._ready else self._cursor
        self._position = Position(cursor, message.seq)
        return message

    async def _poll_once(self) -> None:
        """Poll, and put the new messages into `_ready`."""
        if self._pause:
            pause, self._pause = self._pause, 0.0
            await deferLater(self._clock, pause)
        # A lost poll from `now` has no cursor yet, and the next `now` would skip what
        # arrived in between: so get a cursor first, without waiting.
        wait = 0.0 if self._cursor == "now" else self._wait
        started = self._clock.seconds()
        try:
            poll = await self._poll(self._cursor, wait, self._limit)
        except HistoryChanged as error:
            await self._resync(error)
            return
        except Unreachable as error:
            self._on_cut(error, self._clock.seconds() - started)
            return
        except APIError as error:
            if not (error.retryable or error.status >= 500):
                raise
            if error.status == 504:
                self._on_cut(error, self._clock.seconds() - started)
            else:
                self._back_off(error, error.retry_after)
            return
        self._failure_backoff.reset()
        self._limit = min(self._limit * 2, MAX_LIMIT)
        if self._disconnected and self._on_connection_change is not None:
            self._on_connection_change(None)
        self._disconnected = False
        self._schedule_next(poll)
        self._accept(poll)

    def _schedule_next(self, poll: Poll) -> None:
        if poll.messages or poll.timed_out or self._cursor == "now":
            self._early_backoff.reset()
            self._pause = poll.retry_after or 0.0
        elif poll.retry_after is not None or poll.waited < EARLY_SECONDS or poll.superseded:
            # The server is overloaded or stopping, or this user holds too many polls. Polling
            # again at once would make it worse.
            self._pause = self._early_backoff.delay(poll.retry_after)
        if poll.timed_out and self._wait < self._full_wait:
            self._wait = min(self._wait * 1.05, self._full_wait)

    def _accept(self, poll: Poll) -> None:
        last_seq, new = self._last_seq, []
        for message in poll.messages:
            if last_seq is not None:
                if message.seq <= last_seq:
                    continue
                if message.seq != last_seq + 1:
                    raise Gap(last_seq + 1, message.seq)
            last_seq = message.seq
            new.append(message)
        if not poll.more:
            # Then the last message of this response is the last one of the inbox.
            if last_seq is not None and last_seq < poll.count:
                raise Gap(last_seq + 1, poll.count)
            last_seq = poll.count
        self._ready.extend(new)
        self._last_seq = last_seq
        self._cursor = poll.cursor
        if not new:
            self._position = Position(poll.cursor, last_seq)

    async def _resync(self, error: HistoryChanged) -> None:
        if self._on_resync is None:
            raise error
        since = self._on_resync(error)
        if inspect.isawaitable(since):
            since = await since
        # Without a pause, a callback that keeps returning a rejected cursor would spin.
        self._pause = self._early_backoff.delay()
        self._start_at(since)

    def _on_cut(self, error: ChatError, elapsed: float) -> None:
        """Handle a poll without a response: poll for a shorter time and for fewer messages.

        If the poll was held for a while, a proxy may cut idle connections. On a bad network a
        short response may get through where a long one does not.
        """
        self._limit = max(1, self._limit // 2)
        if elapsed >= MIN_WAIT_SECONDS:
            self._wait = max(MIN_WAIT_SECONDS, min(self._wait, elapsed * 0.8))
        self._back_off(error, None)

    def _back_off(self, error: ChatError, retry_after: float | None) -> None:
        self._pause = self._failure_backoff.delay(retry_after)
        if not self._disconnected and self._on_connection_change is not None:
            self._on_connection_change(error)
        self._disconnected = True
