"""What clients have not read: who may read on, and when nobody may."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from chatd.http import unsent
from chatd.http.limits import HTTPLimits
from chatd.http.server import Server
from chatd.http.unsent import (
    MAX_UNSENT,
    MAX_UNSENT_OF_ADDRESS,
    MAX_UNSENT_OF_OWNER,
    UnsentBytes,
)
from chatd.runtime.networks import networks
from tests.http.raw_client import HalfClosing, Leaf, RawClient, brief, get, problem


class Buffering(HalfClosing):
    """A transport that says how much it has not sent."""

    dataBuffer = b""
    offset = 0
    _tempDataLen = 0


class Connection:
    def __init__(self, size: int) -> None:
        self.transport = Buffering()  # type: ignore[no-untyped-call]
        self.transport._tempDataLen = size


def add(unsent: UnsentBytes, owner: int | None, size: int, address: str = "") -> Connection:
    """A connection of this account with so much unsent."""
    connection = Connection(size)
    unsent.add(connection, networks(address) if address else ())
    unsent.claim(connection, owner)
    return connection


def test_an_account_may_have_so_much_unsent() -> None:
    clock = Clock()
    bytes_ = UnsentBytes(clock.seconds)
    assert bytes_.admits(1)
    first = add(bytes_, 1, MAX_UNSENT_OF_OWNER)
    assert bytes_.admits(1)
    add(bytes_, 1, 1)
    clock.advance(unsent.REFRESH_SECONDS)
    assert not bytes_.admits(1)
    assert bytes_.admits(2)
    assert bytes_.total == MAX_UNSENT_OF_OWNER + 1
    first.transport._tempDataLen = 0
    clock.advance(unsent.REFRESH_SECONDS)
    assert bytes_.admits(1)
    assert bytes_.total == 1


def test_in_all_there_is_room_for_those_who_read() -> None:
    clock = Clock()
    bytes_ = UnsentBytes(clock.seconds)
    connections = [add(bytes_, None, MAX_UNSENT), add(bytes_, 1, 1)]
    assert not bytes_.admits(1)
    assert bytes_.admits(2)
    connections.append(add(bytes_, None, MAX_UNSENT))
    clock.advance(unsent.REFRESH_SECONDS)
    assert bytes_.refuses(())
    for connection in connections:
        bytes_.remove(connection)
    clock.advance(unsent.REFRESH_SECONDS)
    assert bytes_.total == 0


def test_an_address_may_have_so_much_unsent() -> None:
    clock = Clock()
    refused: list[str] = []
    bytes_ = UnsentBytes(clock.seconds, refused.append)
    connection = add(bytes_, None, MAX_UNSENT_OF_ADDRESS, "192.0.2.1")
    assert not bytes_.refuses(networks("192.0.2.1"))
    add(bytes_, None, 1, "192.0.2.1")
    assert bytes_.refuses(networks("192.0.2.1"))
    assert not bytes_.refuses(networks("192.0.2.2"))
    assert not bytes_.refuses(())
    assert refused == ["unsent_bytes_of_address"]
    bytes_.remove(connection)
    clock.advance(unsent.REFRESH_SECONDS)
    assert not bytes_.refuses(networks("192.0.2.1"))
    # Of an IPv6 subscriber, larger networks have bounds as well.
    for number in range(3):
        add(bytes_, None, MAX_UNSENT_OF_ADDRESS, f"2001:db8:0:{number}::1")
    assert bytes_.refuses(networks("2001:db8:0:ff::1"))
    assert not bytes_.refuses(networks("2001:db8:0:100::1"))


def test_who_has_read_everything_is_refused_last() -> None:
    bytes_ = UnsentBytes(Clock().seconds)
    add(bytes_, None, 2 * MAX_UNSENT)
    add(bytes_, None, 1, "192.0.2.1")
    assert bytes_.refuses(())
    assert bytes_.refuses(networks("192.0.2.1"))
    assert not bytes_.refuses(networks("192.0.2.2"))
    add(bytes_, None, MAX_UNSENT)
    assert bytes_.refuses(networks("192.0.2.2"))


def test_when_it_is_full_all_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsent, "MAX_UNSENT", 50)
    clock = Clock()
    server = Server(resource=Leaf(brief), clock=clock, limits=HTTPLimits(), problem=problem)
    slow = Buffering()  # type: ignore[no-untyped-call]
    first = RawClient(server=server, transport=slow)
    slow._tempDataLen = 101
    first.send(get("/a"))
    clock.advance(1)
    client = RawClient(server=server)
    client.send(get("/b"))
    assert (client.response().status, client.response().code) == (503, "overloaded")
    assert client.response().header("Retry-After") == "1"
    assert client.closed()
    first.disconnect()
    clock.advance(1)
    client = RawClient(server=server)
    client.send(get("/b"))
    assert client.response().status == 200
