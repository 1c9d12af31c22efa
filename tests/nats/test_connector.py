"""Which server is connected to."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.nats.address import Server, parse
from chatd.nats.connector import CONNECT_SECONDS, MAX_LEARNED, Connector
from chatd.nats.protocol import Info, NatsError, NatsProtocol
from tests.doubles import result_of
from tests.nats.server import FakeServer


class Cluster:
    """Servers by host, and a connector."""

    def __init__(self, url: str, *hosts: str) -> None:
        self.clock = Clock()
        self.servers = {host: FakeServer() for host in hosts}
        self.tried: list[str] = []
        self.connector = Connector(parse(url), self.clock, lambda: 0.0, "1.0", self._endpoint)

    def _endpoint(self, server: Server) -> FakeServer:
        self.tried.append(server.host)
        return self.servers[server.host]

    def connect(self) -> Deferred[NatsProtocol]:
        return Deferred.fromCoroutine(self.connector.connect(self))

    def on_message(self, sid: bytes, payload: bytes) -> None:
        raise AssertionError

    def on_info(self, info: Info) -> None:
        self.connector.learn(info)


def test_the_last_server_is_tried_last() -> None:
    cluster = Cluster("nats://a,b,c", "a", "b", "c")
    for _ in range(4):
        result_of(cluster.connect()).abort("x")
    assert cluster.tried == ["a", "b", "c", "a"]


def test_servers_that_do_not_answer_are_passed_over() -> None:
    cluster = Cluster("nats://a,b,c", "a", "b", "c")
    cluster.servers["a"].up = False
    cluster.servers["b"].stopped = True
    connecting = cluster.connect()
    assert not connecting.called
    cluster.clock.advance(CONNECT_SECONDS)
    result_of(connecting).abort("x")
    assert cluster.tried == ["a", "b", "c"]
    assert cluster.servers["b"].transport is None
    assert not cluster.clock.getDelayedCalls()


def test_the_reason_of_the_last_failure_is_given() -> None:
    cluster = Cluster("nats://u:s3cret@a,b", "a", "b")
    cluster.servers["a"].up = False
    cluster.servers["b"].stopped = True
    connecting = cluster.connect()
    cluster.clock.advance(CONNECT_SECONDS)
    with pytest.raises(NatsError, match=r"^b:4222: no answer within 1 s$"):
        result_of(connecting)
    cluster.servers["b"].up = False
    with pytest.raises(NatsError, match=r"^b:4222: Connection was refused"):
        result_of(cluster.connect())


def test_servers_tell_of_others() -> None:
    cluster = Cluster("nats://a", "a", "10.0.0.2", "fe80::3")
    info = ["10.0.0.2:4222", "[fe80::3]:1", "nonsense:x", "a:4222"]
    cluster.servers["a"].info["connect_urls"] = info
    for _ in range(4):
        result_of(cluster.connect()).abort("x")
    assert cluster.tried == ["a", "10.0.0.2", "fe80::3", "a"]
    cluster.connector.learn(Info(connect_urls=tuple(f"h{number}" for number in range(500))))
    assert len(cluster.connector._servers) == 1 + MAX_LEARNED


def test_an_attempt_is_given_up() -> None:
    cluster = Cluster("nats://a,b", "a", "b")
    cluster.servers["a"].stopped = True
    connecting = cluster.connect()
    cluster.connector.stop()
    with pytest.raises(NatsError, match="stopped"):
        result_of(connecting)
    assert cluster.tried == ["a"]
    with pytest.raises(NatsError, match="stopped"):
        result_of(cluster.connect())
    assert not cluster.clock.getDelayedCalls()
