"""The kernel drops the handshakes of some networks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chatd.http.packet_filter import MAX_NETWORKS, drop_nothing, drop_packets, program

PATIENCE_SECONDS = 0.3
"""Less than until a client tries again, and longer than a handshake takes on loopback."""

MAX_INSTRUCTIONS = 4096
"""`BPF_MAXINSNS` in linux/bpf_common.h."""


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A listening socket for IPv4 and IPv6."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        yield listening


@contextmanager
def connection(listening: socket.socket, source: str) -> Iterator[socket.socket]:
    target = "::1" if ":" in source else "127.0.0.1"
    port = listening.getsockname()[1]
    client = socket.create_connection((target, port), PATIENCE_SECONDS, (source, 0))
    with client:
        yield client


def connects(listening: socket.socket, source: str) -> bool:
    try:
        with connection(listening, source):
            return True
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    ("networks", "dropped"),
    [
        (["127.0.0.2"], ["127.0.0.2"]),
        (["127.0.0.3", "127.0.0.2"], ["127.0.0.2", "127.0.0.3"]),
        (["::/48"], ["::1"]),
        (["2001:db8::/48", "::/48", "127.0.0.3"], ["127.0.0.3", "::1"]),
        (["2001:db8::/48", "0:0:1::/48"], []),
        ([], []),
    ],
)
def test_the_handshakes_of_these_networks_only_are_dropped(
    listening: socket.socket, networks: list[str], dropped: list[str]
) -> None:
    sources = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"]
    assert drop_packets(listening, networks)
    assert [each for each in sources if not connects(listening, each)] == dropped


def test_others_take_the_place_of_those_before(listening: socket.socket) -> None:
    drop_packets(listening, ["127.0.0.2"])
    drop_packets(listening, ["127.0.0.3"])
    assert connects(listening, "127.0.0.2")
    assert not connects(listening, "127.0.0.3")
    for _ in range(2):
        drop_nothing(listening)
        assert connects(listening, "127.0.0.3")


def test_open_connections_are_left_alone(listening: socket.socket) -> None:
    with connection(listening, "127.0.0.2") as client:
        accepted, _ = listening.accept()
        drop_packets(listening, ["127.0.0.2"])
        client.send(b"hello")
        accepted.settimeout(PATIENCE_SECONDS)
        assert accepted.recv(9) == b"hello"
        accepted.close()


def test_a_client_whose_handshake_was_dropped_tries_again(listening: socket.socket) -> None:
    drop_packets(listening, ["127.0.0.2"])
    with socket.socket() as client:
        client.bind(("127.0.0.2", 0))
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", listening.getsockname()[1]))
        drop_nothing(listening)
        listening.settimeout(10)
        accepted, _ = listening.accept()
        accepted.close()


@pytest.mark.parametrize("pattern", ["2001:db{:x}:{:x}::/48", "10.{}.{}.1"])
def test_so_many_networks_fit_into_a_program(listening: socket.socket, pattern: str) -> None:
    networks = [pattern.format(number, number) for number in range(MAX_NETWORKS)]
    assert len(list(program(networks))) <= MAX_INSTRUCTIONS
    assert drop_packets(listening, networks)
    assert connects(listening, "127.0.0.1")


def test_a_socket_that_cannot_have_a_filter() -> None:
    closed = socket.socket()
    closed.close()
    assert not drop_packets(closed, ["127.0.0.2"])
    drop_nothing(closed)
