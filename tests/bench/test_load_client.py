"""The load generator's connections."""

import socket
from collections.abc import Iterator

import pytest

from bench.load_client import Broken, Connection, Loop, now, split_answer

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x\r\nlo\r\n0\r\n\r\n"
BODILESS = b"HTTP/1.1 204 No Content\r\nDate: today\r\n\r\n"

Pair = tuple[Loop, Connection, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A loop, a connection of it, and the server's end."""
    near, far = socket.socketpair()
    loop = Loop()
    try:
        yield loop, loop.adopt(near), far
    finally:
        loop.close()
        far.close()


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [(ANSWER, 200, b"hello"), (CHUNKED, 201, b"hello"), (BODILESS, 204, b"")],
)
def test_a_response_is_parsed_once_it_is_complete(data: bytes, status: int, body: bytes) -> None:
    for end in range(len(data)):
        assert split_answer(data[:end]) is None
    found = split_answer(data + b"next")
    assert found is not None
    assert (found[0], found[2], found[3]) == (status, body, len(data))


def test_a_response_without_content_length_is_rejected() -> None:
    with pytest.raises(Broken):
        split_answer(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")


def test_a_response_in_pieces_is_delivered_once(pair: Pair) -> None:
    loop, connection, far = pair
    found: list[tuple[int, bytes]] = []
    connection.ask(b"GET", lambda status, _, body: found.append((status, body)))
    assert far.recv(100) == b"GET"
    far.send(ANSWER[:10])
    assert not loop.run_until(now() + 0.01, lambda: bool(found))
    far.send(ANSWER[10:])
    assert loop.run_until(now() + 5, lambda: bool(found))
    assert found == [(200, b"hello")]


def test_a_closed_connection_is_reported(pair: Pair) -> None:
    loop, connection, far = pair
    connection.ask(b"GET", lambda *_: None)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(Broken, match="closed"):
        loop.run_until(now() + 5)


def test_an_unsolicited_response_is_reported(pair: Pair) -> None:
    loop, _, far = pair
    far.send(ANSWER)
    with pytest.raises(Broken, match="no request"):
        loop.run_until(now() + 5)


def test_delayed_calls_run_in_order_of_time() -> None:
    loop = Loop()
    called: list[int] = []
    began = now()
    loop.call_at(began + 0.02, lambda: called.append(2))
    loop.call_at(began + 0.01, lambda: called.append(1))
    assert loop.run_until(began + 5, lambda: len(called) == 2)
    loop.close()
    assert called == [1, 2]
    assert now() - began >= 0.02
