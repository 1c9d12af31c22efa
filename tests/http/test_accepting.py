"""Which connections of the kernel's queue are accepted, and how many in a turn."""

from __future__ import annotations

import socket
import struct
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet import reactor, tcp
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from chatd.http import connection_floods
from chatd.http.accepting import (
    ACCEPT_SECONDS,
    MAX_PASSED_OVER,
    PAUSE_SECONDS,
    TAKE_SECONDS,
    WaitingConnections,
    accept_in_turn,
)
from chatd.http.admission import BEING_REFUSED, Admission
from chatd.http.eviction import MARGIN
from chatd.http.limits import HTTPLimits
from chatd.http.server import Server
from chatd.http.turns import ClientOf
from chatd.process.listeners import accept_waiting
from tests.http.raw_client import Leaf, brief, problem

BACKLOG = 64


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


def test_clients_that_have_closed_without_a_word_are_passed_over(port: Any) -> None:
    gone = connect(port, 20)
    living = connect(port, 1)
    for client in gone:
        client.close()
    port.doRead()
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


class Connection:
    """A connection in the kernel's queue."""

    def __init__(self, host: str, *, is_reset: bool = False, received: bytes = b"") -> None:
        self.host = host
        self.is_reset = is_reset
        self.received = received
        self.closed = False

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        raise OSError  # unknown, so that data is looked at

    def recv(self, size: int, flags: int) -> bytes:
        if self.received:
            return self.received[:size]
        raise ConnectionResetError if self.is_reset else BlockingIOError

    def getpeername(self) -> tuple[str, int]:
        return self.host, 1

    def close(self) -> None:
        self.closed = True


class Listening:
    """A listening socket."""

    def __init__(self) -> None:
        self.queue: deque[Connection] = deque()
        self.backlog = 5
        self.closed = False

    def accept(self) -> tuple[Connection, tuple[str, int]]:
        if not self.queue:
            raise BlockingIOError
        connection = self.queue.popleft()
        return connection, (connection.host, 1)

    def setsockopt(self, level: int, option: int, value: object) -> None:
        raise OSError  # there are no filters

    def close(self) -> None:
        self.closed = True


class Waiting:
    """`WaitingConnections` of a socket in whose queue some connections are."""

    def __init__(
        self, admission: Admission | None = None, client_of: ClientOf | None = None
    ) -> None:
        self.admission = admission or Admission()
        self.listening = Listening()
        self.connections = WaitingConnections(self.listening, self.admission, Clock(), client_of)

    def take(self, most: int = 10_000) -> None:
        """Take as many as there is time for."""
        times = iter(range(most - 1))
        self.connections.take(lambda: next(times, None) is not None)

    def connect(self, count: int, host: str, *, is_reset: bool = False) -> list[Connection]:
        connections = [Connection(host, is_reset=is_reset) for _ in range(count)]
        self.listening.queue += connections
        return connections

    def accept(self) -> Connection:
        anything: Any = self.connections
        connection: Connection = anything.accept()[0]
        return connection


@pytest.mark.parametrize("hosts", ["192.0.2.1", "2001:db8:0:{:x}::1"])
def test_a_new_client_waits_for_one_connection_of_a_flood(hosts: str) -> None:
    waiting = Waiting()
    for number in range(100):
        waiting.connect(1, hosts.format(number))
    waiting.connect(1, "192.0.2.2")
    waiting.take()
    assert [waiting.accept().host for _ in range(3)][1] == "192.0.2.2"
    # In the end all are accepted.
    for _ in range(98):
        waiting.accept()
    with pytest.raises(BlockingIOError):
        waiting.accept()


