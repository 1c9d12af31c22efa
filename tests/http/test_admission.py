"""How many connections are accepted, in all and from one address."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock

from chatd.http.admission import BEING_REFUSED, NO_ROOM, Admission
from chatd.http.limits import HTTPLimits
from chatd.http.server import Server
from tests.http.raw_client import Leaf, RawClient, brief, get, problem

HERE = IPv4Address("TCP", "192.0.2.1", 1)


class Port:
    """A listening port."""

    connected = True
    disconnecting = False
    reading = True
    socket = None
    sessionno = 0

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True


def server(admission: Admission) -> Server:
    return Server(
        resource=Leaf(brief),
        clock=Clock(),
        limits=HTTPLimits(),
        problem=problem,
        admission=admission,
    )


class TestFullServer:
    def test_the_next_connection_is_told_at_once(self) -> None:
        bounds: list[str] = []
        full = server(Admission(1, refused=bounds.append))
        first = RawClient(server=full)
        second = RawClient(server=full)
        response = second.response()
        assert (response.status, response.code) == (503, "overloaded")
        assert response.header("Retry-After") == "1"
        assert response.header("X-Request-ID")
        assert second.closed()
        # What it sends meanwhile does not keep the response from arriving.
        second.send(get("/a"))
        assert len(second.responses()) == 1
        assert bounds == ["connections"]
        first.send(get("/b"))
        assert first.response().body == b"/b"
        first.disconnect()
        second.disconnect()
        third = RawClient(server=full)
        third.send(get("/c"))
        assert third.response().body == b"/c"

    def test_ports_pause_while_as_many_are_being_refused(self) -> None:
        port, closed = Port(), Port()
        closed.disconnecting = True
        admission = Admission(1)
        admission.ports += [port, closed, SimpleNamespace()]
        full = server(admission)
        clients = [RawClient(server=full) for _ in range(1 + BEING_REFUSED)]
        assert [admission.is_accepting] == [True]
        beyond = RawClient(server=full)
        assert beyond.responses() == []
        assert beyond.transport.disconnecting
        assert [port.reading, closed.reading] == [False, True]
        beyond.disconnect()
        while not admission.is_accepting:
            clients.pop().disconnect()
        assert [port.reading, closed.reading] == [True, True]
        assert len(clients) == BEING_REFUSED // 2
        assert full.connections == len(clients)


class TestAddresses:
    def enter(self, admission: Admission, *hosts: str) -> list[bool]:
        """Whether connections from these hosts are accepted."""
        accepted = []
        for host in hosts:
            kind = IPv6Address if ":" in host else IPv4Address
            accepted.append(admission.enter(kind("TCP", host, 1))[1] is None)
        return accepted

    def test_few_of_an_address_are_told(self) -> None:
        admission = Admission(None, 2)
        kinds = [admission.enter(IPv4Address("TCP", "192.0.2.1", 1))[1] for _ in range(40)]
        assert kinds[:2] == [None, None]
        assert NO_ROOM not in kinds[2 : 2 + BEING_REFUSED]
        assert set(kinds[2 + BEING_REFUSED :]) == {NO_ROOM}
        admission.leave(("192.0.2.1",))
        for _ in range(40 - 2 - BEING_REFUSED):
            admission.leave(("192.0.2.1",))
        _, refusal = admission.enter(IPv4Address("TCP", "192.0.2.1", 1))
        assert refusal is not None
        assert refusal is not NO_ROOM

    def test_each_address_has_its_own_limit(self) -> None:
        bounds: list[str] = []
        admission = Admission(None, 2, refused=bounds.append)
        assert self.enter(admission, *["192.0.2.1"] * 3, "192.0.2.2") == [True, True, False, True]
        assert bounds == ["connections_of_address"]
        counted, _ = admission.enter(IPv4Address("TCP", "192.0.2.2", 1))
        assert not any(self.enter(admission, "192.0.2.2"))
        for _ in range(2):
            admission.leave(counted)
        assert all(self.enter(admission, "192.0.2.2"))

    def test_an_ipv6_network_counts_as_one(self) -> None:
        admission = Admission(None, 2)
        hosts = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"]
        assert self.enter(admission, *hosts) == [True, True, False, True]

    def test_larger_networks_may_have_a_few_times_more(self) -> None:
        admission = Admission(None, 2)
        hosts = [f"2001:db8:0:{number:x}::1" for number in range(6)]
        assert self.enter(admission, *hosts) == [True] * 4 + [False] * 2
        hosts = [f"2001:db8:0:{number}00::1" for number in range(1, 4)]
        # Those that are told so count until they are closed.
        assert self.enter(admission, *hosts) == [True] * 2 + [False]
        assert self.enter(admission, "2001:db8:1::1") == [True]

    def test_no_address_may_have_nearly_all(self) -> None:
        admission = Admission(8, 5000)
        assert self.enter(admission, *["192.0.2.1"] * 7) == [True] * 6 + [False]

    def test_no_network_may_have_nearly_all(self) -> None:
        admission = Admission(8, 4)
        hosts = [f"2001:db8:0:{number:x}::1" for number in range(7)]
        assert self.enter(admission, *hosts) == [True] * 6 + [False]

    @pytest.mark.parametrize("address", [None, UNIXAddress("/run/chatd"), HERE])
    def test_some_have_none(self, address: IAddress | None) -> None:
        admission = Admission(None, 1, is_exempt=lambda host: host == "192.0.2.1")
        for _ in range(3):
            assert admission.enter(address) == ((), None)

    def test_an_address_is_told(self) -> None:
        full = server(Admission(None, 1))
        first, second = (RawClient(server=full, address=HERE) for _ in range(2))
        assert first.responses() == []
        assert (second.response().status, second.response().code) == (503, "overloaded")


def test_no_room_is_an_error_of_its_own() -> None:
    admission = Admission(0)
    refusals = [admission.enter(None)[1] for _ in range(BEING_REFUSED + 1)]
    assert refusals[-1] is NO_ROOM
    assert NO_ROOM not in refusals[:-1]
