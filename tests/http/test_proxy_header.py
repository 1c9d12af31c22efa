"""Headers of the PROXY protocol."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.protocols.policies import WrappingFactory

from chatd.http.proxy_header import read_headers

PROXY = IPv4Address("TCP", "10.0.0.1", 1)
CLIENT = "192.0.2.1 1111"
V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n"
V6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 80\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack(
    "!BBH4s4sHH", 0x21, 0x11, 12, b"\xc0\0\2\1", b"\xc0\0\2\2", 1111, 80
)


class Client(Protocol):
    """The connection inside."""

    received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class Connection:
    """A connection of a proxy."""

    def __init__(self, *, wrapped: bool = False) -> None:
        factory: Any = HAProxyWrappingFactory(Factory.forProtocol(Client))
        # As in TLS.
        read_headers(SimpleNamespace(factory=WrappingFactory(factory) if wrapped else factory))
        self.transport = StringTransport(peerAddress=PROXY)
        self.protocol = factory.buildProtocol(PROXY)
        self.protocol.makeConnection(self.transport)

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.protocol.dataReceived(piece)

    @property
    def client(self) -> tuple[str, bytes]:
        """Whose connection it is, and what was received of it."""
        inner = self.protocol.wrappedProtocol
        peer = inner.transport.getPeer()
        return f"{peer.host} {peer.port}", inner.received


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("header", "client"),
    [
        (V1, CLIENT),
        (V6, "2001:db8::1 1111"),
        (V2, CLIENT),
        (b"PROXY UNKNOWN\r\n", "10.0.0.1 1"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "10.0.0.1 1"),
    ],
)
def test_headers_may_come_in_parts(header: bytes, client: str, wrapped: bool) -> None:
    for size in (1, 5, 11, 15, 20, len(header), len(header) + 9):
        connection = Connection(wrapped=wrapped)
        data = header + b"GET /"
        connection.send(*(data[i : i + size] for i in range(0, len(data), size)))
        connection.send(b"more")
        assert connection.client == (client, b"GET /more")
        assert not connection.transport.disconnecting


@pytest.mark.parametrize(
    "header",
    [
        V1.replace(b"192.0.2.1", b"300.0.2.1"),
        V1.replace(b"192.0.2.1", b"anybody"),
        V1.replace(b"192.0.2.2", b"2001:db8::1"),
        V1.replace(b"192.0.2.1", b"\xff"),
        V1.replace(b"1111", b"70000"),
        V1.replace(b"1111", b"-1"),
        V1.replace(b"1111", b"x"),
        V6.replace(b"2001:db8::1", b"2001:db8::1::"),
        V6.replace(b"2001:db8::1", b"192.0.2.1"),
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UNKNOWN" + b" " * 107,
        b"PROXX",
        b"GET / HTTP/1.1\r\n",
        V2[:12] + b"\x31" + V2[13:],
        b"\r\n\r\n\x01",
    ],
)
def test_other_ones_are_not_believed(header: bytes) -> None:
    connection = Connection()
    connection.send(header)
    assert connection.transport.disconnecting
    assert connection.client[1] == b""


def test_other_ports_are_left_alone() -> None:
    factory = Factory.forProtocol(Client)
    read_headers(SimpleNamespace(factory=factory))
    read_headers(SimpleNamespace())
    assert factory.protocol is Client