def test_clients_of_a_proxy_take_turns() -> None:
    def client_of(host: str, raw: bytes) -> str:
        assert host == "192.0.2.1"
        return raw.decode() or host

    # As by default, with a limit from which the proxy is exempt.
    admission = Admission(1000, 500, lambda host: host == "192.0.2.1")
    waiting = Waiting(admission, client_of)
    of_proxy = waiting.listening.queue
    of_proxy += [Connection("192.0.2.1", received=b"203.0.113.1") for _ in range(100)]
    of_proxy += [Connection("192.0.2.1", received=b"203.0.113.2")]
    # Of this one nothing has come yet.
    of_proxy += [Connection("192.0.2.1")]
    waiting.connect(1, "203.0.113.2")
    waiting.take()
    accepted = [waiting.accept() for _ in range(4)]
    assert [each.received for each in accepted] == [
        b"203.0.113.1",
        b"203.0.113.2",
        b"",
        b"203.0.113.1",
    ]
    assert {waiting.accept().host for _ in range(99)} == {"192.0.2.1", "203.0.113.2"}
    with pytest.raises(BlockingIOError):
        waiting.accept()


def test_as_many_are_taken_as_there_is_time_for() -> None:
    waiting = Waiting()
    waiting.connect(10, "192.0.2.1")
    for expected in (4, 8, 10, 10):
        waiting.take(4)
        assert len(waiting.connections) == waiting.admission.waiting == expected


def test_no_more_wait_than_there_is_room_for() -> None:
    admission = Admission(3)
    one, other = Waiting(admission), Waiting(admission)
    one.connect(10, "192.0.2.1")
    one.take()
    assert len(one.connections) == 3
    # Ports have the same descriptors.
    [last] = other.connect(1, "192.0.2.2")
    other.take()
    assert not other.connections
    # Nobody has to wait in order to be told that there is no room.
    assert other.accept() is last
    one.accept()
    assert admission.waiting == 2


def test_those_of_an_address_that_has_too_many_are_closed_at_once() -> None:
    bounds: list[str] = []
    waiting = Waiting(Admission(None, 4, refused=bounds.append))
    for _ in range(2):
        waiting.admission.enter(IPv4Address("TCP", "192.0.2.1", 1))
    flood = waiting.connect(100, "192.0.2.1")
    [innocent] = waiting.connect(1, "192.0.2.2")
    waiting.take()
    # The first ones beyond the limit are told.
    kept = 2 + BEING_REFUSED
    assert [each.closed for each in flood] == [False] * kept + [True] * (100 - kept)
    assert bounds == ["connections_of_address"] * (100 - kept)
    assert [waiting.accept() for _ in range(2)] == [flood[0], innocent]
    # What has ended to wait leaves its place.
    [again, beyond] = waiting.connect(2, "192.0.2.1")
    waiting.take()
    assert [again.closed, beyond.closed] == [False, True]


def test_those_of_a_flood_that_wait_make_room_for_others() -> None:
    bounds: list[str] = []
    waiting = Waiting(Admission(2 * MARGIN, 1000, refused=bounds.append))
    # So many that one of them may be closed for a client that has none, but not for the innocent.
    for host in ["192.0.2.1"] * (MARGIN + 1) + ["192.0.2.3"]:
        connection: Any = object()
        counted, _ = waiting.admission.enter(IPv4Address("TCP", host, 1))
        waiting.admission.opened(counted, connection)
    flood = waiting.connect(MARGIN + BEING_REFUSED - 2, "192.0.2.2")
    waiting.take()
    assert not any(each.closed for each in flood)
    [more] = waiting.connect(1, "192.0.2.2")
    [innocent] = waiting.connect(1, "192.0.2.3")
    waiting.take()
    assert [each.closed for each in (more, innocent, *flood[-2:])] == [True, False, False, True]
    assert bounds == ["connections"] * 2
    assert [waiting.accept() for _ in range(2)] == [flood[0], innocent]


def test_those_that_are_reset_while_they_wait_are_passed_over() -> None:
    waiting = Waiting()
    gone = waiting.connect(3, "192.0.2.1")
    [living] = waiting.connect(1, "192.0.2.1")
    waiting.take()
    for connection in gone:
        connection.is_reset = True
    assert waiting.accept() is living
    assert all(connection.closed for connection in gone)


