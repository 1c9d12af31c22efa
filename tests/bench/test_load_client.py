"""The load generator's HTTP client."""

import socket
from collections.abc import Iterator

import pytest

from bench.load_client import Connection, ConnectionBroken, LoadClient, now, split_response

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n"
BODILESS = b"HTTP/1.1 204 No Content\r\nDate: today\r\n\r\n"

Pair = tuple[LoadClient, Connection, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A client, its connection, and the server's end."""
    near, far = socket.socketpair()
    client = LoadClient()
    try:
        yield client, client.adopt(near), far
    finally:
        client.close()
        far.close()


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [(RESPONSE, 200, b"hello"), (CHUNKED, 201, b"hello"), (BODILESS, 204, b"")],
)
def test_a_response_is_split_off_when_complete(data: bytes, status: int, body: bytes) -> None:
    for end in range(len(data)):
        assert split_response(data[:end]) is None
    found = split_response(data + b"next")
    assert found is not None
    assert (found[0], found[2], found[3]) == (status, body, len(data))


def test_a_response_without_length_is_rejected() -> None:
    with pytest.raises(ConnectionBroken):
        split_response(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")


def test_a_response_in_pieces_is_called_back_once(pair: Pair) -> None:
    client, connection, far = pair
    found: list[tuple[int, bytes]] = []
    connection.request(b"GET", lambda status, _, body: found.append((status, body)))
    assert far.recv(100) == b"GET"
    far.send(RESPONSE[:10])
    assert not client.run_until(now() + 0.01, lambda: bool(found))
    far.send(RESPONSE[10:])
    assert client.run_until(now() + 5, lambda: bool(found))
    assert found == [(200, b"hello")]


def test_a_closed_connection_raises(pair: Pair) -> None:
    client, connection, far = pair
    connection.request(b"GET", lambda *_: None)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionBroken, match="closed"):
        client.run_until(now() + 5)


def test_a_response_without_a_request_raises(pair: Pair) -> None:
    client, _, far = pair
    far.send(RESPONSE)
    with pytest.raises(ConnectionBroken, match="without a request"):
        client.run_until(now() + 5)


def test_a_connection_splits_responses_as_it_is_told(pair: Pair) -> None:
    client, _, _ = pair
    near, far = socket.socketpair()
    connection = client.adopt(near, lambda data: (0, b"", data[:2], 2) if len(data) > 1 else None)
    found: list[bytes] = []
    connection.request(b"GET", lambda status, head, body: found.append(body))
    with far:
        far.send(b"ok")
        assert client.run_until(now() + 5, lambda: bool(found))
    assert found == [b"ok"]


def test_a_subscription_calls_back_with_all_that_arrives(pair: Pair) -> None:
    client, _, _ = pair
    near, far = socket.socketpair()
    found: list[bytes] = []
    client.subscribe(near, found.append)
    with far:
        for data in (b"one", b"two"):
            far.send(data)
            assert client.run_until(now() + 5, lambda data=data: found[-1:] == [data])  # type: ignore[misc]
    assert found == [b"one", b"two"]
    with pytest.raises(ConnectionBroken, match="ended a stream"):
        client.run_until(now() + 5)


def test_timers_fire_in_order() -> None:
    client = LoadClient()
    called: list[int] = []
    began = now()
    client.call_at(began + 0.02, lambda: called.append(2))
    client.call_at(began + 0.01, lambda: called.append(1))
    assert client.run_until(began + 5, lambda: len(called) == 2)
    client.close()
    assert called == [1, 2]
    assert now() - began >= 0.02
