"""nginx with nchan: publish to a channel, hold a poll on one. Nothing is durable, all may."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from bench.delivery_check import Received
from bench.load_client import Address, Connection, Loop
from bench.protocols import Unexpected

_MODIFIED = re.compile(rb"\r\nlast-modified: *([^\r]+)")
_TAG = re.compile(rb"\r\netag: *([^\r]+)")


class Nchan:
    """`bench.protocols.Dialect` of `peers/nchan.conf`; channels are made by their first use."""

    def __init__(self, address: Address) -> None:
        self._address = address
        # Another one each time, so that no channel holds messages of an earlier run.
        self._prefix = secrets.token_hex(4)

    def follower(self, loop: Loop, user: int) -> NchanFollower:
        return NchanFollower(loop.connect(self._address), f"{self._prefix}u{user}")

    def sender(self, loop: Loop, number: int) -> NchanSender:
        return NchanSender(loop.connect(self._address), f"{self._prefix}u")

    def reader(self, loop: Loop, user: int, page: int) -> None:
        return None

    def counts(self, users: Iterable[int]) -> None:
        return None


class NchanFollower:
    """Passes the time and tag of each message on."""

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
            raise Unexpected(f"{status} {body!r}")
        self._seen = b"If-Modified-Since: %b\r\nIf-None-Match: %b\r\n" % (
            # Heads come in lower case, dates are compared as text.
            modified[1].title().replace(b"Gmt", b"GMT"),
            tag[1],
        )
        return [Received(body.decode("ascii"), None)]


class NchanSender:
    """Publishes."""

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
            raise Unexpected(f"{status} {body!r}")
