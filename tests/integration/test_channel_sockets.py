"""The HTTP server on real sockets: TCP, TLS, UNIX, the PROXY protocol, slow clients."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from chatd.http.channel import Channel
from chatd.http.eager_write import unsent_bytes
from chatd.http.limits import HTTPLimits
from chatd.http.request import Request
from chatd.http.server import Server
from tests.http.raw_client import Held, Leaf, Respond, brief, get, parse, problem
from tests.integration.certificate import write_certificate

# Time limit of each step.
SECONDS = 10.0

BIG = bytes(range(256)) * 40_000  # 10 MB: more than sockets hold.


class Client(Protocol):
    """A client that records what it receives, and why the connection was closed."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.received = bytearray()
        self.ended: Deferred[None] = Deferred()
        self.reason: Failure | None = None
        self._wanted: list[tuple[Callable[[bytes], bool], Deferred[None]]] = []
        self.pause_after = sys.maxsize

    def read_until(self, count: int) -> None:
        """Read on until `count` bytes in all have been received."""
        self.pause_after = count
        cast(Any, self.transport).resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= self.pause_after:
            cast(Any, self.transport).pauseProducing()
        for wanted, enough in list(self._wanted):
            if wanted(bytes(self.received[-200:])):
                self._wanted.remove((wanted, enough))
                enough.callback(None)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.reason = reason
        self.ended.callback(None)

    async def until(self, end: bytes) -> bytes:
        """Everything received, once it ends in `end`."""
        if not self.received.endswith(end):
            enough: Deferred[None] = Deferred()
            self._wanted.append((lambda tail: tail.endswith(end), enough))
            await enough.addTimeout(SECONDS, self._reactor)
        return bytes(self.received)

    async def end(self) -> Failure:
        """Why the connection was closed, once it is."""
        if self.reason is None:
            await self.ended.addTimeout(SECONDS, self._reactor)
        assert self.reason is not None
        return self.reason

    def send(self, data: bytes) -> None:
        """Send `data`."""
        assert self.transport is not None
        self.transport.write(data)