def test_not_any_number_of_them_is_passed_over_at_once() -> None:
    waiting = Waiting()
    gone = waiting.connect(MAX_PASSED_OVER + 1, "192.0.2.1")
    waiting.take()
    for connection in gone:
        connection.is_reset = True
    gone += waiting.connect(MAX_PASSED_OVER, "192.0.2.1", is_reset=True)
    for closed in (MAX_PASSED_OVER, 2 * MAX_PASSED_OVER):
        with pytest.raises(BlockingIOError):
            waiting.accept()
        assert [each.closed for each in gone] == [True] * closed + [False] * (len(gone) - closed)
    assert waiting.admission.waiting == 0


def test_a_port_that_closes_closes_those_that_wait() -> None:
    waiting = Waiting()
    waited = waiting.connect(3, "192.0.2.1")
    waiting.take()
    assert waiting.connections.backlog == 5
    waiting.connections.close()
    assert all(connection.closed for connection in waited)
    assert waiting.listening.closed
    assert not waiting.connections
    assert waiting.admission.waiting == 0


def test_those_that_wait_are_accepted_though_the_kernel_has_no_more(port: Any) -> None:
    clock = port.factory.state.clock
    clients = connect(port, 5)
    port.doRead()
    assert len(port.factory.state.connections) == 3
    clock.advance(0)
    assert len(port.factory.state.connections) == 5
    names = [call.func.__name__ for call in clock.getDelayedCalls()]
    assert "_accept_waiting" not in names
    for client in clients:
        client.close()


def test_more_time_is_for_taking_connections_than_for_making_them(port: Any) -> None:
    clock = port.factory.state.clock
    clients = connect(port, 8)
    listening = port.socket._listening
    port.socket._listening = SimpleNamespace(
        accept=lambda: (clock.advance(TAKE_SECONDS * 0.4), listening.accept())[1]
    )
    port.doRead()
    assert len(port.socket) == 3 - 1
    assert len(port.factory.state.connections) == 1
    port.socket._listening = listening
    for client in clients:
        client.close()


def test_they_wait_while_there_is_no_room(port: Any) -> None:
    state = port.factory.state
    clients = connect(port, 5)
    port.doRead()
    state.admission.max_connections = 2
    state.clock.advance(0)
    assert len(state.connections) == 3
    state.admission.max_connections = 10
    state.clock.advance(PAUSE_SECONDS)
    assert len(state.connections) == 5
    for client in clients:
        client.close()


def test_those_of_a_closed_port_are_not_accepted(port: Any) -> None:
    clients = connect(port, 5)
    port.doRead()
    port.socket.close()
    port.factory.state.clock.advance(0)
    assert len(port.factory.state.connections) == 3
    for client in clients:
        client.close()


def test_other_ports_are_left_alone() -> None:
    unix = SimpleNamespace(socket=SimpleNamespace(family=socket.AF_UNIX))
    for port in (SimpleNamespace(), unix):
        accept_in_turn(port, Clock(), Admission())
        assert not hasattr(port, "doRead")


def test_a_network_that_fills_the_queue_is_kept_away_while_others_are_connected(
    port: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_floods, "MOST_IN_WINDOW", 2)
    monkeypatch.setattr(connection_floods, "MAX_QUEUED", 0)
    bounds: list[str] = []
    admission = Admission(max_per_address=100, refused=bounds.append)
    waiting = WaitingConnections(port.socket, admission, port.factory.state.clock)
    for others in (0, 1):
        admission.enter(IPv4Address("TCP", "192.0.2.1", 1)) if others else None
        clients = connect(port, 4)
        times = iter([True, True])
        waiting.take(lambda times=times: next(times, False))  # type: ignore[misc]
        assert bounds == ["connection_rate"] * others
        for client in clients:
            client.close()
    with socket.socket() as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect(("127.0.0.1", port.getHost().port))
    # Nobody is dropped by a port that is closed here, even if systemd keeps its socket.
    copy = port.socket.dup()
    waiting.close()
    with copy, socket.create_connection(copy.getsockname(), 5):
        pass
