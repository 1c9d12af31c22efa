"""`Streaming`: receive messages by a stream of JSON lines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from twisted.internet.interfaces import IReactorTime

from chatd.client.backoff import MAX_RETRY_AFTER_SECONDS, Backoff
from chatd.client.errors import Unreachable
from chatd.client.exchange import (
    Requester,
    Response,
    TimedOut,
    read_body,
    send_request,
    within,
)
from chatd.client.lines import LineReader
from chatd.client.transport import Received
from chatd.client.wire import StreamLine, api_error, decode_changes, decode_error, decode_line

MEDIA_TYPE: Final = "application/x-ndjson"
FIRST_LINE_SECONDS: Final = 15.0
"""The service sends a line at once, or after ten seconds the error that its database is away. If
nothing comes in this time, something buffers the stream."""
SILENCE_SECONDS: Final = 40.0
"""The service sends a keep-alive every 15 seconds; two may be late."""
SUPERSEDED_SECONDS: Final = 30.0
"""A stream that had to give way to newer ones is opened again within this time: at once, it would
end another one."""


class NoStream(Unreachable):
    """There are no streams: the service is too old, or a proxy in between buffers responses."""


async def open_stream(
    http: Requester,
    clock: IReactorTime,
    url: str,
    *,
    since: str,
    changes: bool,
    headers: Mapping[str, str],
    now: Callable[[], float],
) -> LineReader:
    """The lines after the cursor `since`, with `changes` if asked for; at least one has arrived.

    Raises `APIError` for an error response, `NoStream` if there is another response or none in
    time, and `Unreachable` if the connection fails.
    """

    async def work() -> LineReader | Response:
        fields = {**headers, "Accept": MEDIA_TYPE}
        params = [("since", since), *([("changes", "true")] if changes else [])]
        response = await send_request(http, "GET", url, fields, params)
        if not 200 <= response.code < 300:
            return Response(response.code, response.headers, await read_body(response))
        lines = LineReader(clock, SILENCE_SECONDS)
        response.deliverBody(lines)
        [media_type] = response.headers.getRawHeaders("Content-Type", [""])[-1:]
        if media_type.partition(";")[0].strip().lower() != MEDIA_TYPE:
            lines.close()
            raise NoStream(f"not a stream, but {media_type or 'a response without a type'}")
        await lines.wait()
        return lines

    try:
        opened = await within(clock, FIRST_LINE_SECONDS, work())
    except TimedOut as error:
        if not error.sent:
            raise
        raise NoStream("no line of the stream arrived") from error
    if isinstance(opened, Response):
        raise decode_error(opened, now())
    return opened


class Streaming:
    """A `Transport` that keeps a stream open, and opens it again after it has ended.

    `open_lines` opens a stream after a cursor.
    """

    def __init__(
        self, open_lines: Callable[[str], Awaitable[LineReader]], *, random: Callable[[], float]
    ) -> None:
        self._open_lines = open_lines
        self._random = random
        self._drain_backoff = Backoff(random)
        self._lines: LineReader | None = None

    async def receive(self, cursor: str) -> Received:
        """Wait for one line; the stream is opened first if there is none."""
        lines = self._lines
        opening = lines is None or lines.exhausted
        try:
            if lines is None or lines.exhausted:
                lines = self._lines = await self._open_lines(cursor)
            line = decode_line(await lines.read())
            if line.error is not None:
                raise api_error(line.error.status, line.error)
        except BaseException:
            self.close()
            raise
        if line.drain or line.superseded:
            self.close()
            return Received((), cursor, pause=self._pause_after(line))
        changes = decode_changes([line.change] if line.change else [])
        if changes:
            received = Received((), line.cursor, changes=changes)
        elif line.message is None:
            # The first keep-alive comes at once, also from a service that then fails.
            received = Received((), cursor, settled=not opening)
        else:
            received = Received((line.message,), line.cursor)
        if received.settled:
            self._drain_backoff.reset()
        return received

    def close(self) -> None:
        """Close the stream."""
        lines, self._lines = self._lines, None
        if lines is not None:
            lines.close()

    def _pause_after(self, line: StreamLine) -> float:
        if line.superseded:
            return self._random() * SUPERSEDED_SECONDS
        return self._drain_backoff.delay(min(line.retry_after, MAX_RETRY_AFTER_SECONDS))
