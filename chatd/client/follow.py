"""Follow an inbox: every message once and in order, whatever happens to connections.

A loop of long polls. Each carries the cursor of the answer before it, so an answer that was lost
on its way is simply given again; `seq` proves that nothing was lost or repeated
(docs/protocol.md).
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

LARGEST_ANSWER: Final = 100
"""Messages asked for at once; fewer after an answer did not get through."""
SHORTEST_WAIT: Final = 5.0
"""Seconds below which polls are not shortened, however early a proxy seems to cut them."""
QUICK_SECONDS: Final = 1.0
"""An empty answer that came faster, without the wait being over, is no reason to hurry."""


class Follow:
    """An asynchronous iterator over the messages after `since`, waiting for those to come.

    It survives connections that fail, restarts, proxies that cut held polls (the polls become
    shorter), lines that lose long answers (these too), 429 and 5xx: it waits, with full jitter and
    as `Retry-After` asks, and goes on. It raises `Gap` if a message is missing, and other
    `APIError` answers (401: the token was revoked) as they are. Iterating can go on after an
    exception, from where it was.

    `since` is `now` (when the first message is asked for), `0` (the beginning of the inbox), a
    cursor, or a `Position` written down earlier. `on_resync` is called when the service knows
    the cursor no more (`HistoryChanged`); what it returns, or what its coroutine gives, is where
    to go on from: without it the error is raised. `on_trouble` is called with the error before
    each wait, and with None when an answer has come again.
    """

    def __init__(
        self,
        poll: Callable[[str, float, int], Awaitable[Poll]],
        since: str | Position,
        *,
        wait: float,
        on_resync: Callable[[HistoryChanged], str | Awaitable[str]] | None,
        on_trouble: Callable[[ChatError | None], object] | None,
        clock: IReactorTime,
        random: Callable[[], float],
    ) -> None:
        self._poll = poll
        self._on_resync = on_resync
        self._on_trouble = on_trouble
        self._clock = clock
        self._wanted_wait = self._wait = wait
        self._limit = LARGEST_ANSWER
        self._failures = Backoff(random)
        self._hurries = Backoff(random)
        self._troubled = False
        self._ready: deque[Message] = deque()
        self._pause = 0.0
        self._begin(since)

    def _begin(self, since: str | Position) -> None:
        at = since if isinstance(since, Position) else Position(since)
        if at.cursor == "0" and at.seq is None:
            at = Position("0", 0)
        self._position = at
        # The cursor after everything in `_ready`, and the seq of its last message.
        self._cursor = at.cursor
        self._fetched = at.seq

    @property
    def position(self) -> Position:
        """After the last message that was taken: `follow(since=position)` goes on from there."""
        return self._position

    def __aiter__(self) -> Follow:
        return self

    async def __anext__(self) -> Message:
        while not self._ready:
            await self._fetch()
        message = self._ready.popleft()
        # A cursor stands for whole answers: within one, the seq says what was taken already.
        cursor = self._position.cursor if self._ready else self._cursor
        self._position = Position(cursor, message.seq)
        return message

    async def _fetch(self) -> None:
        """One poll; what it brought is in `_ready`, its cursor where the next one begins."""
        if self._pause:
            pause, self._pause = self._pause, 0.0
            await deferLater(self._clock, pause)
        # `now` is asked for without waiting: a held poll that is lost would have no cursor yet,
        # and asking again would skip what came meanwhile.
        wait = 0.0 if self._cursor == "now" else self._wait
        began = self._clock.seconds()
        try:
            answer = await self._poll(self._cursor, wait, self._limit)
        except HistoryChanged as changed:
            await self._resync(changed)
            return
        except Unreachable as problem:
            self._cut(problem, self._clock.seconds() - began)
            return
        except APIError as problem:
            if not (problem.passing or problem.status >= 500):
                raise
            if problem.status == 504:
                self._cut(problem, self._clock.seconds() - began)
            else:
                self._trouble(problem, problem.retry_after)
            return
        self._failures.reset()
        self._limit = min(self._limit * 2, LARGEST_ANSWER)
        if self._troubled and self._on_trouble is not None:
            self._on_trouble(None)
        self._troubled = False
        self._take(answer)

    def _take(self, answer: Poll) -> None:
        if answer.messages or answer.timed_out or self._cursor == "now":
            self._hurries.reset()
            self._pause = answer.retry_after or 0.0
        elif answer.retry_after is not None or answer.waited < QUICK_SECONDS or answer.superseded:
            # Empty and early: an overloaded or stopping server, or more polls than it lets one
            # user hold. At once again would only make that worse.
            self._pause = self._hurries.delay(answer.retry_after)
        if answer.timed_out and self._wait < self._wanted_wait:
            self._wait = min(self._wait * 1.05, self._wanted_wait)
        fetched, new = self._fetched, []
        for message in answer.messages:
            if fetched is not None:
                if message.seq <= fetched:
                    continue
                if message.seq != fetched + 1:
                    raise Gap(fetched + 1, message.seq)
            fetched = message.seq
            new.append(message)
        if not answer.more:
            # Nothing is after this answer, so its last message is the inbox's last.
            if fetched is not None and fetched < answer.count:
                raise Gap(fetched + 1, answer.count)
            fetched = answer.count
        self._ready.extend(new)
        self._fetched = fetched
        self._cursor = answer.cursor
        if not new:
            self._position = Position(answer.cursor, fetched)

    async def _resync(self, changed: HistoryChanged) -> None:
        if self._on_resync is None:
            raise changed
        since = self._on_resync(changed)
        if inspect.isawaitable(since):
            since = await since
        # Without the pause, a callback that returns the same dead cursor would spin.
        self._pause = self._hurries.delay()
        self._begin(since)

    def _cut(self, problem: ChatError, elapsed: float) -> None:
        """No answer. If the poll was held for a while, something between cuts what is idle.

        On a bad line a long answer may never get through as a whole: a shorter one may.
        """
        self._limit = max(1, self._limit // 2)
        if elapsed >= SHORTEST_WAIT:
            self._wait = max(SHORTEST_WAIT, min(self._wait, elapsed * 0.8))
        self._trouble(problem, None)

    def _trouble(self, problem: ChatError, retry_after: float | None) -> None:
        self._pause = self._failures.delay(retry_after)
        self._troubled = True
        if self._on_trouble is not None:
            self._on_trouble(problem)
