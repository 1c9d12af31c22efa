"""The HTTP channel on real sockets, for what in-memory transports do not do."""

from __future__ import annotations

import datetime
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
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

from chatd.http.limits import HTTPLimits
from chatd.http.request import Request
from chatd.http.server import Server
from tests.http.conversation import Held, Leaf, Respond, brief, get, parse, problem

# What takes longer has failed.
SECONDS = 10.0

BIG = bytes(range(256)) * 40_000  # 10 MB: more than sockets hold.


class Client(Protocol):
    """Collects received data, and the reason of the disconnect."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.heard = bytearray()
        self.ended: Deferred[None] = Deferred()
        self.reason: Failure | None = None
        self._wanted: list[tuple[Callable[[bytes], bool], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        for wanted, enough in list(self._wanted):
            if wanted(bytes(self.heard[-200:])):
                self._wanted.remove((wanted, enough))
                enough.callback(None)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.reason = reason
        self.ended.callback(None)

    async def until(self, end: bytes) -> bytes:
        """Wait until the received data ends with `end`; returns all of it."""
        if not self.heard.endswith(end):
            enough: Deferred[None] = Deferred()
            self._wanted.append((lambda tail: tail.endswith(end), enough))
            await enough.addTimeout(SECONDS, self._reactor)
        return bytes(self.heard)

    async def end(self) -> Failure:
        """Wait until the connection is closed; returns the reason."""
        if self.reason is None:
            await self.ended.addTimeout(SECONDS, self._reactor)
        assert self.reason is not None
        return self.reason

    def say(self, data: bytes) -> None:
        """Send `data`."""
        assert self.transport is not None
        self.transport.write(data)


class House:
    """A listening server and its clients."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.respond: Respond = brief
        self.server: Server
        self.clients: list[Client] = []
        self._port: IListeningPort

    async def open(self, endpoint: str, **limits: Any) -> None:
        """Listen on `endpoint`."""
        self.server = Server(
            resource=Leaf(self._respond),
            clock=self.reactor,
            limits=HTTPLimits(**limits),
            problem=problem,
        )
        self._port = await serverFromString(self.reactor, endpoint).listen(self.server)

    def _respond(self, request: Request) -> object:
        return self.respond(request)

    async def visit(self, certificate: bytes | None = None) -> Client:
        """Connect a client."""
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

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait a few seconds at most until `condition` is true."""
        for _ in range(500):
            if condition():
                return
            await deferLater(self.reactor, 0.01)
        raise AssertionError("waited in vain")


# Twisted hands pyOpenSSL what pyOpenSSL has deprecated.
tls = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")

TCP = "tcp:0:interface=127.0.0.1"


@pytest_twisted.async_yield_fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    from twisted.internet import reactor

    # It listens on a socket in `tmp_path`, which must be there until the server is closed.
    del tmp_path
    house = House(reactor)
    yield house
    await house.close()


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and its certificate for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest_twisted.ensureDeferred
async def test_responses_arrive_immediately_and_in_order(house: House) -> None:
    await house.open(TCP)
    client = await house.visit()
    count = 2000
    client.say(b"".join(get(f"/{number}") for number in range(count)))
    heard = await client.until(b"\r\n\r\n/%d" % (count - 1))
    assert [answer.body for answer in parse(heard)] == [b"/%d" % n for n in range(count)]
    [channel] = house.server.channels
    assert channel.transport.getTcpNoDelay()
    assert channel.transport.getTcpKeepAlive()


@pytest_twisted.ensureDeferred
async def test_a_slow_client_receives_a_large_response_completely(house: House) -> None:
    def respond(request: Request) -> object:
        request.answer(200, b"", BIG)
        return NOT_DONE_YET

    house.respond = respond
    await house.open(TCP)
    client = await house.visit()
    client.transport.pauseProducing()  # type: ignore[union-attr]
    client.say(get("/a") + get("/b"))
    await house.until(lambda: house.server.connections == 1)
    [channel] = house.server.channels
    await house.until(lambda: bool(channel._blocked))
    # The second answer is not made while the first one waits.
    assert channel._buffer == get("/b")
    client.transport.resumeProducing()  # type: ignore[union-attr]
    await house.until(lambda: len(client.heard) >= 2 * len(BIG))
    first, second = parse(await client.until(BIG[-200:]))
    assert first.body == second.body == BIG


@pytest_twisted.ensureDeferred
async def test_a_push_producer_is_paused_by_a_slow_client(house: House) -> None:
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

    house.respond = respond
    await house.open(TCP)
    client = await house.visit()
    client.transport.pauseProducing()  # type: ignore[union-attr]
    client.say(get())
    await house.until(lambda: bool(producers) and producers[0].paused)
    assert producers[0].sent < 400
    client.transport.resumeProducing()  # type: ignore[union-attr]
    [answer] = parse(await client.until(b"0\r\n\r\n"))
    assert answer.body == BIG[:65536] * 400


@pytest_twisted.ensureDeferred
async def test_a_client_that_is_still_sending_reads_the_error_response(house: House) -> None:
    await house.open(TCP, body_bytes=1000, linger_bytes=10_000_000, linger_seconds=5)
    client = await house.visit()
    client.say(get("/", "Content-Length: 5000000", method="POST"))
    client.say(b"x" * 5_000_000)
    assert (await client.end()).check(ConnectionDone)
    [answer] = parse(bytes(client.heard))
    assert answer.code == "body_too_large"
    await house.until(lambda: house.server.connections == 0)


@pytest.mark.parametrize("leave", ["abortConnection", "loseConnection", "loseWriteConnection"])
@pytest_twisted.ensureDeferred
async def test_a_disconnect_cancels_the_held_request(house: House, leave: str) -> None:
    held = Held()
    house.respond = held
    await house.open(TCP)
    client = await house.visit()
    client.say(get())
    await house.until(lambda: len(held.requests) == 1)
    ends: list[Failure] = []
    held.requests[0].notifyFinish().addErrback(ends.append)
    getattr(client.transport, leave)()
    await house.until(lambda: len(ends) == 1)
    assert house.server.connections == 0


@tls
@pytest_twisted.ensureDeferred
async def test_requests_over_tls_are_secure(house: House, pem: Path) -> None:
    def respond(request: Request) -> bytes:
        return b"secure" if request.isSecure() else b"plain"

    house.respond = respond
    await house.open(f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1")
    client = await house.visit(pem.read_bytes())
    client.say(get() + get() + b"garbage")
    await client.until(b"}")
    first, second, refused = parse(bytes(client.heard))
    assert first.body == second.body == b"secure"
    assert refused.status == 400


@tls
@pytest_twisted.ensureDeferred
async def test_a_large_response_arrives_completely_over_tls(house: House, pem: Path) -> None:
    house.respond = lambda request: BIG
    await house.open(f"ssl:0:privateKey={pem}:certKey={pem}:interface=127.0.0.1")
    client = await house.visit(pem.read_bytes())
    client.say(get("/", "Connection: close"))
    await client.end()
    [answer] = parse(bytes(client.heard))
    assert answer.body == BIG


@pytest_twisted.ensureDeferred
async def test_the_proxy_protocol_supplies_the_client_address(house: House) -> None:
    def respond(request: Request) -> bytes:
        address: Any = request.getClientAddress()
        return f"{address.host} {address.port}".encode()

    house.respond = respond
    await house.open(f"haproxy:{TCP}")
    client = await house.visit()
    client.say(b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 2222\r\n" + get() + get())
    heard = await client.until(b"1111")
    assert parse(heard)[0].body == b"192.0.2.1 1111"
    client.say(b"garbage")
    await client.end()
    assert parse(bytes(client.heard))[-1].status == 400


@pytest_twisted.ensureDeferred
async def test_a_unix_socket_is_served(house: House, tmp_path: Path) -> None:
    await house.open(f"unix:{tmp_path / 'socket'}")
    client = await house.visit()
    client.say(get("/a"))
    assert parse(await client.until(b"/a"))[0].status == 200


@pytest_twisted.ensureDeferred
async def test_a_response_after_a_disconnect_is_ignored(house: House) -> None:
    held = Held()
    house.respond = held
    await house.open(TCP)
    client = await house.visit()
    client.say(get())
    await house.until(lambda: len(held.requests) == 1)
    [request] = held.requests
    channel = request.channel
    assert channel is not None
    # Sent on before the reactor could notice the end.
    channel.transport.socket.shutdown(socket.SHUT_WR)
    request.answer(200, b"", b"x" * 100_000)
    assert (await client.end()).check(ConnectionDone)
    await house.until(lambda: house.server.connections == 0)


@pytest_twisted.ensureDeferred
async def test_draining_closes_idle_connections(house: House) -> None:
    await house.open(TCP)
    client = await house.visit()
    client.say(get())
    await client.until(b"/")
    house.server.drain()
    assert (await client.end()).check(ConnectionDone)
