"""What is known of clients before anything is read."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from chatd.http.tcp_state import has_ended, is_gone, queued_connections

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A client, and its connection here."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as listening:
        client = socket.create_connection(listening.getsockname()[:2])
        connection, _ = listening.accept()
    with client, connection:
        yield client, connection


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("data", [b"", b"GET"])
def test_one_that_is_there(pair: Pair, data: bytes) -> None:
    client, connection = pair
    client.send(data)
    assert not is_gone(connection)
    assert not has_ended(SimpleNamespace(socket=connection))


@pytest.mark.parametrize("data", [b"", b"GET"])
def test_one_that_has_closed_its_side(pair: Pair, data: bytes) -> None:
    client, connection = pair
    client.send(data)
    client.shutdown(socket.SHUT_WR)
    assert is_gone(connection) == (not data)
    assert has_ended(SimpleNamespace(socket=connection))
    # Nothing was read.
    assert connection.recv(9) == data


@pytest.mark.parametrize("data", [b"", b"GET"])
def test_one_that_has_reset_the_connection(pair: Pair, data: bytes) -> None:
    client, connection = pair
    client.send(data)
    reset(client)
    assert is_gone(connection)


def test_the_transport_below_others_is_asked(pair: Pair) -> None:
    client, connection = pair
    client.shutdown(socket.SHUT_WR)
    wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
    wrapper.transport = SimpleNamespace(socket=connection)  # type: ignore[assignment]
    assert has_ended(wrapper)


def test_what_is_no_tcp_connection_has_not_ended() -> None:
    one, other = socket.socketpair()
    with one, other:
        other.shutdown(socket.SHUT_WR)
        assert not has_ended(SimpleNamespace(socket=one))
        assert is_gone(one)
    assert not has_ended(SimpleNamespace(socket=one))
    assert not has_ended(StringTransport())


def test_connections_that_wait_to_be_accepted_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert queued_connections(listening) == 0
        clients = [socket.create_connection(listening.getsockname()) for _ in range(3)]
        assert queued_connections(listening) == 3
        connection, _ = listening.accept()
        connection.close()
        assert queued_connections(listening) == 2
        for client in clients:
            client.close()
    assert queued_connections(listening) == 0
