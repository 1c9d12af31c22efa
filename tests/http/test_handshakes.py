"""TLS handshakes take turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory

from chatd.http.handshakes import take_turns
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
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data.upper())


class Port:
    """An open port of TLS, and whose turn it is."""

    def __init__(self, pem: Path) -> None:
        context = DefaultOpenSSLContextFactory(str(pem), str(pem))
        self.clock = Clock()
        self.turns = Turns(self.clock)
        self.factory: Any = TLSMemoryBIOFactory(
            context, False, Factory.forProtocol(Echo), self.clock
        )
        take_turns(self, self.turns)


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


def test_other_ports_are_left_alone() -> None:
    take_turns(object(), Turns(Clock()))
