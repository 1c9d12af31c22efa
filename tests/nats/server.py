"""A NATS server in memory, for tests that drive it and the clock."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer


class Transport(StringTransport):
    """The client's transport: what is written arrives at the server at once."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.server = server
        self.client: Any = None
        self.tls: Any = None

    def write(self, data: bytes) -> None:
        self.server.received += data
        self.server.handle()

    def startTLS(self, options: Any) -> None:
        self.tls = options

    def loseConnection(self) -> None:
        self.server.close()

    def abortConnection(self) -> None:
        self.server.close()


@implementer(IStreamClientEndpoint)
class FakeServer:
    """A server, and the endpoint of clients; it has one connection at a time.

    It answers PINGs unless it is `stopped`, and refuses connections unless it is `up`.
    """

    def __init__(self, **info: Any) -> None:
        self.info = {"max_payload": 1 << 20, **info}
        self.up = True
        self.stopped = False
        self.received = b""
        self.options: dict[str, Any] = {}
        self.subscribed: dict[bytes, bytes] = {}
        self.published: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.transport: Transport | None = None

    def connect(self, factory: Any) -> Deferred[Any]:
        if not self.up:
            return fail(ConnectionRefusedError())
        self.connections += 1
        self.received = b""
        self.subscribed.clear()
        self.transport = Transport(self)
        client = factory.buildProtocol(None)
        self.transport.client = client
        client.makeConnection(self.transport)
        if not self.stopped:
            self.tell_info()
        return succeed(client)

    def tell_info(self, **more: Any) -> None:
        """Send an INFO."""
        self.send(b"INFO " + json.dumps({**self.info, **more}).encode() + b"\r\n")

    def send(self, data: bytes) -> None:
        """Send bytes to the client."""
        assert self.transport is not None
        self.transport.client.dataReceived(data)

    def message(self, sid: bytes, payload: bytes) -> None:
        """Send a message of one of its subscriptions."""
        [subject] = [subject for subject, each in self.subscribed.items() if each == sid]
        self.send(b"MSG %b %b %d\r\n%b\r\n" % (subject, sid, len(payload), payload))

    def close(self, reason: Failure = connectionDone) -> None:
        """Close the connection."""
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.client.connectionLost(reason)

    def kill(self) -> None:
        """Close the connection and accept no more."""
        self.up = False
        self.close(Failure(ConnectionDone("killed")))

    def take(self, subject: bytes) -> list[bytes]:
        """The payloads that were published to a subject since this was called last."""
        found = [payload for each, payload in self.published if each == subject]
        self.published = [each for each in self.published if each[0] != subject]
        return found

    def handle(self) -> None:
        """Do what the client has asked for."""
        while not self.stopped and b"\r\n" in self.received:
            line, _, rest = self.received.partition(b"\r\n")
            word, *words = line.split(b" ", 1)
            if word == b"PUB":
                subject, size = words[0].split()
                if len(rest) < int(size) + 2:
                    return
                self.published.append((subject, rest[: int(size)]))
                rest = rest[int(size) + 2 :]
            elif word == b"SUB":
                subject, sid = words[0].split()
                self.subscribed[subject] = sid
            elif word == b"UNSUB":
                self.subscribed = {
                    subject: sid for subject, sid in self.subscribed.items() if sid != words[0]
                }
            elif word == b"CONNECT":
                self.options = json.loads(words[0])
            self.received = rest
            if word == b"PING":
                self.send(b"PONG\r\n")
