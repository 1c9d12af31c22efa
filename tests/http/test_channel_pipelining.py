"""Pipelined requests, clients that do not read, and clients that disconnect."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from chatd.http.request import Request
from tests.http.raw_client import Held, RawClient, brief, get, post


class Listener:
    """A disconnect listener that records its calls."""

    def __init__(self) -> None:
        self.reasons: list[Failure] = []

    def client_disconnected(self, reason: Failure) -> None:
        self.reasons.append(reason)


class TestPipelining:
    def test_responses_are_in_order(self) -> None:
        client = RawClient(brief)
        client.send(b"".join(get(f"/{number}") for number in range(100)))
        client.clock.advance(0)
        bodies = [response.body for response in client.responses()]
        assert bodies == [b"/%d" % number for number in range(100)]

    def test_other_connections_get_their_turn(self) -> None:
        client = RawClient(brief, pipelined=16)
        client.send(b"".join(get(f"/{number}") for number in range(30)))
        assert len(client.responses()) == 17
        client.send(get("/30"))
        assert len(client.responses()) == 17
        client.clock.advance(0)
        bodies = [response.body for response in client.responses()]
        assert bodies == [b"/%d" % number for number in range(31)]
        assert client.reading()

    def test_buffered_requests_are_dropped_on_disconnect(self) -> None:
        client = RawClient(brief, pipelined=16)
        client.send(get() * 30)
        client.disconnect()
        assert len(client.responses()) == 17
        assert client.clock.getDelayedCalls() == []

    def test_requests_reach_the_resource_one_at_a_time(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get("/a") + post(b"x", target="/b") + get("/c"))
        for number, uri in enumerate([b"/a", b"/b", b"/c"]):
            assert len(held.requests) == number + 1
            assert held.requests[number].uri == uri
            held.requests[number].respond(200, b"", uri)
        assert [response.body for response in client.responses()] == [b"/a", b"/b", b"/c"]

    @pytest.mark.parametrize("count", [17, 200])
    @pytest.mark.parametrize("step", [0, 1, 1000])
    def test_reading_pauses_at_a_number_of_requests(self, count: int, step: int) -> None:
        held = Held()
        client = RawClient(held, pipelined=16)
        data = b"".join(get(f"/{number}") for number in range(count + 1))
        sent = 0
        while sent < len(data):
            if not client.reading():
                break
            client.send(data[sent : sent + (step or len(data))])
            sent += step or len(data)
        assert not client.reading()
        while held.requests:
            request = held.requests.pop(0)
            request.respond(200, b"", request.uri)
            while client.reading() and sent < len(data):
                client.send(data[sent : sent + (step or len(data))])
                sent += step or len(data)
        bodies = [response.body for response in client.responses()]
        assert bodies == [b"/%d" % number for number in range(count + 1)]
        assert client.reading()

    def test_reading_pauses_at_a_size(self) -> None:
        held = Held()
        client = RawClient(held, pipelined_bytes=1000)
        client.send(get("/a") + post(b"x" * 2000, target="/b"))
        assert not client.reading()
        held.requests[0].respond(200)
        assert client.reading()
        assert held.requests[1].body == b"x" * 2000

    def test_requests_after_a_failed_one_are_answered(self, logged_failures: Any) -> None:
        def respond(request: Request) -> object:
            if request.uri == b"/bad":
                raise ValueError(request.uri)
            return brief(request)

        client = RawClient(respond)
        client.send(get("/a") + get("/bad") + get("/b"))
        assert [response.status for response in client.responses()] == [200, 500, 200]
        assert len(logged_failures.flush(ValueError)) == 1

    def test_response_from_a_callback_of_the_previous_one(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get("/a") + get("/b"))
        first = held.requests[0].notifyFinish()
        first.addCallback(lambda _: held.requests[0].uri)
        held.requests[0].respond(200, b"", b"a")
        held.requests[1].respond(200, b"", b"b")
        assert [response.body for response in client.responses()] == [b"a", b"b"]


class TestClientThatDoesNotRead:
    def test_its_requests_are_not_read(self) -> None:
        client = RawClient(brief)
        client.channel.pauseProducing()
        assert not client.reading()
        client.send(get("/a"))
        assert client.responses() == []
        client.channel.resumeProducing()
        assert client.reading()
        assert client.response().body == b"/a"

    def test_its_pipelined_requests_wait(self) -> None:
        def respond(request: Request) -> object:
            brief(request)
            # As a transport whose buffer has filled up.
            client.channel.pauseProducing()
            return NOT_DONE_YET

        client = RawClient(respond)
        client.send(get("/a") + get("/b") + get("/c"))
        for count in (1, 2, 3):
            assert len(client.responses()) == count
            assert not client.reading()
            client.channel.resumeProducing()
        assert client.reading()

    def test_its_disconnect_is_noticed_during_a_held_request(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get())
        client.channel.pauseProducing()
        assert client.reading()

    def test_its_connection_times_out(self) -> None:
        client = RawClient(brief, idle_seconds=75)
        client.send(get())
        client.channel.pauseProducing()
        client.send(get())
        client.clock.pump([1.0] * 77)
        assert client.transport.disconnecting


class TestDisconnect:
    def test_notify_finish_fails(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get())
        [request] = held.requests
        ends: list[Failure] = []
        for _ in range(2):
            request.notifyFinish().addErrback(ends.append)
        reason = client.disconnect()
        assert ends == [reason, reason]
        assert request.disconnected
        assert request.channel is None
        assert client.server.connections == 0

    def test_listener_is_called_once(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get())
        listener = Listener()
        held.requests[0].watch_disconnect(listener)
        reason = client.disconnect()
        assert listener.reasons == [reason]
        held.requests[0].respond(200)
        assert listener.reasons == [reason]

    def test_listener_is_not_called_after_the_response(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get() * 2)
        listener = Listener()
        held.requests[0].watch_disconnect(listener)
        held.requests[0].respond(200)
        client.disconnect()
        assert listener.reasons == []

    def test_the_latest_listener_replaces_the_one_before(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get())
        before, listener = Listener(), Listener()
        held.requests[0].watch_disconnect(before)
        held.requests[0].watch_disconnect(listener)
        reason = client.disconnect()
        assert (before.reasons, listener.reasons) == ([], [reason])

    def test_client_address_is_still_known(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get())
        client.disconnect()
        assert held.requests[0].getClientAddress() == client.transport.getPeer()

    def test_writing_has_no_effect(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get() * 2)
        request = held.requests[0]
        client.disconnect()
        request.write(b"x")
        request.respond(200, b"", b"x")
        assert client.transport.value() == b""
        with pytest.raises(RuntimeError, match="after its connection was lost"):
            request.finish()
        assert len(held.requests) == 1

    def test_producer_is_stopped(self) -> None:
        stopped: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                stopped.append("paused")

            def resumeProducing(self) -> None:
                stopped.append("resumed")

            def stopProducing(self) -> None:
                stopped.append("stopped")

        held = Held()
        client = RawClient(held)
        client.send(get())
        held.requests[0].registerProducer(Producer(), True)
        client.disconnect()
        held.requests[0].registerProducer(Producer(), True)
        held.requests[0].unregisterProducer()
        assert stopped == ["stopped", "stopped"]

    def test_disconnect_between_requests(self) -> None:
        client = RawClient(brief)
        client.send(get() + get()[:10])
        client.disconnect()
        assert client.server.connections == 0
        assert len(client.logged) == 1

    def test_request_is_logged_once(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get())
        client.disconnect()
        held.requests[0].respond(200)
        assert client.logged == held.requests


def test_notify_finish_fires_or_fails() -> None:
    held = Held()
    client = RawClient(held)
    client.send(get() + get())
    results: list[object] = []
    held.requests[0].notifyFinish().addCallback(results.append)
    held.requests[0].respond(200)
    held.requests[1].notifyFinish().addErrback(lambda f: results.append(f.type))
    client.disconnect()
    assert results == [None, ConnectionDone]


def test_notify_finish_can_be_cancelled() -> None:
    held = Held()
    client = RawClient(held)
    client.send(get())
    done: Deferred[None] = held.requests[0].notifyFinish()
    done.addErrback(lambda _: None)
    done.cancel()
    held.requests[0].respond(200)
    assert client.response().status == 200
