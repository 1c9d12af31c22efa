"""A blocking client of one stream."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections import deque
from typing import Final

from chatd.conformance.stream_reader import KEEP_ALIVE, OPENING, Event, EventParser
from tests.daemon import CHATS

SECONDS: Final = 20.0
RECEIVE_BUFFER: Final = 16 * 1024
"""Small, so that what a client does not read soon fills the buffers of the kernel."""


class Stream:
    """A stream, of which nothing is received unless an event is asked for.

    Raises `OSError` or `HTTPException` if the connection is lost.
    """

    def __init__(
        self,
        port: int,
        auth: str,
        media_type: str,
        since: str,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        connected.settimeout(SECONDS)
        self._connection.sock = connected
        self._events: deque[Event] = deque()
        self._parser = EventParser(media_type)
        try:
            connected.connect(("127.0.0.1", port))
            if trusted is not None:
                self._connection.sock = trusted.wrap_socket(connected, server_hostname="localhost")
            self._connection.request(
                "GET",
                f"{CHATS}?since={since}",
                headers={"Accept": media_type, "Authorization": auth},
            )
            self._response = self._connection.getresponse()
            assert self._response.status == 200, self._response.read()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut the connection."""
        self._response.close()
        self._connection.close()

    def next(self) -> Event | None:
        """The next event that is neither the opening nor a keep-alive, None at the end."""
        while True:
            while not self._events:
                try:
                    received = self._response.read1(65_536)
                except TimeoutError:
                    raise AssertionError(f"the stream was silent for {SECONDS} s") from None
                if not received:
                    return None
                self._events.extend(self._parser.feed(received))
            event = self._events.popleft()
            if event.name not in (OPENING, KEEP_ALIVE):
                return event

    def messages(self, count: int) -> list[Event]:
        """The next messages; fails if there is another event."""
        found = []
        for _ in range(count):
            event = self.next()
            assert event is not None
            assert event.name == "message", event
            found.append(event)
        return found
