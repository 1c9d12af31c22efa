"""Proxies between the page and the daemon, which count requests and may retain responses."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Final, NamedTuple

from tests.daemon import CHATS, Daemon

_OF_THE_CONNECTION: Final = {"connection", "keep-alive", "transfer-encoding", "content-length"}


def _of_version_1(target: str) -> str:
    """What a server of version 1 makes of a target, parts of which it does not know."""
    for added in ("/api/v1/conversations", "/api/v1/blocks"):
        target = target.replace(added, "/api/v1/unknown")
    return target.replace("&changes=true", "")


class Receipt(NamedTuple):
    """A request for an inbox's messages."""

    target: str
    accept: str

    @property
    def is_stream(self) -> bool:
        return self.accept == "text/event-stream"

    @property
    def is_poll(self) -> bool:
        """Whether it waits, or asks for what a stream may not bring; not where the inbox ends."""
        return not self.is_stream and "since=" in self.target and "since=now" not in self.target


class Proxy:
    """A proxy in front of a daemon.

    `buffering` makes it read each response to its end before it sends the first byte of it on.
    `accept` replaces the request header of that name. While it `is_stalled`, requests get no
    response. With `version` 1 it hides what version 1.1 has added.
    """

    def __init__(
        self, daemon: Daemon, *, buffering: bool = False, accept: str = "", version: float = 1.1
    ) -> None:
        self.buffering = buffering
        self.accept = accept
        self.version = version
        self.daemon_port = daemon.port
        self.is_stalled = threading.Event()
        self.receipts: list[Receipt] = []
        self._sockets: set[socket.socket] = set()
        self._is_closed = False
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._is_closed = True
        self.cut()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where the page is, as seen through the proxy."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def streams(self) -> int:
        """How many streams were requested."""
        return sum(receipt.is_stream for receipt in self.receipts)

    @property
    def polls(self) -> int:
        """How many polls were requested."""
        return sum(receipt.is_poll for receipt in self.receipts)

    def cut(self) -> None:
        """Lose the connections to the daemon."""
        for each in list(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def cuttable(self, connection: socket.socket) -> Iterator[None]:
        """Register a connection to the daemon, which an exiting proxy has cut already."""
        self._sockets.add(connection)
        try:
            if self._is_closed:
                raise ConnectionAbortedError
            yield
        finally:
            self._sockets.remove(connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    proxy: Proxy


class _Handler(BaseHTTPRequestHandler):
    """Forwards one request on a connection of its own."""

    server: _Server
    timeout: ClassVar = 60

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self._forward()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _forward(self) -> None:
        proxy = self.server.proxy
        if self.command == "GET" and self.path.startswith(CHATS):
            proxy.receipts.append(Receipt(self.path, self.headers["Accept"]))
        if proxy.is_stalled.is_set():
            # The browser closes its connection when it gives up.
            self.rfile.read(1)
            return
        if proxy.version == 1:
            self.path = _of_version_1(self.path)
        upstream = http.client.HTTPConnection("127.0.0.1", proxy.daemon_port)
        # One side may go; the other one then finds its connection closed.
        with closing(upstream), suppress(OSError, http.client.HTTPException):
            upstream.connect()
            with proxy.cuttable(upstream.sock):
                self._exchange(upstream)

    def _exchange(self, upstream: http.client.HTTPConnection) -> None:
        proxy = self.server.proxy
        headers = {**self.headers, "Connection": "close"}
        if proxy.accept:
            headers["Accept"] = proxy.accept
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream.request(self.command, self.path, body or None, headers)
        response = upstream.getresponse()
        whole = response.read() if proxy.buffering else b""
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in _OF_THE_CONNECTION:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(whole)
        while piece := response.read1():
            self.wfile.write(piece)