class Harness:
    """A server on a port, and its clients."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.respond: Respond = brief
        self.server: Server
        self.clients: list[Client] = []
        self._port: IListeningPort

    async def open(self, endpoint: str, *, eager_write: bool = True, **limits: Any) -> None:
        """Listen on `endpoint`."""
        self.server = Server(
            resource=Leaf(self._respond),
            clock=self.reactor,
            limits=HTTPLimits(**limits),
            problem=problem,
            eager_write=eager_write,
        )
        self._port = await serverFromString(self.reactor, endpoint).listen(self.server)

    def _respond(self, request: Request) -> object:
        return self.respond(request)

    async def connect(self, certificate: bytes | None = None) -> Client:
        """A connected client."""
        host = cast(Any, self._port.getHost())
        endpoint: Any
        if isinstance(host, UNIXAddress):
            endpoint = UNIXClientEndpoint(self.reactor, host.name)
        else:
            endpoint = HostnameEndpoint(self.reactor, "127.0.0.1", host.port)
        if certificate is not None:
            trusted = Certificate.loadPEM(certificate)
            endpoint = wrapClientTLS(optionsForClientTLS("localhost", trusted), endpoint)
        client: Client = await connectProtocol(endpoint, Client(self.reactor))
        self.clients.append(client)
        return client

    async def close(self) -> None:
        """Close everything."""
        await maybeDeferred(self._port.stopListening)
        self.server.abort_all()
        for client in self.clients:
            if client.reason is None:
                client.transport.abortConnection()  # type: ignore[union-attr]
                await client.end()
        await self.until(lambda: self.server.connections == 0)

    def channel(self) -> Channel:
        """The server's side of the only connection."""
        [channel] = self.server.state.connections
        assert isinstance(channel, Channel)
        return channel

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait, for some seconds at most, until `condition` holds."""
        for _ in range(500):
            if condition():
                return
            await deferLater(self.reactor, 0.01)
        raise AssertionError("the condition did not hold in time")


# Twisted hands pyOpenSSL what pyOpenSSL has deprecated.
tls = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

TCP = "tcp:0:interface=127.0.0.1"


@pytest_twisted.async_yield_fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    from twisted.internet import reactor

    # It listens on a socket in `tmp_path`, which must exist until the server is closed.
    del tmp_path

    harness = Harness(reactor)
    yield harness
    await harness.close()


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and its certificate for localhost."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    write_certificate(path)
    return path


@pytest.mark.parametrize("eager_write", [True, False])
@pytest_twisted.ensureDeferred
async def test_pipelined_responses_are_in_order(harness: Harness, eager_write: bool) -> None:
    await harness.open(TCP, eager_write=eager_write)
    client = await harness.connect()
    count = 2000
    client.send(b"".join(get(f"/{number}") for number in range(count)))
    received = await client.until(b"\r\n\r\n/%d" % (count - 1))
    assert [response.body for response in parse(received)] == [b"/%d" % n for n in range(count)]
    channel = harness.channel()
    assert channel.transport.getTcpNoDelay()
    assert channel.transport.getTcpKeepAlive()


@pytest.mark.parametrize("eager_write", [True, False])
@pytest_twisted.ensureDeferred
async def test_large_response_to_a_slow_client(harness: Harness, eager_write: bool) -> None:
    def respond(request: Request) -> object:
        request.respond(200, b"", BIG)
        return NOT_DONE_YET

    harness.respond = respond
    await harness.open(TCP, eager_write=eager_write)
    client = await harness.connect()
    client.transport.pauseProducing()  # type: ignore[union-attr]
    client.send(get("/a") + get("/b"))
    await harness.until(lambda: harness.server.connections == 1)
    channel = harness.channel()
    await harness.until(lambda: bool(channel._flow.write_paused))
    # The second request is not handled while the first response is being sent.
    assert channel._reader.buffer == get("/b")
    client.transport.resumeProducing()  # type: ignore[union-attr]
    await harness.until(lambda: len(client.received) >= 2 * len(BIG))
    first, second = parse(await client.until(BIG[-200:]))
    assert first.body == second.body == BIG


@pytest_twisted.ensureDeferred
async def test_push_producer_waits_for_a_slow_client(harness: Harness) -> None:
    class Producer:
        sent = 0
        paused = False

        def __init__(self, request: Request) -> None:
            self.request = request

        def resumeProducing(self) -> None:
            self.paused = False
            while not self.paused and self.sent < 400:
                self.sent += 1
                self.request.write(BIG[:65536])
            if self.sent == 400 and not self.request.finished:
                self.request.unregisterProducer()
                self.request.finish()

        def pauseProducing(self) -> None:
            self.paused = True

        def stopProducing(self) -> None:
            self.paused = True

    producers: list[Producer] = []

    def respond(request: Request) -> object:
        producer = Producer(request)
        producers.append(producer)
        request.registerProducer(producer, True)
        producer.resumeProducing()
        return NOT_DONE_YET

    harness.respond = respond
    await harness.open(TCP)
    client = await harness.connect()
    client.transport.pauseProducing()  # type: ignore[union-attr]
    client.send(get())
    await harness.until(lambda: bool(producers) and producers[0].paused)
    assert producers[0].sent < 400
    client.transport.resumeProducing()  # type: ignore[union-attr]
    [response] = parse(await client.until(b"0\r\n\r\n"))
    assert response.body == BIG[:65536] * 400


@pytest_twisted.ensureDeferred
async def test_error_response_reaches_a_client_that_is_still_sending(harness: Harness) -> None:
    await harness.open(TCP, body_bytes=1000, linger_bytes=10_000_000, linger_seconds=5)
    client = await harness.connect()
    client.send(get("/", "Content-Length: 5000000", method="POST"))
    client.send(b"x" * 5_000_000)
    assert (await client.end()).check(ConnectionDone)
    [response] = parse(bytes(client.received))
    assert response.code == "body_too_large"
    await harness.until(lambda: harness.server.connections == 0)


@pytest.mark.parametrize("leave", ["abortConnection", "loseConnection", "loseWriteConnection"])
@pytest_twisted.ensureDeferred
async def test_held_request_ends_on_disconnect(harness: Harness, leave: str) -> None:
    held = Held()
    harness.respond = held
    await harness.open(TCP)
    client = await harness.connect()
    client.send(get())
    await harness.until(lambda: len(held.requests) == 1)
    ends: list[Failure] = []
    held.requests[0].notifyFinish().addErrback(ends.append)
    getattr(client.transport, leave)()
    await harness.until(lambda: len(ends) == 1)
    assert harness.server.connections == 0


@tls
@pytest_twisted.ensureDeferred
async def test_tls(harness: Harness, pem: Path) -> None:
    def respond(request: Request) -> bytes:
        return b"secure" if request.isSecure() else b"plain"

    harness.respond = respond
    await harness.open(f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1")
    client = await harness.connect(pem.read_bytes())
    client.send(get() + get() + b"garbage")
    await client.until(b"}")
    first, second, refused = parse(bytes(client.received))
    assert first.body == second.body == b"secure"
    assert refused.status == 400


@tls
@pytest_twisted.ensureDeferred
async def test_large_response_over_tls(harness: Harness, pem: Path) -> None:
    harness.respond = lambda request: BIG
    await harness.open(f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1")
    client = await harness.connect(pem.read_bytes())
    client.send(get("/", "Connection: close"))
    await client.end()
    [response] = parse(bytes(client.received))
    assert response.body == BIG


@tls
@pytest_twisted.ensureDeferred
async def test_a_slow_reader_over_tls_is_not_cut_while_it_reads(
    harness: Harness, pem: Path
) -> None:
    # Sockets that are read hold up to 10 MB, and the client has 5 MB.
    body = BIG * 3
    harness.respond = lambda request: body
    await harness.open(f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1")
    client = await harness.connect(pem.read_bytes())
    channel = harness.channel()
    client.pause_after = 1
    client.send(get("/", "Connection: close"))
    await harness.until(lambda: len(client.received) > 0)
    channel.on_flush_timeout()
    before = unsent_bytes(channel.transport)
    client.read_until(5_000_000)
    await harness.until(lambda: len(client.received) > 5_000_000)
    assert 0 < unsent_bytes(channel.transport) < before
    channel.on_flush_timeout()
    client.read_until(sys.maxsize)
    await client.end()
    [response] = parse(bytes(client.received))
    assert response.body == body
    assert response.header("Strict-Transport-Security") == "max-age=31536000"


@pytest_twisted.ensureDeferred
async def test_proxy_protocol(harness: Harness) -> None:
    def respond(request: Request) -> bytes:
        address: Any = request.getClientAddress()
        return f"{address.host} {address.port}".encode()

    harness.respond = respond
    await harness.open(f"haproxy:{TCP}")
    client = await harness.connect()
    client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 2222\r\n" + get() + get())
    received = await client.until(b"1111")
    assert parse(received)[0].body == b"192.0.2.1 1111"
    client.send(b"garbage")
    await client.end()
    assert parse(bytes(client.received))[-1].status == 400


@pytest_twisted.ensureDeferred
async def test_unix_socket(harness: Harness, tmp_path: Path) -> None:
    await harness.open(f"unix:{tmp_path / 'socket'}")
    client = await harness.connect()
    client.send(get("/a"))
    assert parse(await client.until(b"/a"))[0].status == 200


@pytest_twisted.ensureDeferred
async def test_response_to_a_client_that_has_just_disconnected(harness: Harness) -> None:
    held = Held()
    harness.respond = held
    await harness.open(TCP)
    client = await harness.connect()
    client.send(get())
    await harness.until(lambda: len(held.requests) == 1)
    [request] = held.requests
    channel = request.channel
    assert channel is not None
    # Before the reactor could notice that the client has disconnected.
    channel.transport.socket.shutdown(socket.SHUT_WR)
    request.respond(200, b"", b"x" * 100_000)
    assert (await client.end()).check(ConnectionDone)
    await harness.until(lambda: harness.server.connections == 0)


@pytest_twisted.ensureDeferred
async def test_drain_closes_idle_connections(harness: Harness) -> None:
    await harness.open(TCP)
    client = await harness.connect()
    client.send(get())
    await client.until(b"/")
    harness.server.drain()
    assert (await client.end()).check(ConnectionDone)
