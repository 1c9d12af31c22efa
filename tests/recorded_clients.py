"""Clients of the library that record what they ask and are told, as `tests.history` describes."""

from __future__ import annotations

import time
from typing import IO, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from chatd.client import APIError, ChatClient, Follow, Message, Unreachable
from chatd.client import Sent as SentMessage
from tests.history import (
    ACKNOWLEDGED,
    REFUSED,
    UNKNOWN,
    Event,
    Outcome,
    Seen,
    Sent,
    Stored,
    write,
)

PAGE: Final = 100
READ_SECONDS: Final = 30.0


class Recorder:
    """Collects events, and writes each to a file at once if there is one."""

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self.events: list[Event] = []
        self._file = file

    def record(self, event: Event) -> None:
        """Add an event that has just ended."""
        self.events.append(event)
        if self._file is not None:
            write([event], self._file)


class Account:
    """An account with a client of its own, whose calls are recorded."""

    def __init__(self, client: ChatClient, user_id: int, recorder: Recorder) -> None:
        self.client = client
        self.user_id = user_id
        self._recorder = recorder

    async def send(self, to: int, text: str) -> SentMessage | None:
        """Send a message; None if that failed for as long as the client repeats it."""
        began = time.monotonic()
        outcome: Outcome = UNKNOWN
        sent: SentMessage | None = None
        try:
            sent = await self.client.send(to, text)
            outcome = ACKNOWLEDGED
        except APIError as error:
            # An earlier attempt may have been stored, unless the request itself is what is wrong.
            outcome = UNKNOWN if error.retryable or error.status >= 500 else REFUSED
        except Unreachable:
            pass
        finally:
            told = () if sent is None else (sent.message.seq, _written(sent.message))
            route = self.user_id, to, text
            self._recorder.record(Sent(began, time.monotonic(), *route, outcome, *told))
        return sent

    async def page(self, *, counted: bool) -> int:
        """Read the newest page; returns the size of the inbox.

        `counted`: it must count everything that was acknowledged before, at any daemon.
        """
        began = time.monotonic()
        page = await self.client.page()
        messages = [stored(message) for message in reversed(page.messages)]
        after = page.count - len(messages)
        count = page.count if counted else None
        self._recorder.record(Seen(began, time.monotonic(), self.user_id, after, messages, count))
        return page.count

    async def inbox(self) -> list[Stored]:
        """The whole inbox, read until a response is empty."""
        from twisted.internet import reactor

        messages: list[Stored] = []
        cursor = "0"
        ends = time.monotonic() + READ_SECONDS
        while True:
            try:
                poll = await self.client.poll(cursor, 0, PAGE)
            except Unreachable:
                # A poll is a single attempt, maybe on a connection that was cut.
                if time.monotonic() > ends:
                    raise
                await deferLater(reactor, 0.1)
                continue
            if not poll.messages:
                return messages
            messages += map(stored, poll.messages)
            cursor = poll.cursor

    def follow(self, follow: Follow, reader: str) -> Reader:
        """Record every message that `follow` yields, from the beginning of the inbox."""
        return Reader(follow, self.user_id, reader, self._recorder)


class Reader:
    """Follows an inbox from its beginning until it is stopped, and records its messages."""

    def __init__(self, follow: Follow, user_id: int, name: str, recorder: Recorder) -> None:
        self.name = name
        self.seen = 0
        self._follow = follow
        self._user_id = user_id
        self._recorder = recorder
        self._reading = Deferred.fromCoroutine(self._read())

    async def _read(self) -> None:
        began = time.monotonic()
        async for message in self._follow:
            self._recorder.record(
                Seen(
                    began,
                    time.monotonic(),
                    self._user_id,
                    self.seen,
                    [stored(message)],
                    reader=self.name,
                )
            )
            self.seen = message.seq
            began = time.monotonic()

    @property
    def has_ended(self) -> bool:
        """Whether it failed; `stop` raises why."""
        return self._reading.called

    async def until(self, seq: int, seconds: float) -> None:
        """Wait until the message `seq` has come, the reader has failed, or the time is over."""
        from twisted.internet import reactor

        ends = time.monotonic() + seconds
        while self.seen < seq and not self.has_ended and time.monotonic() < ends:
            await deferLater(reactor, 0.02)

    async def stop(self) -> None:
        """End it; raises what it failed with."""
        self._reading.cancel()
        try:
            await self._reading
        except CancelledError:
            pass
        finally:
            self._follow.close()


def stored(message: Message) -> Stored:
    """A message of the library as the checker knows it."""
    return Stored(message.seq, message.sent_by, message.text, _written(message))


def _written(message: Message) -> str:
    return message.sent_at.isoformat()
