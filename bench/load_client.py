"""The load generator's client: plain sockets and one epoll loop.

A connection has one request in progress and calls back with the response, of HTTP/1.1 unless told
otherwise; a subscription only receives. There is nothing that makes a general client slow (header
objects, retries, pipelining), so that the generator is faster than the servers it measures; the
workload `ceiling` measures how fast.
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
OnResponse = Callable[[int, bytes, bytes], None]
"""Called with the status, the head (in lower case, with the status line) and the body."""
Split = Callable[[bytes], tuple[int, bytes, bytes, int] | None]
"""Takes the first response off received data, like `split_response`."""

now: Final = time.perf_counter

# For more, the C library asks the kernel for memory in each call, which takes longer than the call.
_READ: Final = 1 << 16
_EVENTS: Final = 1024


class ConnectionBroken(Exception):
    """A server closed a connection, or sent something other than HTTP/1.1."""


def split_response(data: bytes) -> tuple[int, bytes, bytes, int] | None:
    """Status, head, body and length of the response at the start of `data`; None if incomplete.

    The body needs a Content-Length or chunked encoding; raises `ConnectionBroken` without.
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
    raise ConnectionBroken(f"a response without length: {head!r}")


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
    """A connection with at most one request in progress."""

    __slots__ = ("_buffer", "_on_response", "_receive", "_send", "_split", "socket")

    def __init__(self, endpoint: socket.socket, split: Split = split_response) -> None:
        self.socket = endpoint
        self._split = split
        self._send = endpoint.send
        self._receive = endpoint.recv
        self._on_response: OnResponse | None = None
        self._buffer = b""

    def request(self, request: bytes, on_response: OnResponse) -> None:
        """Send a request; there must be none in progress."""
        self._on_response = on_response
        # Requests are small and the socket's send buffer is empty, so one call sends all of it.
        if self._send(request) != len(request):
            raise ConnectionBroken("the socket did not accept a request at once")

    def readable(self) -> None:
        """Read what has arrived, and call back with a complete response."""
        data = self._receive(_READ)
        if not data:
            raise ConnectionBroken(
                f"the server closed a connection, having sent {self._buffer[:200]!r}"
            )
        if self._buffer:
            data = self._buffer + data
        response = self._split(data)
        if response is None:
            self._buffer = data
            return
        status, head, body, length = response
        self._buffer = data[length:] if length < len(data) else b""
        on_response, self._on_response = self._on_response, None
        if on_response is None:
            raise ConnectionBroken(f"a response without a request: {data[:200]!r}")
        on_response(status, head, body)


class Subscription:
    """A connection on which the server sends at any time; calls back with what has arrived."""

    __slots__ = ("_on_data", "_receive", "socket")

    def __init__(self, endpoint: socket.socket, on_data: Callable[[bytes], None]) -> None:
        self.socket = endpoint
        self._receive = endpoint.recv
        self._on_data = on_data

    def readable(self) -> None:
        """Read what has arrived, and call back with it."""
        data = self._receive(_READ)
        if not data:
            raise ConnectionBroken("the server ended a stream")
        self._on_data(data)


class LoadClient:
    """A single-threaded event loop of connections, subscriptions and timers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._connections: dict[int, Connection | Subscription] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def connect(self, address: Address) -> Connection:
        """Open a connection."""
        return self.adopt(connect(address))

    def adopt(self, endpoint: socket.socket, split: Split = split_response) -> Connection:
        """Take over a connected, idle socket."""
        connection = Connection(endpoint, split)
        self._register(connection)
        return connection

    def subscribe(self, endpoint: socket.socket, on_data: Callable[[bytes], None]) -> None:
        """Take over a socket on which the server sends at any time."""
        self._register(Subscription(endpoint, on_data))

    def _register(self, connection: Connection | Subscription) -> None:
        endpoint = connection.socket
        endpoint.setblocking(False)
        self._connections[endpoint.fileno()] = connection
        self._epoll.register(endpoint.fileno(), select.EPOLLIN)

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Call at the time `when` (as of `now()`), or soon after."""
        heapq.heappush(self._timers, (when, next(self._order), call))

    def run_until(self, when: float, done: Callable[[], bool] | None = None) -> bool:
        """Run until the time `when`, or until `done` returns true; True in the second case."""
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
    """A connected socket with TCP_NODELAY."""
    endpoint = socket.create_connection(address, timeout=10)
    endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return endpoint


def exchange(
    endpoint: socket.socket, request: bytes, split: Split = split_response
) -> tuple[int, bytes, bytes]:
    """Send a request and block until the response: for use before a measurement."""
    endpoint.sendall(request)
    data = b""
    while (response := split(data)) is None:
        data += receive(endpoint)
    return response[:3]


def receive(endpoint: socket.socket) -> bytes:
    """Block until some bytes have arrived: for use before a measurement."""
    data = endpoint.recv(_READ)
    if not data:
        raise ConnectionBroken("the server closed a connection")
    return data
