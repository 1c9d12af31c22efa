"""Which values of Host a server answers to."""

from __future__ import annotations

import pytest

from chatd.http.allowed_hosts import AllowedHosts
from tests.http.raw_client import RawClient, get

NAMES = AllowedHosts(["chat.example", ".internal.example"])


@pytest.mark.parametrize(
    "host",
    [
        *("chat.example", "chat.example:8080", "chat.example.", "internal.example"),
        *("a.internal.example", "a.b.internal.example:1", "localhost", "localhost:8080"),
        *("app.localhost", "127.0.0.1", "192.0.2.1:80", "[::1]", "[2001:db8::1]:8080"),
    ],
)
def test_names_addresses_and_localhost_are_allowed(host: str) -> None:
    assert NAMES.allow(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "a.chat.example", "chat.example.evil.example", "xinternal.example"),
        *("notlocalhost", "1.2.3", "127.0.0.1.evil.example", "", "0x7f000001", "2130706433"),
    ],
)
def test_other_names_are_not(host: str) -> None:
    assert not NAMES.allow(host.encode())


def test_by_default_only_addresses_and_localhost_are() -> None:
    assert AllowedHosts().allow(b"127.0.0.1:9080")
    assert not AllowedHosts().allow(b"chat.example")
    assert AllowedHosts(["*"]).allow(b"anything")


def test_a_server_refuses_requests_for_another_name() -> None:
    client = RawClient(hosts=NAMES)
    # Also on a connection that has sent others, and whatever the Host beside an absolute target.
    client.send(get("/", method="GET").replace(b"chat.example", b"a.internal.example"))
    client.send(get("http://evil.example/"))
    first, second = client.responses()
    assert first.status == 200
    assert (second.status, second.code) == (421, "misdirected_request")
    assert client.closed()


def test_a_request_without_host_is_not_from_a_browser() -> None:
    client = RawClient(hosts=AllowedHosts())
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.response().status == 200
