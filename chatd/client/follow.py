"""`Follow`: iterate over an inbox, every message exactly once and in order, and over changes.

Messages come by a stream or by long polls. Either way each carries a cursor with it, and the next
request passes on the last one, so that what was lost is simply sent again; `seq` proves that
nothing was lost or repeated (docs/protocol.md).
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, Self, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from chatd.client.backoff import Backoff
from chatd.client.errors import APIError, ChatError, Gap, HistoryChanged, Unreachable
from chatd.client.streaming import NoStream
from chatd.client.transport import Received, Transport
from chatd.client.values import Change, Message, Position

FAILED_STREAMS: Final = 5
"""After so many streams in a row that brought nothing, polls are used instead."""


Item = TypeVar("Item")


class Following(Generic[Item]):
    """An asynchronous iterator over what comes after `since`; it waits for more.

    It survives failing connections, restarts, proxies that cut connections, networks that lose
    long responses, 429 and 5xx: it waits, with full jitter and as `Retry-After` requests, and
    continues. It raises `Gap` if a message is missing, and any other `APIError` (401: the token was
    revoked). Iteration can be resumed after an exception.

    A consumer that takes messages slowly slows the service down; at most 64 KiB and one message
    wait in memory. A stream of which nothing is taken for 40 seconds is closed, and opened again
    for the next message.

    `since` is `now` (the moment of the first request), `0` (the beginning of the inbox), a cursor,
    or a saved `Position`. `on_resync` is called when the service rejects the cursor
    (`HistoryChanged`) and returns, directly or as an awaitable, where to continue; without it the
    error is raised. `on_connection_change` is called with the error when requests
    begin to fail, and with None once one succeeds again.
    """

    def __init__(
        self,
        polling: Transport,
        streaming: Transport | None,
        since: str | Position,
        *,
        may_fall_back: bool,
        on_resync: Callable[[HistoryChanged], str | Awaitable[str]] | None,
        on_connection_change: Callable[[ChatError | None], object] | None,
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        self._polling = polling
        self._streaming = streaming
        self._may_fall_back = may_fall_back
        self._on_resync = on_resync
        self._on_connection_change = on_connection_change
        self._clock = clock
        self._failure_backoff = Backoff(random)
        self._resync_backoff = Backoff(random)
        self._disconnected = False
        self._failed_streams = 0
        self._streamed = False
        self._ready: deque[Any] = deque()
        self._pause = 0.0
        self._start_at(since)

    def _start_at(self, since: str | Position) -> None:
        position = since if isinstance(since, Position) else Position(since)
        self._position = position
        # The cursor after everything in `_ready`, and the seq of its last message.
        self._cursor = position.cursor
        self._last_seq = position.seq

    @property
    def position(self) -> Position:
        """After the last message that was taken: `follow(since=position)` continues from there."""
        return self._position

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._ready:
            await self._receive()
        item: Any = self._ready.popleft()
        # Cursors lie between responses: within one, the seq says what was already taken.
        cursor = self._position.cursor if self._ready else self._cursor
        seq = item.seq if isinstance(item, Message) else self._position.seq
        if not self._ready:
            seq = self._last_seq
        self._position = Position(cursor, seq)
        taken: Item = item
        return taken

    def close(self) -> None:
        """Close the stream that a loop which was left early may still have open.

        This does not end an iteration in progress: cancel that. Iteration can be resumed.
        """
        if self._streaming is not None:
            self._streaming.close()

    async def _receive(self) -> None:
        """Receive once, and put new messages into `_ready`."""
        if self._pause:
            pause, self._pause = self._pause, 0.0
            await deferLater(self._clock, pause)
        # A stream begins at a cursor, so that it can begin there again.
        transport = self._streaming
        if transport is None or self._cursor == "now":
            transport = self._polling
        try:
            received = await transport.receive(self._cursor)
        except HistoryChanged as error:
            await self._resync(error)
        except Unreachable as error:
            if transport is self._streaming and error.sent and self._should_poll(error):
                self._streaming = None
            else:
                self._back_off(error, None)
        except APIError as error:
            if not (error.retryable or error.status >= 500):
                raise
            self._back_off(error, None if error.status == 504 else error.retry_after)
        else:
            self._streamed = self._streamed or transport is self._streaming
            try:
                self._on_success(received)
            except BaseException:
                # What was not accepted is requested again; the stream would go on after it.
                self.close()
                raise

    def _on_success(self, received: Received) -> None:
        if received.settled:
            self._failed_streams = 0
            self._failure_backoff.reset()
            self._resync_backoff.reset()
        if self._disconnected and self._on_connection_change is not None:
            self._on_connection_change(None)
        self._disconnected = False
        self._pause = received.pause
        self._accept(received)

    def _accept(self, received: Received) -> None:
        last_seq, new = self._last_seq, []
        for message in received.messages:
            if last_seq is not None:
                if message.seq <= last_seq:
                    continue
                if message.seq != last_seq + 1:
                    raise Gap(last_seq + 1, message.seq)
            last_seq = message.seq
            new.append(message)
        if received.count is not None:
            # The last message of this response is the last one of the inbox.
            if last_seq is not None and last_seq < received.count:
                raise Gap(last_seq + 1, received.count)
            last_seq = received.count
        self._ready.extend([*new, *received.changes])
        self._last_seq = last_seq
        self._cursor = received.cursor
        if not self._ready:
            self._position = Position(received.cursor, last_seq)

    def _should_poll(self, error: Unreachable) -> bool:
        """Whether to poll from now on, after a stream that failed.

        Streams that have worked may fail because the network or the service does. On a bad network
        a short response may get through where a stream does not.
        """
        self._failed_streams += 1
        if not self._may_fall_back:
            return False
        never = isinstance(error, NoStream) and not self._streamed
        return never or self._failed_streams == FAILED_STREAMS

    async def _resync(self, error: HistoryChanged) -> None:
        if self._on_resync is None:
            raise error
        since = self._on_resync(error)
        if inspect.isawaitable(since):
            since = await since
        # Without a pause, a callback that keeps returning a rejected cursor would spin.
        self._pause = self._resync_backoff.delay()
        self._start_at(since)

    def _back_off(self, error: ChatError, retry_after: float | None) -> None:
        self._pause = self._failure_backoff.delay(retry_after)
        if not self._disconnected and self._on_connection_change is not None:
            self._on_connection_change(error)
        self._disconnected = True


class Follow(Following[Message]):
    """Every message after `since`, exactly once and in order."""


class FollowChanges(Following[Message | Change]):
    """Every message after `since`, exactly once and in order, and changes of what was before.

    A change tells a state. If iteration is resumed from a saved `Position`, changes that were taken
    may be told again.
    """
