"""The client's side of the core NATS protocol, as a Twisted protocol.

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol. Messages have no headers,
and nothing is requested; so only INFO, MSG, PING, PONG, +OK and -ERR arrive.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final
from typing import Protocol as Interface

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from chatd.nats.address import Address

MAX_LINE_BYTES: Final = 1 << 20
"""Of a line of the server; INFO names all servers of a cluster."""
MAX_PAYLOAD_BYTES: Final = 64 << 20
"""The highest `max_payload` that a server can have."""
MAX_REASON: Final = 200

_UNPRINTABLE: Final = re.compile(r"[^ -~]+")


class NatsError(Exception):
    """The connection failed or was lost; the text is the reason and contains no secret."""


class Info(Struct, frozen=True):
    """What is used of the server's INFO."""

    max_payload: int = 1 << 20
    tls_required: bool = False
    tls_available: bool = False
    connect_urls: tuple[str, ...] = ()
    ldm: bool = False


_info: Final = msgspec.json.Decoder(Info)


class Handler(Interface):
    """Receives what a connection receives; its methods never raise."""

    def on_message(self, sid: bytes, payload: bytes) -> None:
        """A message of the subscription `sid`."""
        ...

    def on_info(self, info: Info) -> None:
        """The server told about itself, at first or because something has changed."""
        ...


class NatsProtocol(Protocol):
    """One connection, which can be used once `ready` fires; that fails with `NatsError`.

    `closed` fires with the reason when it is closed, by either side. `start_tls` is given the
    transport when TLS has to begin.
    """

    transport: Any

    def __init__(
        self, address: Address, handler: Handler, start_tls: Callable[[Any], None], version: str
    ) -> None:
        self._address = address
        self._handler = handler
        self._start_tls = start_tls
        self._version = version
        self._buffer = b""
        self._pongs: deque[Deferred[None]] = deque()
        self._reason: str | None = None
        self._is_open = False
        self._tls_begins = False
        self.info: Info | None = None
        self.ready: Deferred[None] = Deferred()
        self.closed: Deferred[str] = Deferred()

    # What the client sends.

    def subscribe(self, subscriptions: Iterable[tuple[bytes, bytes]]) -> None:
        """Subscribe to pairs of subject and sid."""
        self._write(b"".join([b"SUB %b %b\r\n" % each for each in subscriptions]))

    def unsubscribe(self, sids: Iterable[bytes]) -> None:
        """End these subscriptions."""
        self._write(b"".join([b"UNSUB %b\r\n" % sid for sid in sids]))

    def publish(self, messages: Iterable[tuple[bytes, bytes]]) -> None:
        """Publish pairs of subject and payload; no payload is longer than `max_payload`."""
        self._write(
            b"".join(
                [
                    b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)
                    for subject, payload in messages
                ]
            )
        )

    def ping(self) -> Deferred[None]:
        """Fires once the server has processed everything that was sent before.

        Fails with `NatsError` if the connection is closed before.
        """
        if not self._is_open:
            return fail(NatsError("the connection is closed"))
        pong: Deferred[None] = Deferred()
        self._pongs.append(pong)
        self._write(b"PING\r\n")
        return pong

    def abort(self, reason: str) -> None:
        """Close the connection at once; the first reason counts."""
        if self._reason is None:
            self._reason = reason
        self._is_open = False
        self.transport.abortConnection()

    def close(self, reason: str) -> None:
        """Close the connection once everything is sent."""
        if self._reason is None:
            self._reason = reason
        self._is_open = False
        self.transport.loseConnection()

    def _write(self, data: bytes) -> None:
        if data and self._is_open:
            self.transport.write(data)

    # Called by the reactor.

    def connectionMade(self) -> None:
        self._is_open = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_open = False
        text = self._reason or _printable(reason.getErrorMessage())
        while self._pongs:
            self._pongs.popleft().errback(NatsError(text))
        if not self.ready.called:
            self.ready.errback(NatsError(text))
        self.closed.callback(text)

    def dataReceived(self, data: bytes) -> None:
        if self._reason is not None:
            return
        buffer = self._buffer + data if self._buffer else data
        try:
            self._buffer = buffer[self._parse(buffer) :]
        except ValueError:
            self._buffer = b""
            self.abort("what the server sends is not NATS")

    def _parse(self, buffer: bytes) -> int:
        """Handle complete messages and lines; returns where the rest begins."""
        start = 0
        while self._reason is None:
            end = buffer.find(b"\r\n", start)
            if end < 0:
                if len(buffer) - start > MAX_LINE_BYTES:
                    raise ValueError("the line is too long")
                break
            if buffer.startswith(b"MSG ", start):
                # MSG SUBJECT SID [REPLY] SIZE
                words = buffer[start:end].split()
                size = int(words[-1])
                if not 4 <= len(words) <= 5 or not 0 <= size <= MAX_PAYLOAD_BYTES:
                    raise ValueError("malformed MSG")
                begin = end + 2
                if len(buffer) < begin + size + 2:
                    break
                start = begin + size + 2
                if not buffer.startswith(b"\r\n", begin + size):
                    raise ValueError("the size of a message is wrong")
                self._handler.on_message(words[2], buffer[begin : begin + size])
            else:
                line = buffer[start:end]
                start = end + 2
                self._on_line(line)
                if self._tls_begins and start < len(buffer):
                    raise ValueError("something was sent before TLS began")
                self._tls_begins = False
        return start

    def _on_line(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        word = word.upper()
        if word == b"PING":
            self._write(b"PONG\r\n")
        elif word == b"PONG":
            if not self._pongs:
                raise ValueError("nothing was asked")
            self._pongs.popleft().callback(None)
        elif word == b"INFO":
            self._on_info(rest)
        elif word == b"-ERR":
            # All errors are fatal: a process that may not subscribe would hear nothing.
            text = _printable(rest.decode("ascii", "replace"))
            self.abort(f"the server says {text}")
        elif word != b"+OK":
            raise ValueError("unknown word")

    def _on_info(self, text: bytes) -> None:
        try:
            info = _info.decode(text)
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from None
        is_first = self.info is None
        self.info = info
        self._handler.on_info(info)
        if is_first:
            self._log_in(info)

    def _log_in(self, info: Info) -> None:
        if self._address.tls and not (info.tls_required or info.tls_available):
            self.abort("the server does not offer TLS")
            return
        tls = self._address.tls or info.tls_required
        if tls:
            self._tls_begins = True
            self._start_tls(self.transport)
        login = {
            "user": self._address.user,
            "pass": self._address.password,
            "auth_token": self._address.token,
        }
        options = {
            "verbose": False,
            "pedantic": False,
            "echo": False,
            "protocol": 1,
            "tls_required": tls,
            "lang": "python-twisted",
            "name": "chatd",
            "version": self._version,
            **{name: value for name, value in login.items() if value is not None},
        }
        self._write(b"CONNECT " + msgspec.json.encode(options) + b"\r\n")
        self.ping().chainDeferred(self.ready)


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text)[:MAX_REASON].strip()
