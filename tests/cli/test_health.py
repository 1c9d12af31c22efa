"""`chatd health`, asked of a socket that answers once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from chatd.cli.health import health
from chatd.cli.main import main
from chatd.cli.parser import parser


class Daemon:
    """Answers one request with what `response` says."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.response = b""
        self.received = b""
        self._thread = threading.Thread(target=self._answer)

    def start(self, response: str) -> None:
        self.response = response.encode()
        self._thread.start()

    def _answer(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self.received = connection.recv(65536)
            connection.sendall(self.response)

    def stop(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    running = Daemon()
    yield running
    running.stop()


def outcome(url: str, *, ready: bool = False) -> object:
    """The exit status, or the line that explains a failure."""
    with pytest.raises(SystemExit) as exit_:
        health(url, ready=ready)
    return exit_.value.code


def response(status: str, body: str) -> str:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}"


def test_a_daemon_that_responds_is_healthy(daemon: Daemon) -> None:
    daemon.start(response("200 OK", '{"status": "ok"}'))
    assert outcome(daemon.url) == 0
    assert daemon.received.startswith(b"GET /healthz HTTP/1.1\r\n")


def test_the_reasons_why_it_is_not_ready_are_told(daemon: Daemon) -> None:
    daemon.start(response("503 Service Unavailable", '{"reasons": ["stopping", "no store"]}'))
    assert outcome(daemon.url, ready=True) == f"chatd: {daemon.url}: 503 stopping, no store"
    assert daemon.received.startswith(b"GET /readyz HTTP/1.1\r\n")


@pytest.mark.parametrize("body", ["", "<html>", "[]", '{"reasons": 1}'])
def test_an_error_of_something_else_is_told(daemon: Daemon, body: str) -> None:
    daemon.start(response("502 Bad Gateway", body))
    assert outcome(daemon.url) == f"chatd: {daemon.url}: 502"


@pytest.mark.parametrize("received", ["", "no HTTP\r\n\r\n"])
def test_what_is_no_response_is_told(daemon: Daemon, received: str) -> None:
    daemon.start(received)
    assert str(outcome(daemon.url)).startswith(f"chatd: {daemon.url} does not respond: ")


def test_a_port_that_nobody_listens_on_is_told(daemon: Daemon) -> None:
    daemon.stop()
    assert "does not respond: " in str(outcome(daemon.url))


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "http://host:port"])
def test_a_wrong_url_is_told(url: str) -> None:
    assert outcome(url) == f"chatd: {url!r} is not http://HOST:PORT or https://HOST:PORT"


def test_the_command_asks_for_readiness_if_told_to(daemon: Daemon) -> None:
    daemon.start(response("200 OK", '{"status": "ready"}'))
    with pytest.raises(SystemExit) as exit_:
        main(["health", daemon.url, "--ready"])
    assert exit_.value.code == 0
    assert daemon.received.startswith(b"GET /readyz HTTP/1.1\r\n")


def test_the_default_is_the_default_listener() -> None:
    args = parser().parse_args(["health"])
    assert (args.url, args.ready) == ("http://127.0.0.1:8080", False)
