"""Responses without end, with and without chunked encoding."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from bench.http_stream import ChunkedDecoder, HTTPStream
from bench.load_client import Address
from bench.protocols import UnexpectedResponse

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n"

Answer = Callable[[bytes], Address]


@pytest.fixture
def answer() -> Iterator[Answer]:
    """Serves one connection with these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def start(response: bytes) -> Address:
        def serve() -> None:
            endpoint, _ = listener.accept()
            with endpoint:
                assert endpoint.recv(100) == b"GET"
                endpoint.sendall(response)

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        address: Address = listener.getsockname()
        return address

    with listener:
        yield start
        for thread in threads:
            thread.join()


def test_chunks_are_decoded_however_they_arrive() -> None:
    data = b"3\r\nab\n\r\n2\r\ncd\r\n10\r\n0123456789abcde\n\r\n"
    for size in range(1, len(data) + 1):
        decoder = ChunkedDecoder()
        parts = [decoder.decode(data[at : at + size]) for at in range(0, len(data), size)]
        assert b"".join(parts) == b"ab\ncd0123456789abcde\n"


def test_the_last_chunk_is_the_end_of_a_stream() -> None:
    with pytest.raises(UnexpectedResponse, match="ended a stream"):
        ChunkedDecoder().decode(b"2\r\nab\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("response", "more"),
    [
        (CHUNKED + b"4\r\none\n\r\n", [b"4\r\ntwo\n\r\n2\r\nth\r\n", b"4\r\nree\n\r\n"]),
        (PLAIN + b"one\n", [b"two\nth", b"ree\n"]),
    ],
)
def test_pieces_end_with_the_delimiter(answer: Answer, response: bytes, more: list[bytes]) -> None:
    stream = HTTPStream(answer(response), b"GET", b"\n")
    stream.socket.close()
    assert stream.first == [b"one"]
    assert [stream.pieces(data) for data in more] == [[b"two"], [b"three"]]


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\none\n",
    ],
)
def test_other_responses_are_errors(answer: Answer, response: bytes) -> None:
    with pytest.raises(UnexpectedResponse):
        HTTPStream(answer(response), b"GET", b"\n")
