"""Attacks with connections that come and go faster than streams of asyncio could make them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Final

from tests.daemon import CHATS
from tests.hostile.attacks import ADDRESS, ADDRESSES, POLLS, Target, attack, request

IP_BIND_ADDRESS_NO_PORT: Final = 24
"""Not in the module `socket`: the port is chosen when the connection is made (ip(7))."""

EVENTS: Final = 256

BODY_BYTES: Final = 131_000
"""The largest body, or a little less."""


class Flood:
    """Connections, `count` at a time, each of which sends the next one of `data`.

    A connection is closed after `seconds`, with a reset if so wanted, and in any case when the
    server has closed it or has answered with an error; then the next one follows after `pause`
    seconds. `sources` are the addresses that they come from, in turn.
    """

    def __init__(
        self,
        target: Target,
        count: int,
        data: Sequence[bytes] = (b"",),
        *,
        seconds: float = inf,
        resets: bool = False,
        pause: float = 0.0,
        sources: Sequence[str] = (ADDRESS,),
    ) -> None:
        self._target = ("127.0.0.1", target.port)
        self._data = itertools.cycle(data)
        self._seconds = seconds
        self._resets = resets
        self._pause = pause
        self._sources = itertools.cycle(sources)
        self._poller = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        # When the next ones may be opened, and when those that are open are closed, in order.
        self._free = deque([0.0] * count)
        self._due: deque[tuple[float, int, socket.socket]] = deque()

    async def run(self) -> None:
        """Go on until the task is cancelled."""
        while True:
            now = time.monotonic()
            while self._free and self._free[0] <= now and self._open():
                self._free.popleft()
            for fd, event in self._poller.poll(0.002, EVENTS):
                self._handle(fd, event)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, fd, connection = self._due.popleft()
                if self._sockets.get(fd) is connection:
                    self._close(fd)
            await asyncio.sleep(0)

    def _open(self) -> bool:
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        try:
            connection.bind((next(self._sources), 0))
            connection.connect_ex(self._target)
        except OSError:  # no port is left for now
            connection.close()
            return False
        self._sockets[connection.fileno()] = connection
        self._poller.register(connection, select.EPOLLOUT)
        return True

    def _handle(self, fd: int, event: int) -> None:
        connection = self._sockets[fd]
        if event & (select.EPOLLERR | select.EPOLLHUP):
            self._close(fd)
        elif event & select.EPOLLOUT:
            with contextlib.suppress(OSError):
                connection.send(next(self._data))
            if self._seconds:
                self._poller.modify(fd, select.EPOLLIN)
                if self._seconds < inf:
                    self._due.append((time.monotonic() + self._seconds, fd, connection))
            else:
                self._close(fd)
        elif not self._receives(connection):
            self._close(fd)

    @staticmethod
    def _receives(connection: socket.socket) -> bool:
        """Whether the server has answered, but not with an error."""
        try:
            received = connection.recv(4096)
        except OSError:
            return False
        return bool(received) and not received.startswith(b"HTTP/1.1 503")

    def _close(self, fd: int) -> None:
        connection = self._sockets.pop(fd)
        if self._resets:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        self._free.append(time.monotonic() + self._pause)


@attack()
async def poll_churn(target: Target) -> None:
    """192 polls that are reset after ten milliseconds, and asked for again."""
    data = [request("GET", f"{CHATS}?since=now&wait=50", token) for token in target.tokens.values()]
    await Flood(target, 192, data, seconds=0.01, resets=True).run()


@attack()
async def fins(target: Target) -> None:
    """Connections that are closed as soon as they are there, 800 at a time."""
    await Flood(target, 800, seconds=0.0).run()


@attack()
async def holds(target: Target) -> None:
    """4,000 connections of which most are refused, and opened again at once."""
    await Flood(target, 4000).run()


@attack()
async def all_connections(target: Target) -> None:
    """Four addresses hold as many connections as there may be, idle or with half a head."""
    data = [request("GET", "/healthz")] * 4 + [b"GET / HTTP/1.1\r\n"] * 4
    await Flood(target, 2000, data, pause=1.0, sources=ADDRESSES).run()


@attack()
async def all_connections_again(target: Target) -> None:
    """The same, and those that are refused are opened again at once."""
    data = [request("GET", "/healthz")]
    await Flood(target, 2000, data, sources=ADDRESSES).run()


@attack()
async def closed_requests(target: Target) -> None:
    """Three addresses send eight requests on each connection and close it at once."""
    data = [request("GET", f"{CHATS}?limit=1", token) * 8 for token in target.tokens.values()]
    await Flood(target, 2000, data, seconds=0.0, sources=ADDRESSES[:3]).run()


@attack(descriptors=1024)
async def closed_requests_again(target: Target) -> None:
    """The same, to a daemon that has few descriptors."""
    await closed_requests(target)


@attack(accounts=POLLS // 8, descriptors=20_000, seconds=20.0)
async def held_bodies(target: Target) -> None:
    """4,900 polls of one address, each with a body of 128 KiB, which nobody needs."""
    query = f"{CHATS}?since=now&wait=50"
    body = b" " * BODY_BYTES
    data = [request("GET", query, token, body) for token in target.tokens.values()]
    await Flood(target, 4900, data).run()


@attack(accounts=1, descriptors=20_000, seconds=25.0)
async def idle_heads(target: Target) -> None:
    """10,000 connections of three addresses that are idle after a head of 16 KiB."""
    lines = [f"X-{number}: {'x' * 160}" for number in range(95)]
    data = [request("GET", "/healthz", None, b"", *lines)]
    await Flood(target, 10_000, data, sources=ADDRESSES[:3]).run()
