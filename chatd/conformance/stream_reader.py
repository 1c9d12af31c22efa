"""Reads a stream, in both formats, event by event."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from chatd.conformance.checks import CheckFailed, expect, expect_equal
from chatd.conformance.server import RESPONSE_SECONDS, Account

SERVER_SENT_EVENTS: Final = "text/event-stream"
JSON_LINES: Final = "application/x-ndjson"
MEDIA_TYPES: Final = (SERVER_SENT_EVENTS, JSON_LINES)

OPENING: Final = "opening"
KEEP_ALIVE: Final = "keepalive"


class Event(Struct, frozen=True):
    """An event, the same for both formats.

    `name` is the type of a server-sent event, or the first of these that a line of JSON has:
    `message`, `change`, `error`, or its only member. `cursor` is the last one that was received.
    """

    name: str
    document: Any
    cursor: str


class EventParser:
    """Takes the lines of a stream apart; raises `ValueError` if it cannot."""

    def __init__(self, media_type: str) -> None:
        self._parse = self._json_line if media_type == JSON_LINES else self._event_line
        self._buffer = b""
        self._cursor = ""
        self._fields: dict[str, str] = {}

    def feed(self, data: bytes) -> list[Event]:
        """The events that are complete with this data."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        found = [self._parse(line.decode().removesuffix("\r")) for line in lines]
        return [event for event in found if event is not None]

    def _event_line(self, line: str) -> Event | None:
        """A line of server-sent events (WHATWG HTML, section 9.2.6)."""
        if line.startswith(":"):
            return Event(KEEP_ALIVE, None, self._cursor)
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data" and "data" in self._fields:
                value = f"{self._fields['data']}\n{value}"
            self._fields[name] = value
            return None
        fields, self._fields = self._fields, {}
        self._cursor = fields.get("id", self._cursor)
        if "data" in fields:
            return Event(fields.get("event", "message"), json.loads(fields["data"]), self._cursor)
        return Event(OPENING, None, self._cursor) if fields else None

    def _json_line(self, line: str) -> Event:
        document = json.loads(line)
        if not isinstance(document, dict) or not document:
            raise ValueError(f"not an event: {line[:100]!r}")
        self._cursor = document.get("cursor", self._cursor)
        for name in ("message", "change", "error"):
            if name in document:
                return Event(name, document[name], self._cursor)
        return Event(next(iter(document)), document, self._cursor)


class StreamReader(Protocol):
    """The body of a stream. Nothing is parsed before it is asked for."""

    def __init__(self, media_type: str, header: Callable[[str], str], clock: IReactorTime) -> None:
        self.header = header
        self._clock = clock
        self._parser = EventParser(media_type)
        self._received = bytearray()
        self._events: deque[Event] = deque()
        self._waiting: Deferred[None] | None = None
        self._end: Failure | None = None

    async def next(self, seconds: float = RESPONSE_SECONDS) -> Event | None:
        """The next event, None at the end of the response; fails the check after `seconds`."""

        def expire(_: object, __: float) -> NoReturn:
            raise CheckFailed(f"the stream has sent nothing for {seconds:g} s")

        while not self._events:
            if self._received:
                received = bytes(self._received)
                self._received.clear()
                self._events.extend(self._parser.feed(received))
            elif self._end is not None:
                expect(self._end.check(ResponseDone), "the response is incomplete")
                return None
            else:
                self._waiting = Deferred()
                await self._waiting.addTimeout(seconds, self._clock, expire)
        return self._events.popleft()

    async def news(self, seconds: float = RESPONSE_SECONDS) -> Event | None:
        """The next event that is neither the opening nor a keep-alive, None at the end."""
        ends = self._clock.seconds() + seconds
        while (event := await self.next(seconds)) is not None:
            if event.name not in (OPENING, KEEP_ALIVE):
                break
            expect(self._clock.seconds() < ends, f"nothing but keep-alives for {seconds:g} s")
        return event

    async def messages(self, count: int, seconds: float = RESPONSE_SECONDS) -> list[Event]:
        """The next messages; another event, or the end, fails the check."""
        return await self.events("message", count, seconds)

    async def events(self, name: str, count: int, seconds: float = RESPONSE_SECONDS) -> list[Event]:
        """The next events of this name; another one, or the end, fails the check."""
        found = []
        for _ in range(count):
            event = await self.news(seconds)
            expect_equal(event and event.name, name, "the next event")
            assert event is not None
            found.append(event)
        return found

    async def last(self, seconds: float) -> Event:
        """The next event, after which the stream ends."""
        event = await self.news(seconds)
        expect(event is not None, "the stream ended without an event")
        assert event is not None
        expect_equal(await self.news(seconds), None, f"after {event.name}")
        return event

    def pause(self) -> None:
        """Receive nothing."""
        self._transport.pauseProducing()

    def resume(self) -> None:
        """Receive again."""
        self._transport.resumeProducing()

    def close(self) -> None:
        """Cut the connection."""
        if self._end is None:
            self._transport.loseConnection()

    @property
    def _transport(self) -> Any:
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end = reason
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)


async def open_stream(
    account: Account, media_type: str, query: str = "", headers: Mapping[str, str] | None = None
) -> StreamReader:
    """A stream, which is closed after the check; `headers` may replace the token."""
    server = account.server
    fields = {"Authorization": f"Bearer {account.token}", "Accept": media_type, **(headers or {})}
    response = await server.open("GET", f"/chats/{query}", fields)

    def header(name: str) -> str:
        return ", ".join(response.headers.getRawHeaders(name, []))

    stream = StreamReader(media_type, header, server.reactor)
    response.deliverBody(stream)
    server.on_cleanup(stream.close)
    expect_equal(response.code, 200, f"the status of a stream of {media_type}")
    expect_equal(header("Content-Type").partition(";")[0], media_type, "Content-Type")
    return stream
