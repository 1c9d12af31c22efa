"""`Polling`: receive messages by long polls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from chatd.client.backoff import Backoff
from chatd.client.errors import APIError, Unreachable
from chatd.client.transport import Received
from chatd.client.values import Poll

MAX_LIMIT: Final = 100
"""Messages requested at once; fewer after a response did not get through."""
MIN_WAIT_SECONDS: Final = 5.0
"""Polls are never made shorter than this, however early a proxy seems to cut them."""
EARLY_SECONDS: Final = 1.0
"""After an empty response that came earlier than this, the next poll is delayed."""


class Polling:
    """A `Transport` that polls for up to `wait` seconds.

    Polls get shorter where a proxy cuts them, and request fewer messages where a network loses
    long responses.
    """

    def __init__(
        self,
        poll: Callable[[str, float, int], Awaitable[Poll]],
        *,
        wait: float,
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        self._poll = poll
        self._clock = clock
        self._full_wait = self._wait = wait
        self._limit = MAX_LIMIT
        self._early_backoff = Backoff(random)

    async def receive(self, cursor: str) -> Received:
        """Poll once."""
        # A lost poll from `now` has no cursor yet, and the next `now` would skip what
        # arrived in between: so get a cursor first, without waiting.
        wait = 0.0 if cursor == "now" else self._wait
        started = self._clock.seconds()
        try:
            poll = await self._poll(cursor, wait, self._limit)
        except (Unreachable, APIError) as error:
            if isinstance(error, Unreachable) or error.status == 504:
                self._on_cut(self._clock.seconds() - started)
            raise
        self._limit = min(self._limit * 2, MAX_LIMIT)
        pause = self._pause_after(poll, cursor)
        if poll.timed_out and self._wait < self._full_wait:
            self._wait = min(self._wait * 1.05, self._full_wait)
        count = None if poll.more else poll.count
        return Received(poll.messages, poll.cursor, count, pause, poll.changes)

    def close(self) -> None:
        """Do nothing: there is no connection between polls."""

    def _pause_after(self, poll: Poll, cursor: str) -> float:
        if poll.messages or poll.changes or poll.timed_out or cursor == "now":
            self._early_backoff.reset()
            return poll.retry_after or 0.0
        if poll.retry_after is not None or poll.waited < EARLY_SECONDS or poll.superseded:
            # The server is overloaded or stopping, or this user holds too many polls. Polling
            # again at once would make it worse.
            return self._early_backoff.delay(poll.retry_after)
        return 0.0

    def _on_cut(self, elapsed: float) -> None:
        """Handle a poll without a response: poll for a shorter time and for fewer messages.

        If the poll was held for a while, a proxy may cut idle connections. On a bad network a
        short response may get through where a long one does not.
        """
        self._limit = max(1, self._limit // 2)
        if elapsed >= MIN_WAIT_SECONDS:
            self._wait = max(MIN_WAIT_SECONDS, min(self._wait, elapsed * 0.8))
