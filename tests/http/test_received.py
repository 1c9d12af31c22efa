"""What was received in part: how much of it connections may hold."""

from __future__ import annotations

import pytest
from twisted.web.server import NOT_DONE_YET

from chatd.http import received
from chatd.http.received import SMALL_BYTES, ReceivedBytes
from chatd.http.request import Request
from chatd.http.turns import Turns
from chatd.runtime.networks import networks
from tests.http.raw_client import Held, RawClient, get, post


def test_bytes_are_counted_by_address_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received, "MAX_RECEIVED", 100)
    monkeypatch.setattr(received, "MAX_RECEIVED_OF_ADDRESS", 60)
    refused: list[str] = []
    bytes_ = ReceivedBytes(refused.append)
    assert bytes_.hold("one", ("192.0.2.1",), 50)
    assert not bytes_.hold("two", ("192.0.2.1",), 11)
    assert bytes_.hold("two", ("192.0.2.1",), 10)
    assert bytes_.hold("two", ("192.0.2.1",), 5)
    assert bytes_.hold("three", (), 45)
    assert not bytes_.hold("four", ("192.0.2.2",), 1)
    assert refused == ["received_bytes_of_address", "received_bytes"]
    bytes_.release("one")
    bytes_.release("one")
    assert bytes_.total == 50
    assert bytes_.hold("four", ("192.0.2.2",), 50)
    for each in ("two", "three", "four"):
        bytes_.release(each)
    assert bytes_.total == 0
    assert not bytes_._of_address


def test_larger_networks_may_hold_a_few_times_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received, "MAX_RECEIVED_OF_ADDRESS", 10)
    bytes_ = ReceivedBytes()
    held = [bytes_.hold(each, networks(f"2001:db8:0:{each:x}::1"), 10) for each in range(3)]
    assert held == [True, True, False]
    held = [bytes_.hold(each, networks(f"2001:db8:0:{each}00::1"), 10) for each in range(3, 7)]
    assert held == [True, True, False, False]
    assert bytes_.hold("other", networks("2001:db8:1::1"), 10)


def test_a_part_of_a_body_is_refused_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received, "MAX_RECEIVED", 1000)
    client = RawClient()
    total = client.channel._server.received
    begin = post(b"x" * 2000)
    client.send(begin[:-1500])
    assert 500 <= total.total < 1000
    client.send(begin[-1500:-400])
    response = client.response()
    assert (response.status, response.code) == (503, "overloaded")
    assert total.total == 0


def test_what_comes_whole_and_is_answered_at_once_is_never_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(received, "MAX_RECEIVED", 0)
    client = RawClient()
    client.send(post(b"x" * 20_000))
    client.send(get("/"))
    assert [each.status for each in client.responses()] == [200, 200]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_comes_in_parts_is_counted_until_it_is_whole(chunked: bool) -> None:
    client = RawClient()
    total = client.channel._server.received
    if chunked:
        client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
        assert total.total == 3
        client.send(b"0\r\n\r\n")
    else:
        client.send(get("/", "Content-Length: 3", method="POST") + b"ab")
        assert total.total == 2
        client.send(b"c")
    assert client.response().status == 200
    assert total.total == 0


def test_a_part_of_a_head_is_counted_until_the_connection_is_lost() -> None:
    client = RawClient()
    total = client.channel._server.received
    client.send(b"GET / HTTP/1.1\r\n")
    assert total.total == 16
    client.disconnect()
    assert total.total == 0


def test_what_waits_behind_a_held_request_ends_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(received, "MAX_RECEIVED", 100)
    held = Held()
    client = RawClient(held)
    client.send(get("/held"))
    client.send(get("/next"))
    assert not client.closed()
    client.send(get("/" + "x" * 100))
    # Nothing may be written before the response.
    assert client.closed()
    assert client.responses() == []


def test_what_waits_for_a_turn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received, "MAX_RECEIVED", 200)
    monkeypatch.setattr(Turns, "admits", lambda turns: False)
    client = RawClient()
    client.send(get("/first"))
    assert client.responses() == []
    client.send(get("/" + "x" * 200))
    assert (client.response().status, client.response().code) == (503, "overloaded")
    # Its turn comes nevertheless.
    client.clock.advance(0)
    assert client.closed()
    client.response()


def test_the_body_of_a_held_request_is_counted_until_the_response() -> None:
    held = Held()
    client = RawClient(held)
    total = client.channel._server.received
    client.send(post(b"x" * 20_000))
    assert total.total == 20_000
    client.send(get("/next"))
    assert total.total == 20_000 + len(get("/next"))
    held.requests[0].respond(200)
    # The next one is held, too.
    assert total.total == 0
    assert len(held.requests) == 2


@pytest.mark.parametrize("step", [0, 5000])
def test_a_body_that_a_held_request_has_forgotten_is_not_counted(step: int) -> None:
    held = Held()
    client = RawClient(held)
    total = client.channel._server.received
    client.send(post(b"x" * 20_000), step)
    [request] = held.requests
    request.forget_body()
    assert (request.body, request.content.read()) == (b"", b"")
    assert total.total == 0
    client.send(get("/next"))
    assert total.total == len(get("/next"))
    client.disconnect()
    request.forget_body()
    assert total.total == 0


def test_a_body_that_is_forgotten_at_once_is_never_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(received, "MAX_RECEIVED", 0)
    requests = []

    def hold(request: Request) -> object:
        requests.append(request)
        request.forget_body()
        return NOT_DONE_YET

    client = RawClient(hold)
    client.send(post(b"x" * 20_000))
    assert not client.closed()
    requests[0].respond(200)
    assert client.response().status == 200


def test_a_body_that_is_kept_ends_its_connection_if_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(received, "MAX_RECEIVED", 19_999)
    held = Held()
    client = RawClient(held)
    client.send(post(b"x" * 20_000))
    assert client.closed()
    client.disconnect()
    assert held.requests[0].disconnected


def test_a_large_head_is_counted_until_the_response() -> None:
    held = Held()
    client = RawClient(held)
    total = client.channel._server.received
    for number, size in enumerate((SMALL_BYTES, SMALL_BYTES // 2)):
        client.send(get("/", "X: " + "x" * size))
        assert (total.total > SMALL_BYTES) is (number == 0)
        held.requests[-1].respond(200)
        assert total.total == 0
    client.send(get("/", "X: " + "x" * SMALL_BYTES))
    client.disconnect()
    assert total.total == 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_large_head_is_refused_if_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(received, "MAX_RECEIVED", SMALL_BYTES)
    held = Held()
    client = RawClient(held)
    lines = ("X: " + "x" * SMALL_BYTES, "X-Request-ID: mine")
    client.send(get("/", *lines, method=method) + get("/next"))
    response = client.response(method)
    assert (response.status, response.header("X-Request-ID")) == (503, "mine")
    assert bool(response.body) is (method == "GET")
    assert client.channel._server.received.total == 0
    assert not held.requests
