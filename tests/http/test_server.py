"""The server as a factory: draining, aborting and counting its connections."""

from __future__ import annotations

from twisted.internet.interfaces import IProtocolFactory, IProtocolNegotiationFactory
from zope.interface.verify import verifyObject

from tests.http.raw_client import Held, RawClient, brief, get, post


def test_server_is_a_factory() -> None:
    server = RawClient().server
    assert verifyObject(IProtocolFactory, server)
    assert verifyObject(IProtocolNegotiationFactory, server)
    assert server.acceptableProtocols() == [b"http/1.1"]
    server.doStart()  # type: ignore[no-untyped-call]
    server.doStop()  # type: ignore[no-untyped-call]


class TestDrain:
    def test_idle_connection_is_closed_after_a_moment(self) -> None:
        client = RawClient(brief, idle_seconds=75)
        client.send(get())
        client.clock.advance(5)
        client.server.drain()
        assert not client.closed()
        client.send(b"\r\n")
        client.clock.pump([1.0] * 2)
        assert client.transport.disconnecting
        assert len(client.responses()) == 1

    def test_request_on_its_way_to_an_idle_connection_is_answered(self) -> None:
        client = RawClient(brief)
        client.send(get("/a"))
        client.server.drain()
        client.send(get("/b"))
        first, last = client.responses()
        assert first.header("Connection") is None
        assert (last.body, last.header("Connection")) == (b"/b", "close")
        assert client.closed()

    def test_held_request_gets_the_last_response(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get())
        client.server.drain()
        assert not client.closed()
        held.requests[0].respond(200)
        assert client.response().header("Connection") == "close"
        assert client.closed()

    def test_response_that_has_begun_is_completed(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get())
        held.requests[0].write(b"begun ")
        client.server.drain()
        held.requests[0].write(b"done")
        held.requests[0].finish()
        assert client.response().body == b"begun done"
        assert client.closed()

    def test_request_that_has_begun_is_answered(self) -> None:
        client = RawClient()
        data = post(b"hello")
        client.send(data[:-1])
        client.server.drain()
        client.send(data[-1:])
        assert client.response().header("Connection") == "close"
        assert client.closed()

    def test_pipelined_requests_are_answered(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get("/a") + get("/b"))
        client.server.drain()
        held.requests[0].respond(200)
        assert not client.closed()
        held.requests[1].respond(200)
        first, last = client.responses()
        assert first.header("Connection") is None
        assert last.header("Connection") == "close"
        assert client.closed()

    def test_late_connection_gets_one_response(self) -> None:
        client = RawClient(brief)
        client.server.drain()
        late = RawClient(server=client.server)
        late.send(get())
        assert late.response().status == 200
        assert late.response().header("Connection") == "close"
        assert late.closed()

    def test_silent_connection_is_closed_after_a_moment(self) -> None:
        client = RawClient(brief, linger_seconds=2)
        late = RawClient(server=client.server)
        client.server.drain()
        later = RawClient(server=client.server)
        client.clock.advance(1.0)
        assert not late.closed()
        late.send(b"GET")
        client.clock.pump([1.0] * 2)
        assert client.transport.disconnecting
        assert later.transport.disconnecting
        assert not late.closed()


def test_number_of_connections() -> None:
    client = RawClient(brief)
    server = client.server
    others = [RawClient(server=server) for _ in range(2)]
    assert server.connections == 3
    others[0].disconnect()
    assert server.connections == 2


def test_abort_all() -> None:
    held = Held()
    client = RawClient(held)
    client.send(get())
    other = RawClient(server=client.server)
    client.server.abort_all()
    assert client.transport.disconnected
    assert other.transport.disconnected
    ends: list[object] = []
    held.requests[0].notifyFinish().addErrback(ends.append)
    client.disconnect()
    other.disconnect()
    assert len(ends) == 1
    assert client.clock.getDelayedCalls() == []


def test_wait_closed_fires_after_the_last_request_was_notified() -> None:
    held = Held()
    client = RawClient(held)
    client.send(get())
    server = client.server
    other = RawClient(server=server)
    ends: list[object] = []
    held.requests[0].notifyFinish().addErrback(ends.append)
    for _ in range(2):
        server.wait_closed().addCallback(lambda _: ends.append("closed"))
    other.disconnect()
    client.clock.advance(0)
    assert ends == []
    client.disconnect()
    client.clock.advance(0)
    assert len(ends) == 3
    assert ends[1:] == ["closed"] * 2
    assert server.wait_closed().called
    assert client.clock.getDelayedCalls() == []


def test_wait_closed_can_be_cancelled() -> None:
    client = RawClient(brief)
    early, late = (client.server.wait_closed().addErrback(lambda _: None) for _ in range(2))
    early.cancel()
    client.disconnect()
    late.cancel()
    assert client.clock.getDelayedCalls() == []
