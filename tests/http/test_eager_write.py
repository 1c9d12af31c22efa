"""Writing past Twisted's transport, and what that relies on in Twisted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet import tcp
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport

from chatd.http.eager_write import can_write_eagerly, unsent_bytes, write_eagerly

BIG = b"x" * 10_000_000


class Reactor:
    """Records which transports wait to write."""

    def __init__(self) -> None:
        self.writers: set[object] = set()

    def addWriter(self, writer: object) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: object) -> None:
        self.writers.discard(writer)

    def addReader(self, reader: object) -> None:
        """Nothing is read here."""

    removeReader = addReader


class Connected:
    """A TCP transport of Twisted's on one end of a connection, and the socket at the other."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname(), timeout=10)
            ours, address = listener.accept()
        ours.setblocking(False)
        self.reactor = Reactor()
        port = cast(Any, type("Port", (), {"_realPortNumber": 0}))
        self.transport: Any = tcp.Server(
            ours, Protocol(), address, port, 1, cast(Any, self.reactor)
        )

    @property
    def waiting(self) -> bool:
        """Whether the transport waits for the reactor to write."""
        return self.transport in self.reactor.writers

    def receive(self, count: int) -> bytes:
        """`count` bytes, with the reactor's part of writing done as they are read."""
        received = bytearray()
        while len(received) < count:
            if self.waiting:
                self.transport.doWrite()
            received += self.client.recv(1 << 20)
        return bytes(received)


@pytest.fixture
def connected() -> Iterator[Connected]:
    connected = Connected()
    yield connected
    connected.client.close()
    connected.transport.socket.close()


class TestWriteEagerly:
    def test_sends_at_once(self, connected: Connected) -> None:
        write_eagerly(connected.transport, b"hello")
        assert not connected.waiting
        assert connected.client.recv(100) == b"hello"

    def test_leaves_to_the_transport_what_the_socket_does_not_take(
        self, connected: Connected
    ) -> None:
        write_eagerly(connected.transport, BIG)
        assert connected.waiting
        assert 0 < unsent_bytes(connected.transport) < len(BIG)
        write_eagerly(connected.transport, b"end")
        assert connected.receive(len(BIG) + 3) == BIG + b"end"
        assert unsent_bytes(connected.transport) == 0

    def test_keeps_its_place_behind_what_is_buffered(self, connected: Connected) -> None:
        connected.transport.write(b"first ")
        write_eagerly(connected.transport, b"second")
        assert connected.receive(12) == b"first second"

    def test_writes_nothing_to_a_transport_that_is_closing(self, connected: Connected) -> None:
        connected.transport.loseConnection()
        write_eagerly(connected.transport, b"late")
        connected.client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connected.client.recv(100)

    def test_leaves_errors_to_the_transport(self, connected: Connected) -> None:
        connected.transport.socket.shutdown(socket.SHUT_WR)
        write_eagerly(connected.transport, b"lost")
        assert connected.waiting
        assert isinstance(connected.transport.doWrite(), Exception)


class TestTwistedsTransport:
    """What the module relies on. If one of these fails after an upgrade of Twisted, adapt it."""

    def test_is_recognised(self, connected: Connected) -> None:
        assert can_write_eagerly(connected.transport)

    def test_puts_what_is_written_into_the_temporary_buffer(self, connected: Connected) -> None:
        transport = connected.transport
        assert transport.dataBuffer == b""
        assert transport._tempDataBuffer == []
        assert (transport.offset, transport._tempDataLen) == (0, 0)
        transport.write(b"hello")
        assert transport.dataBuffer == b""
        assert transport._tempDataBuffer == [b"hello"]
        assert transport._tempDataLen == unsent_bytes(transport) == 5

    def test_moves_it_to_the_data_buffer_and_counts_what_was_sent(
        self, connected: Connected
    ) -> None:
        transport = connected.transport
        transport.write(BIG)
        transport.doWrite()
        assert transport.dataBuffer == BIG
        assert transport._tempDataBuffer == []
        assert 0 < transport.offset < len(BIG)
        assert unsent_bytes(transport) == len(BIG) - transport.offset

    def test_is_empty_again_when_all_is_sent(self, connected: Connected) -> None:
        transport = connected.transport
        transport.write(b"hello")
        transport.doWrite()
        assert (transport.dataBuffer, transport._tempDataBuffer) == (b"", [])
        assert not connected.waiting

    def test_says_whether_it_is_connected_and_closing(self, connected: Connected) -> None:
        transport = connected.transport
        assert (transport.connected, transport.disconnecting) == (1, 0)
        transport.loseConnection()
        assert transport.disconnecting

    def test_writes_by_the_socket_alone(self) -> None:
        # A subclass may encrypt or count what is written: those go through their own `write`.
        class Wrapped(tcp.Server):
            pass

        assert not can_write_eagerly(Wrapped.__new__(Wrapped))
        assert not can_write_eagerly(StringTransport())


def test_a_transport_that_does_not_tell_has_nothing_unsent() -> None:
    assert unsent_bytes(StringTransport()) == 0
