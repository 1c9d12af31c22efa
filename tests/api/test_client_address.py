"""The client address of a request behind trusted proxies."""

from __future__ import annotations

from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.web.http_headers import Headers

from chatd.api.client_address import TrustedProxies

PROXY = IPv4Address("TCP", "10.0.0.1", 4711)
CLIENT = IPv4Address("TCP", "203.0.113.9", 4711)
TRUSTED = ["10.0.0.0/8", "2001:db8::/32"]


def found(peer: Any, trusted: list[str], *forwarded: str | bytes) -> str:
    """The address of a request from `peer` with these fields of X-Forwarded-For."""
    headers = Headers()
    headers.setRawHeaders(
        b"x-forwarded-for",
        [each if isinstance(each, bytes) else each.encode() for each in forwarded],
    )
    request: Any = SimpleNamespace(getClientAddress=lambda: peer, requestHeaders=headers)
    return TrustedProxies([ip_network(network) for network in trusted]).address(request)


def test_without_trusted_proxies_the_header_is_not_believed() -> None:
    assert found(CLIENT, [], "192.0.2.1") == "203.0.113.9"
    assert found(PROXY, [], "192.0.2.1") == "10.0.0.1"


def test_the_header_of_someone_else_is_not_believed() -> None:
    assert found(CLIENT, TRUSTED, "192.0.2.1") == "203.0.113.9"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        (["8.8.8.8, 192.0.2.1"], "192.0.2.1"),
        (["8.8.8.8", "192.0.2.1", "10.0.0.2"], "192.0.2.1"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.1"),
        (["2001:db8::5, 2001:db9::1"], "2001:db9::1"),
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["192.0.2.1, unknown"], "10.0.0.1"),
        (["192.0.2.1, 192.0.2.2:80"], "192.0.2.2"),
        (["192.0.2.1:80, 10.0.0.2:81"], "192.0.2.1"),
        (["[2001:db9::1]:80, [2001:db8::5]:81"], "2001:db9::1"),
        (["[2001:db9::1]"], "2001:db9::1"),
        (["2001:db9::1:80"], "2001:db9::1:80"),
        (["192.0.2.1:"], "10.0.0.1"),
        (["192.0.2.1:x"], "10.0.0.1"),
        (["[2001:db9::1]x"], "10.0.0.1"),
        (["2001:db9::1]:80"], "10.0.0.1"),
        ([":80"], "10.0.0.1"),
        (["[]:80"], "10.0.0.1"),
        (["192.0.2.1, "], "10.0.0.1"),
        (["192.0.2.1\u00e9"], "10.0.0.1"),
        ([b"\xff\xfe"], "10.0.0.1"),
        (["192.0.2.1", b"\xff"], "10.0.0.1"),
        (["٣.0.0.1"], "10.0.0.1"),
        (["256.1.1.1"], "10.0.0.1"),
    ],
)
def test_the_last_hop_that_is_no_proxy_is_the_client(forwarded: list[Any], client: str) -> None:
    assert found(PROXY, TRUSTED, *forwarded) == client


def test_ipv4_mapped_addresses_are_matched_as_ipv4() -> None:
    mapped = IPv6Address("TCP", "::ffff:10.0.0.1", 4711)
    assert found(mapped, TRUSTED, "192.0.2.1") == "192.0.2.1"
    assert found(mapped, TRUSTED, "192.0.2.1, ::ffff:10.0.0.7") == "192.0.2.1"
    assert found(mapped, ["2001:db8::/32"], "192.0.2.1") == "::ffff:10.0.0.1"


def test_a_unix_socket_has_no_address_and_is_a_proxy_of_this_machine() -> None:
    assert found(UNIXAddress("/run/chatd.sock"), []) == "local"
    assert found(UNIXAddress("/run/chatd.sock"), [], "192.0.2.1") == "local"
    assert found(UNIXAddress(None), TRUSTED, "192.0.2.1") == "192.0.2.1"
    assert found(None, TRUSTED, "192.0.2.1") == "192.0.2.1"


def test_the_client_is_found_in_a_whole_head() -> None:
    proxies = TrustedProxies([ip_network("10.0.0.0/8")])
    head = (
        b"POST / HTTP/1.1\r\nHost: a\r\n"
        b"x-forwarded-FOR: 192.0.2.1\r\nX-Forwarded-For:10.0.0.2\r\n\r\n"
    )
    assert proxies.in_head("10.0.0.1", head) == "192.0.2.1"
    assert proxies.in_head("", head) == "192.0.2.1"
    assert proxies.in_head("203.0.113.9", head) == "203.0.113.9"
    body = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n\r\nX-Forwarded-For: 192.0.2.1\r\n"
    assert proxies.in_head("10.0.0.1", body) == "10.0.0.1"
    for size in (0, 1, len(head) - 1):
        assert proxies.in_head("10.0.0.1", head[:size]) == "10.0.0.1"


def test_clients_behind_proxies_are_told_from_others() -> None:
    proxies = TrustedProxies([ip_network("10.0.0.0/8")])
    assert proxies.behind_proxy(PROXY, [b"192.0.2.1"]) == "192.0.2.1"
    assert proxies.behind_proxy(CLIENT, [b"192.0.2.1"]) is None
    for unsaid in ([], [b"unknown"], [b"10.0.0.2"]):
        assert proxies.behind_proxy(PROXY, unsaid) is None
    assert TrustedProxies(()).behind_proxy(CLIENT, [b"192.0.2.1"]) is None
    # Connections have the addresses that the proxy has said.
    told = TrustedProxies((), proxy_protocol=True)
    assert told.behind_proxy(CLIENT, [b"192.0.2.1"]) == "203.0.113.9"
    assert told.behind_proxy(UNIXAddress("/run/chatd.sock"), []) is None
