"""Opening ports, their URLs, and which of them expose plain HTTP."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError

from chatd.errors import StartError
from chatd.process.listeners import BACKLOG, Listener
from tests.doubles import result_of


def listener(description: str, result: Deferred[Any] | None = None) -> Listener:
    endpoint: Any = SimpleNamespace(listen=lambda _: result)
    server: Any = SimpleNamespace(add_port=lambda port: None)
    return Listener(description, endpoint, server)


def opened(result: Deferred[Any]) -> Any:
    return result_of(Deferred.fromCoroutine(listener("tcp:80", result).listen()))


def test_an_open_port_gets_a_backlog_for_many_clients() -> None:
    backlogs: list[int] = []
    port = SimpleNamespace(socket=SimpleNamespace(listen=backlogs.append))
    assert opened(succeed(port)) is port
    assert backlogs == [BACKLOG]
    assert BACKLOG >= 1024


def test_a_port_without_a_socket_is_accepted() -> None:
    port = SimpleNamespace()
    assert opened(succeed(port)) is port


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            CannotListenError("127.0.0.1", 80, OSError(errno.EADDRINUSE, "Address already in use")),
            "Address already in use",
        ),
        (CannotListenError("", 80, "odd"), "odd"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OverflowError("port must be 0-65535"), "port must be 0-65535"),
    ],
)
def test_a_port_that_cannot_be_opened_is_a_start_error(error: Exception, reason: str) -> None:
    with pytest.raises(StartError) as raised:
        opened(fail(error))
    assert str(raised.value) == f"cannot listen on tcp:80: {reason}"


@pytest.mark.parametrize(
    ("description", "address", "url"),
    [
        ("tcp:80", IPv4Address("TCP", "0.0.0.0", 80), "http://0.0.0.0:80"),
        ("tcp:80", IPv6Address("TCP", "::1", 80), "http://[::1]:80"),
        ("ssl:443:x", IPv4Address("TCP", "127.0.0.1", 443), "https://127.0.0.1:443"),
        ("tls:443:x", IPv6Address("TCP", "::", 443), "https://[::]:443"),
        ("haproxy:ssl:443", IPv4Address("TCP", "192.0.2.1", 443), "https://192.0.2.1:443"),
        ("unix:/run/chatd.sock", UNIXAddress("/run/chatd.sock"), "unix:/run/chatd.sock"),
    ],
)
def test_an_open_port_has_a_url(description: str, address: Any, url: str) -> None:
    assert listener(description).url(address) == url


@pytest.mark.parametrize(
    ("description", "address", "exposed"),
    [
        ("tcp:80", IPv4Address("TCP", "0.0.0.0", 80), True),
        ("tcp6:80", IPv6Address("TCP", "::", 80), True),
        ("tcp:80:interface=192.0.2.1", IPv4Address("TCP", "192.0.2.1", 80), True),
        ("tcp:80:interface=fe80\\:\\:1%eth0", IPv6Address("TCP", "fe80::1%eth0", 80), True),
        ("haproxy:tcp:80", IPv4Address("TCP", "0.0.0.0", 80), True),
        ("systemd:domain=INET:index=0", IPv4Address("TCP", "0.0.0.0", 80), True),
        ("tcp:80:interface=127.0.0.1", IPv4Address("TCP", "127.0.0.1", 80), False),
        ("tcp:80:interface=127.0.0.2", IPv4Address("TCP", "127.0.0.2", 80), False),
        ("tcp:80:interface=\\:\\:1", IPv6Address("TCP", "::1", 80), False),
        ("tcp6:80", IPv6Address("TCP", "::ffff:127.0.0.1", 80), False),
        ("unix:/run/chatd.sock", UNIXAddress("/run/chatd.sock"), False),
        ("ssl:443:x", IPv4Address("TCP", "0.0.0.0", 443), False),
        ("tls:443:x", IPv6Address("TCP", "::", 443), False),
        ("haproxy:ssl:443", IPv4Address("TCP", "0.0.0.0", 443), False),
    ],
)
def test_plain_http_that_other_machines_can_reach_is_exposed(
    description: str, address: Any, exposed: bool
) -> None:
    assert listener(description).is_exposed(address) is exposed
