"""Which connections of the kernel's queue are accepted, and how many in a turn."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import reactor, tcp
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from chatd.http.accepting import ACCEPT_SECONDS, MAX_RESET, LiveConnections, accept_in_turn
from chatd.http.limits import HTTPLimits
from chatd.http.server import Server
from chatd.process.listeners import accept_waiting
from tests.http.raw_client import Leaf, brief, problem

BACKLOG = 2 * MAX_RESET


class SlowServer(Server):
    """A server for which it takes a third of the time to accept a connection."""

    def buildProtocol(self, addr: Any) -> Any:
        clock: Any = self.state.clock
        clock.rightNow += ACCEPT_SECONDS * 0.4
        return super().buildProtocol(addr)


@pytest.fixture
def port() -> Iterator[Any]:
    """A port of Twisted that the reactor does not run."""
    serving = SlowServer(resource=Leaf(brief), clock=Clock(), limits=HTTPLimits(), problem=problem)
    port: Any = tcp.Port(0, serving, BACKLOG, "127.0.0.1", reactor)
    port.startListening()
    port.stopReading()
    serving.add_port(port)
    yield port
    serving.abort_all()
    port.connectionLost(Failure(ConnectionDone()))


def connect(port: Any, count: int) -> list[socket.socket]:
    where = ("127.0.0.1", port.getHost().port)
    return [socket.create_connection(where) for _ in range(count)]


def reset(clients: list[socket.socket]) -> None:
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


def test_a_port_accepts_connections_for_some_time_in_each_turn(port: Any) -> None:
    connections = port.factory.state.connections
    clients = connect(port, 1)
    port.doRead()
    # Few before do not mean few now, and many before not that all are accepted at once.
    clients += connect(port, 7)
    for expected in (4, 7, 8, 8):
        port.doRead()
        assert len(connections) == expected
    clients += connect(port, 5)
    accept_waiting(port.factory, port)
    assert len(connections) == len(clients)
    for client in clients:
        client.close()


def test_connections_that_are_reset_are_passed_over(port: Any) -> None:
    gone = connect(port, 20)
    # What was sent before the reset can still be read.
    for client in gone:
        client.send(b"GET / HTTP/1.1\r\n\r\n")
    living = connect(port, 1)
    reset(gone)
    port.doRead()
    assert len(port.factory.state.connections) == 1
    [connection] = port.factory.state.connections
    assert connection.getPeer().port == living[0].getsockname()[1]
    living[0].close()


def test_a_client_that_has_closed_its_side_is_accepted(port: Any) -> None:
    [client] = connect(port, 1)
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.shutdown(socket.SHUT_WR)
    port.doRead()
    assert len(port.factory.state.connections) == 1
    client.close()


class Reset:
    """A connection that is reset already."""

    def __init__(self) -> None:
        self.closed = False

    def getpeername(self) -> object:
        raise OSError("not connected")

    def close(self) -> None:
        self.closed = True


def test_not_any_number_of_them_is_passed_over_at_once() -> None:
    gone = [Reset() for _ in range(MAX_RESET + 1)]
    waiting = iter(gone)
    listening = LiveConnections(SimpleNamespace(accept=lambda: (next(waiting), None), backlog=5))
    with pytest.raises(BlockingIOError):
        listening.accept()
    assert [each.closed for each in gone] == [True] * MAX_RESET + [False]
    assert listening.backlog == 5


def test_other_ports_are_left_alone() -> None:
    for port in (SimpleNamespace(), SimpleNamespace(address=IPv4Address("TCP", "192.0.2.1", 1))):
        accept_in_turn(port, Clock())
        assert not hasattr(port, "doRead")
