"""Connections that are closed so that others have room."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory

from chatd.http.admission import BEING_REFUSED, BEING_REPLACED, Admission
from chatd.http.eviction import LOOKED_AT, MARGIN, PASSED_OVER, OpenConnections
from chatd.http.limits import HTTPLimits
from chatd.http.server import Server
from tests.http.raw_client import Held, Leaf, RawClient, Respond, brief, get, problem
from tests.integration.certificate import write_certificate

MANY = "192.0.2.1"
"""An address with many connections."""
FEW = "192.0.2.2"
ROOM = 2 * MARGIN


class Connection:
    """A connection that waits for its client since some time, if that is not None."""

    def __init__(self, since: float | None = 0.0) -> None:
        self.since = since
        self.evicted = False

    def waits_since(self) -> float | None:
        return self.since

    def evict(self) -> None:
        self.evicted = True


def connections(numbers: dict[str, Iterable[float | None]]) -> tuple[OpenConnections, Any]:
    """Connections by network with the times since which they wait."""
    opened = OpenConnections()
    made = {network: [Connection(since) for since in times] for network, times in numbers.items()}
    for network, each in made.items():
        for connection in each:
            opened.add(network, connection)
    return opened, made


class TestOpenConnections:
    def test_the_network_with_most_is_known(self) -> None:
        opened, made = connections({"a": [0] * 3, "b": [0] * 5, "c": [0] * 5})
        assert [opened.most, opened.count("a"), opened.count("d")] == [5, 3, 0]
        for name, expected in (("b", 5), ("b", 5), ("c", 4), ("c", 3), ("a", 3), ("c", 3)):
            opened.remove(name, made[name].pop())
            assert opened.most == expected
        opened.remove("a", Connection())
        opened.remove("d", Connection())
        for name in ("a", "a", "b", "b", "b", "c", "c"):
            opened.remove(name, made[name].pop())
        assert opened.most == 0

    def test_it_has_more_by_a_margin(self) -> None:
        opened, made = connections({"a": [0] * (MARGIN + 3), "b": [0]})
        assert not opened.evict_for(3)
        assert opened.evict_for(2)
        assert not opened.evict_for(2)
        assert sum(each.evicted for each in made["a"]) == 1
        # Once it is closed it is told again.
        opened.remove("a", made["a"][0])
        assert opened.most == opened.count("a") == MARGIN + 2

    def test_the_one_that_waits_longest_is_closed(self) -> None:
        opened, made = connections({"a": [None, 5.0, 3.0, 4.0, *[None] * MARGIN]})
        for expected in (2, 3, 1):
            assert opened.evict_for(0)
            assert made["a"][expected].evicted
        assert not opened.evict_for(0)
        assert sum(each.evicted for each in made["a"]) == 3

    def test_some_of_those_that_wait_are_looked_at(self) -> None:
        opened, made = connections({"a": [*[None] * LOOKED_AT, *[1.0] * LOOKED_AT, 0.0]})
        assert opened.evict_for(0)
        assert made["a"][LOOKED_AT].evicted

    def test_those_that_do_not_wait_are_put_behind_the_others(self) -> None:
        opened, made = connections({"a": [*[None] * (2 * PASSED_OVER), 1.0]})
        assert [opened.evict_for(0) for _ in range(3)] == [False, False, True]
        assert made["a"][-1].evicted

    def test_of_the_network_with_most_that_wait_one_is_closed(self) -> None:
        opened, made = connections(
            {
                "a": [None] * (3 * MARGIN),
                "b": [None] * (2 * MARGIN),
                "c": [1.0] * (2 * MARGIN),
                "d": [0.0] * MARGIN,
            }
        )
        assert opened.evict_for(0)
        assert [any(each.evicted for each in made[name]) for name in "abcd"] == [
            *(False, False, True, False)
        ]


class Service:
    """A server with some room, and its clients."""

    def __init__(self, respond: Respond = brief, per_address: int | None = 1000) -> None:
        self.bounds: list[str] = []
        self.admission = Admission(ROOM, per_address, refused=self.bounds.append)
        self.clock = Clock()
        self.server = Server(
            resource=Leaf(respond),
            clock=self.clock,
            limits=HTTPLimits(),
            problem=problem,
            admission=self.admission,
        )

    def connect(self, host: str, data: bytes = b"") -> RawClient:
        """A new client, later than those before."""
        self.clock.advance(0.01)
        client = RawClient(server=self.server, address=IPv4Address("TCP", host, 1))
        client.send(data)
        return client

    def fill(self, data: bytes = b"", host: str = MANY) -> list[RawClient]:
        """As many clients as there is room for; an address may have three quarters of that."""
        share = ROOM * 3 // 4
        return [self.connect(host if i < share else "192.0.2.3", data) for i in range(ROOM)]


@pytest.mark.parametrize("data", [b"", get("/a")])
def test_one_of_those_with_most_makes_room_in_an_orderly_way(data: bytes) -> None:
    service = Service()
    many = service.fill(data)
    new = service.connect(FEW, get("/new"))
    assert new.response().body == b"/new"
    assert [client.closed() for client in many] == [True] + [False] * (ROOM - 1)
    assert service.admission.evictions == 1
    assert service.bounds == []
    # Somebody with as many as others has to go without.
    refused = service.connect(MANY)
    assert refused.response().status == 503
    assert service.bounds == ["connections"]


@pytest.mark.parametrize("data", [get("/a")[:-4], get("/a", "Content-Length: 5") + b"x"])
def test_parts_of_requests_are_given_up(data: bytes) -> None:
    service = Service()
    many = service.fill(data)
    new = service.connect(FEW, get("/new"))
    assert new.response().body == b"/new"
    assert many[0].transport.disconnected
    assert not many[0].responses()


def test_those_that_were_answered_for_the_last_time_are_closed_first() -> None:
    service = Service()
    many = service.fill()
    many[5].send(b"BAD\r\n\r\n")
    assert many[5].response().status == 400
    new = service.connect(FEW, get("/new"))
    assert new.response().body == b"/new"
    assert [client.transport.disconnected for client in many].index(True) == 5


def test_those_whose_request_is_under_way_stay() -> None:
    held = Held()
    service = Service(held)
    many = service.fill(get("/held"))
    refused = service.connect(FEW)
    assert refused.response().status == 503
    assert not any(client.closed() for client in many)
    # None is looked for again until something changes.
    held.requests[20].respond(200, b"", b"done")
    assert service.connect(FEW).response().status == 503
    refused.disconnect()
    assert service.connect(FEW).responses() == []
    assert [client.closed() for client in many].index(True) == 20


def test_those_whose_clients_have_closed_their_side_make_room_first() -> None:
    service = Service(Held())
    many = service.fill(get("/held"))
    many[5].end()
    new = service.connect(FEW)
    assert new.responses() == []
    assert [client.transport.disconnected for client in many].index(True) == 5


def test_without_limits_of_addresses_nobody_is_closed() -> None:
    service = Service(per_address=None)
    many = service.fill()
    assert service.connect(FEW).response().status == 503
    assert not any(client.closed() for client in many)
    # Nor when they are switched off.
    service = Service()
    many = service.fill()
    service.admission.max_per_address = None
    assert service.connect(FEW).response().status == 503
    assert not any(client.closed() for client in many)


def test_ports_do_not_pause_while_some_can_be_closed() -> None:
    service = Service()
    service.fill()
    flood = [service.connect(MANY) for _ in range(BEING_REFUSED + 1)]
    assert [len(client.responses()) for client in flood] == [1] * BEING_REFUSED + [0]
    assert service.admission.is_accepting
    new = [service.connect(FEW, get("/new")) for _ in range(BEING_REPLACED)]
    answered = [client for client in new if client.responses()]
    # Until the one has hardly more than the other.
    assert [client.response().status for client in answered] == [200] * 4
    assert service.admission.evictions == 4
    for client in flood:
        client.disconnect()
    assert service.admission.is_accepting


class TestWaiting:
    """Those that were taken from the kernel."""

    def full(self) -> Admission:
        service = Service()
        service.fill()
        return service.admission

    def test_those_with_few_wait_for_a_place(self) -> None:
        admission = self.full()
        assert admission.takes_more
        assert not admission.is_full
        assert admission.wait(FEW) is not None

    def test_few_of_those_with_many_wait_to_be_told(self) -> None:
        admission = self.full()
        waiting = [admission.wait(MANY) for _ in range(BEING_REFUSED + 2)]
        assert [each is None for each in waiting] == [False] * BEING_REFUSED + [True] * 2
        assert admission.refusals == 2
        places = 0
        while admission.takes_more:
            # Those that wait count as well.
            assert admission.wait(f"198.51.100.{places}") is not None
            places += 1
        assert places == BEING_REPLACED

    def test_nobody_waits_if_none_can_be_closed(self) -> None:
        service = Service(per_address=None)
        service.fill()
        assert not service.admission.takes_more
        assert not service.admission.is_full
        service.connect(FEW)
        assert service.admission.is_full


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
def test_a_tls_connection_does_not_wait_for_its_client_to_close(tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    write_certificate(pem)
    service = Service()
    context = DefaultOpenSSLContextFactory(str(pem), str(pem))
    factory = TLSMemoryBIOFactory(context, False, service.server, service.clock)
    transport = StringTransport(peerAddress=IPv4Address("TCP", MANY, 1))
    protocol = factory.buildProtocol(transport.getPeer())
    protocol.makeConnection(transport)
    client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    protocol.dataReceived(client.bio_read(1 << 16))
    client.bio_write(transport.value())
    client.do_handshake()
    protocol.dataReceived(client.bio_read(1 << 16))
    service.clock.advance(0)
    channel: Any = protocol.wrappedProtocol
    assert channel.waits_since() is not None
    channel.evict()
    assert transport.disconnecting
