"""nginx with nchan: channels in memory without authentication, over polls and EventSource."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from bench.delivery_check import Received
from bench.http_stream import HTTPStream
from bench.load_client import Address, Connection, LoadClient
from bench.protocols import UnexpectedResponse

_MODIFIED = re.compile(rb"\r\nlast-modified: *([^\r]+)")
_TAG = re.compile(rb"\r\netag: *([^\r]+)")


class Nchan:
    """`ChatProtocol` and `StreamProtocol` of `peers/nchan.conf`; first use creates a channel."""

    def __init__(self, address: Address) -> None:
        self._address = address
        # New for each run, so that no channel has messages of an earlier one.
        self._prefix = secrets.token_hex(4)

    def follower(self, client: LoadClient, user: int) -> NchanFollower:
        return NchanFollower(client.connect(self._address), f"{self._prefix}u{user}")

    def stream(self, user: int) -> NchanStream:
        return NchanStream(self._address, f"{self._prefix}u{user}")

    def sender(self, client: LoadClient, number: int) -> NchanSender:
        return NchanSender(client.connect(self._address), f"{self._prefix}u")

    def reader(self, client: LoadClient, user: int, page: int) -> None:
        return None

    def counts(self, users: Iterable[int]) -> None:
        return None


class NchanFollower:
    """Passes the Last-Modified and ETag of each message to the next poll."""

    def __init__(self, connection: Connection, channel: str) -> None:
        self.connection = connection
        self._line = f"GET /of/{channel} HTTP/1.1\r\nHost: bench\r\n".encode("ascii")
        self._seen = b""

    def join(self) -> None:
        return None

    def poll(self) -> bytes:
        return self._line + self._seen + b"\r\n"

    def receive(self, status: int, head: bytes, body: bytes) -> list[Received]:
        modified, tag = _MODIFIED.search(head), _TAG.search(head)
        if status != 200 or modified is None or tag is None:
            raise UnexpectedResponse(f"{status} {body!r}")
        self._seen = b"If-Modified-Since: %b\r\nIf-None-Match: %b\r\n" % (
            # The head is in lower case, but nchan compares dates as text.
            modified[1].title().replace(b"Gmt", b"GMT"),
            tag[1],
        )
        return [Received(body.decode("ascii"), None)]


class NchanStream:
    """Receives each message as an event."""

    def __init__(self, address: Address, channel: str) -> None:
        request = (
            f"GET /stream/{channel} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n"
        )
        stream = HTTPStream(address, request.encode("ascii"), b"\n\n")
        self.socket = stream.socket
        self._pieces = stream.pieces
        if stream.first != [b": hi"]:
            raise UnexpectedResponse(f"a new stream begins with {stream.first!r}")

    def receive(self, data: bytes) -> list[Received]:
        return read_events(self._pieces(data))


def read_events(events: Iterable[bytes]) -> list[Received]:
    """The messages in events; raises `UnexpectedResponse` at other events."""
    found = []
    for event in events:
        _, is_message, text = event.partition(b"\ndata: ")
        if not is_message:
            raise UnexpectedResponse(f"{event!r} in a stream")
        found.append(Received(text.decode("ascii"), None))
    return found


class NchanSender:
    """Publishes messages to channels."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self.connection = connection
        self._prefix = prefix

    def send(self, recipient: int, text: str) -> bytes:
        return (
            f"POST /to/{self._prefix}{recipient} HTTP/1.1\r\nHost: bench\r\n"
            f"Content-Length: {len(text)}\r\n\r\n{text}"
        ).encode("ascii")

    def acknowledge(self, status: int, head: bytes, body: bytes) -> None:
        if not 200 <= status < 300:
            raise UnexpectedResponse(f"{status} {body!r}")
