"""TLS handshakes take turns, and so does what makes for many records."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from chatd.http import received
from chatd.http.handshakes import PART_SECONDS, take_turns
from chatd.http.received import SMALL_BYTES, ReceivedBytes
from chatd.http.turns import TURN_SECONDS, Turns
from tests.integration.certificate import write_certificate

# Twisted makes its contexts so.
pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    write_certificate(path)
    return path


class Echo(Protocol):
    """Calls `on_data` for each piece that it receives."""

    received = b""

    def __init__(self) -> None:
        self.on_data: Callable[[], object] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.received += data
        self.transport.write(data.upper())
        self.on_data()


class Port:
    """An open port of TLS, and whose turn it is."""

    def __init__(self, pem: Path) -> None:
        context = DefaultOpenSSLContextFactory(str(pem), str(pem))
        self.clock = Clock()
        self.turns = Turns(self.clock)
        self.factory: Any = TLSMemoryBIOFactory(
            context, False, Factory.forProtocol(Echo), self.clock
        )
        self.received = ReceivedBytes()
        take_turns(self, self.turns, self.received)


class Client:
    """A client in memory."""

    def __init__(self, port: Port, host: str = "192.0.2.1") -> None:
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", host, 1))
        self.server = port.factory.buildProtocol(None)
        self.server.makeConnection(self.transport)
        self.tls = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        self.tls.set_connect_state()

    def proceed(self) -> bool:
        """Exchange what there is; returns whether the handshake is finished."""
        if self.transport.value():
            self.tls.bio_write(self.transport.value())
            self.transport.clear()
        try:
            self.tls.do_handshake()
        except SSL.WantReadError:
            finished = False
        else:
            finished = True
        try:
            self.server.dataReceived(self.tls.bio_read(1 << 16))
        except SSL.WantReadError:
            pass
        return finished

    def is_paused(self) -> bool:
        return self.transport.producerState == "paused"

    def records(self, count: int) -> bytes:
        """So many records of a byte each."""
        for _ in range(count):
            self.tls.write(b"x")
        return self.tls.bio_read(1 << 16)


def connected(port: Port) -> tuple[Client, Echo]:
    """A client whose handshake is finished, and the other side."""
    client = Client(port)
    while not client.proceed():
        port.clock.advance(0)
    client.proceed()
    port.clock.advance(1)
    return client, client.server.wrappedProtocol


def test_a_handshake_waits_if_the_turn_is_over(pem: Path) -> None:
    port = Port(pem)
    first, second = Client(port), Client(port)
    first.proceed()
    assert first.transport.value()
    port.clock.rightNow += TURN_SECONDS
    second.proceed()
    # The time is over, and it is not read from until its turn.
    assert not second.transport.value()
    assert second.is_paused()
    assert len(port.turns) == 1
    port.clock.advance(0)
    assert second.transport.value()
    assert not second.is_paused()
    for client in (first, second):
        assert client.proceed()
        port.clock.advance(0)
        client.tls.write(b"hello")
        client.server.dataReceived(client.tls.bio_read(1 << 16))
        port.clock.advance(0)
        client.tls.bio_write(client.transport.value())
        assert client.tls.read(100) == b"HELLO"


def test_a_connection_that_was_lost_loses_its_turn(pem: Path) -> None:
    port = Port(pem)
    assert port.turns.admits()
    port.clock.rightNow += TURN_SECONDS
    client = Client(port)
    client.proceed()
    assert client.is_paused()
    client.server.loseConnection()
    client.transport.clear()
    port.clock.advance(0)
    assert not client.transport.value()


def test_many_records_take_several_turns(pem: Path) -> None:
    port = Port(pem)
    client, echo = connected(port)

    def spend() -> None:
        port.clock.rightNow += TURN_SECONDS / 100

    echo.on_data = spend
    client.server.dataReceived(client.records(1000))
    assert 0 < len(echo.received) < 500
    assert client.is_paused()
    assert len(port.turns) == 1
    # What was on its way, and somebody else.
    client.server.dataReceived(client.records(10))
    other = Client(port)
    other.proceed()
    before = len(echo.received)
    echo.on_data = lambda: None
    port.clock.advance(0)
    assert before < len(echo.received) == 1010
    assert other.transport.value()
    assert not client.is_paused()


def test_parts_that_take_long_become_small(pem: Path) -> None:
    port = Port(pem)
    client, echo = connected(port)
    cost = PART_SECONDS / 10
    # Of each turn: it is queued again after it.
    records: Counter[int] = Counter()

    def spend() -> None:
        port.clock.rightNow += cost
        records[port.turns.queued] += 1

    echo.on_data = spend
    client.server.dataReceived(client.records(1000))
    port.clock.advance(0)
    first, *others, _ = records.values()
    assert first > 100
    # As many as there is time for, and a part, which may have become larger again.
    assert max(others) <= (TURN_SECONDS + 2 * PART_SECONDS) / cost + 1
    # And they become as large as before.
    cost = 0
    records.clear()
    client.server.dataReceived(client.records(100))
    client.server.dataReceived(client.records(100))
    client.server.dataReceived(client.records(100))
    port.clock.advance(0)
    cost = PART_SECONDS / 10
    client.server.dataReceived(client.records(1000))
    assert list(records.values())[-1] > 100


def test_a_protocol_that_is_paused_receives_nothing(pem: Path) -> None:
    port = Port(pem)
    client, echo = connected(port)
    transport: Any = echo.transport

    def pause() -> None:
        transport.pauseProducing()

    echo.on_data = pause
    client.server.dataReceived(client.records(1000))
    received = len(echo.received)
    assert 0 < received < 500
    port.clock.advance(1)
    assert len(echo.received) == received
    assert client.is_paused()
    echo.on_data = lambda: None
    transport.resumeProducing()
    assert client.is_paused()
    port.clock.advance(0)
    assert len(echo.received) == 1000
    assert not client.is_paused()
    transport.pauseProducing()
    assert client.is_paused()
    transport.resumeProducing()
    assert not client.is_paused()


def test_a_protocol_that_is_paused_while_records_wait_receives_nothing(pem: Path) -> None:
    port = Port(pem)
    client, echo = connected(port)
    assert port.turns.admits()
    echo.on_data = lambda: setattr(port.clock, "rightNow", port.clock.rightNow + TURN_SECONDS)
    client.server.dataReceived(client.records(1000))
    received = len(echo.received)
    transport: Any = echo.transport
    transport.pauseProducing()
    port.clock.advance(0)
    assert len(echo.received) == received < 1000
    echo.on_data = lambda: None
    transport.resumeProducing()
    transport.resumeProducing()
    assert len(port.turns) == 1
    port.clock.advance(0)
    assert len(echo.received) == 1000


def test_records_of_a_connection_that_was_lost_are_forgotten(pem: Path) -> None:
    port = Port(pem)
    client, echo = connected(port)
    echo.on_data = lambda: setattr(port.clock, "rightNow", port.clock.rightNow + TURN_SECONDS)
    client.server.dataReceived(client.records(1000))
    received = len(echo.received)
    assert port.received.total > SMALL_BYTES
    client.server.connectionLost(Failure(ConnectionDone()))
    assert port.received.total == 0
    port.clock.advance(0)
    assert len(echo.received) == received < 1000


def test_records_that_wait_are_counted_until_they_are_decrypted(pem: Path) -> None:
    port = Port(pem)
    client, echo = connected(port)
    transport: Any = echo.transport
    echo.on_data = transport.pauseProducing
    data = client.records(1000)
    client.server.dataReceived(data)
    waiting = port.received.total
    assert SMALL_BYTES < waiting < len(data)
    more = client.records(10)
    client.server.dataReceived(more)
    assert port.received.total == waiting + len(more)
    echo.on_data = lambda: None
    transport.resumeProducing()
    port.clock.advance(0)
    assert len(echo.received) == 1010
    assert port.received.total == 0


def test_a_connection_with_more_records_than_may_wait_is_aborted(
    pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received, "MAX_RECEIVED", SMALL_BYTES)
    port = Port(pem)
    client, echo = connected(port)
    transport: Any = echo.transport
    echo.on_data = transport.pauseProducing
    client.server.dataReceived(client.records(1000))
    assert client.transport.disconnecting
    assert port.received.total == 0
    assert len(port.turns) == 0


def test_other_ports_are_left_alone() -> None:
    take_turns(object(), Turns(Clock()), ReceivedBytes())


@pytest.mark.parametrize("is_finished", [False, True])
def test_what_belongs_to_a_lost_connection_needs_no_garbage_collector(
    pem: Path, is_finished: bool
) -> None:
    port = Port(pem)
    client = Client(port)
    client.proceed()
    if is_finished:
        client.proceed()
    server = client.server
    server.registerProducer(server.wrappedProtocol, True)
    gone = [weakref.ref(each) for each in (server, server.wrappedProtocol, server.getHandle())]
    port.clock.advance(1)
    server.connectionLost(Failure(ConnectionDone()))
    # As a transport of TCP does.
    client.transport.producer = None
    del server, client, port.factory
    assert [each() for each in gone] == [None] * 3
