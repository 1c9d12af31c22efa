"""HTTP/1.1 connections under one epoll loop: the load generator's hot path, nothing but sockets.

A connection has one request under way and calls back with its answer. What is slow in a general
client (header objects, retries, pipelining) is left out, so that the generator stays faster than
what it measures; `bench.ceiling` says how fast it is.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import time
from collections.abc import Callable
from typing import Final

Address = tuple[str, int]
OnAnswer = Callable[[int, bytes, bytes], None]
"""Called with the status, the head (lower case, with its first line) and the body."""

now: Final = time.perf_counter

_READ: Final = 1 << 18
_EVENTS: Final = 1024


class Broken(Exception):
    """A server closed a connection, or spoke something that is not HTTP/1.1."""


def split_answer(data: bytes) -> tuple[int, bytes, bytes, int] | None:
    """Status, head, body and length of the answer that `data` begins with; None if it is not whole.

    Bodies have a Content-Length or come in chunks; raises `Broken` for any other.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower() + b"\r\n"
    status = int(head[9:12])
    start = end + 4
    found = head.find(b"\r\ncontent-length:")
    if found >= 0:
        length = int(head[found + 17 : head.index(b"\r\n", found + 17)])
        if len(data) < start + length:
            return None
        return status, head, data[start : start + length], start + length
    if b"\r\ntransfer-encoding: chunked" in head:
        return _split_chunked(data, status, head, start)
    if status in (204, 304):
        return status, head, b"", start
    raise Broken(f"an answer without length: {head!r}")


def _split_chunked(
    data: bytes, status: int, head: bytes, position: int
) -> tuple[int, bytes, bytes, int] | None:
    pieces: list[bytes] = []
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return None
        size = int(data[position:end].partition(b";")[0], 16)
        position = end + 2 + size + 2
        if len(data) < position:
            return None
        if size == 0:
            return status, head, b"".join(pieces), position
        pieces.append(data[end + 2 : end + 2 + size])


class Connection:
    """One connection; `ask` sends a request and calls back with its answer."""

    __slots__ = ("_on_answer", "_part", "_receive", "_send", "socket")

    def __init__(self, endpoint: socket.socket) -> None:
        self.socket = endpoint
        self._send = endpoint.send
        self._receive = endpoint.recv
        self._on_answer: OnAnswer | None = None
        self._part = b""

    def ask(self, request: bytes, on_answer: OnAnswer) -> None:
        """Send a request; there must be none under way."""
        self._on_answer = on_answer
        # Requests are small and the socket's buffer is empty, so it takes them whole.
        if self._send(request) != len(request):
            raise Broken("the socket did not take a request at once")

    def readable(self) -> None:
        """Take what has come."""
        data = self._receive(_READ)
        if not data:
            raise Broken(f"the server closed a connection, having sent {self._part[:200]!r}")
        if self._part:
            data = self._part + data
        answer = split_answer(data)
        if answer is None:
            self._part = data
            return
        status, head, body, length = answer
        self._part = data[length:] if length < len(data) else b""
        on_answer, self._on_answer = self._on_answer, None
        if on_answer is None:
            raise Broken(f"an answer to no request: {data[:200]!r}")
        on_answer(status, head, body)


class Loop:
    """Waits for answers and for times; everything happens in its one thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def connect(self, address: Address) -> Connection:
        """A new connection, established."""
        return self.adopt(connect(address))

    def adopt(self, endpoint: socket.socket) -> Connection:
        """A connection on a socket that is connected and on which nothing is under way."""
        endpoint.setblocking(False)
        connection = Connection(endpoint)
        self._connections[endpoint.fileno()] = connection
        self._epoll.register(endpoint.fileno(), select.EPOLLIN)
        return connection

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Call at the time `when` (of `now`), or soon after."""
        heapq.heappush(self._timers, (when, next(self._order), call))

    def run_until(self, when: float, done: Callable[[], bool] | None = None) -> bool:
        """Turn until the time `when`, or until `done` says so; True if it did."""
        timers, connections, poll = self._timers, self._connections, self._epoll.poll
        while True:
            if done is not None and done():
                return True
            time_left = when - now()
            if time_left <= 0:
                return False
            if timers:
                time_left = min(time_left, timers[0][0] - now())
            for descriptor, _ in poll(max(time_left, 0), _EVENTS):
                connections[descriptor].readable()
            while timers and timers[0][0] <= now():
                heapq.heappop(timers)[2]()

    def close(self) -> None:
        """Close all connections."""
        self._epoll.close()
        for connection in self._connections.values():
            connection.socket.close()
        self._connections.clear()


def connect(address: Address) -> socket.socket:
    """A connected socket without Nagle's delay."""
    endpoint = socket.create_connection(address, timeout=10)
    endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return endpoint


def exchange(endpoint: socket.socket, request: bytes) -> tuple[int, bytes, bytes]:
    """Send a request and wait for its answer: for what comes before a measurement."""
    endpoint.sendall(request)
    data = b""
    while (answer := split_answer(data)) is None:
        received = endpoint.recv(_READ)
        if not received:
            raise Broken(f"the server closed a connection, having sent {data[:200]!r}")
        data += received
    return answer[:3]
