"""Requests sent before the answers to those before them, clients that do not read, or leave."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from chatd.http.request import Request
from tests.http.raw_client import Conversation, Held, brief, get, post


class Listener:
    """Records the disconnects that it is told of."""

    def __init__(self) -> None:
        self.reasons: list[Failure] = []

    def client_disconnected(self, reason: Failure) -> None:
        self.reasons.append(reason)


class TestPipelinedRequests:
    def test_are_answered_in_order(self) -> None:
        conversation = Conversation(brief)
        conversation.say(b"".join(get(f"/{number}") for number in range(100)))
        conversation.clock.advance(0)
        bodies = [answer.body for answer in conversation.answers()]
        assert bodies == [b"/%d" % number for number in range(100)]

    def test_leave_other_connections_their_turn(self) -> None:
        conversation = Conversation(brief, pipelined=16)
        conversation.say(b"".join(get(f"/{number}") for number in range(30)))
        assert len(conversation.answers()) == 17
        assert not conversation.reading()
        conversation.say(get("/30"))
        assert len(conversation.answers()) == 17
        conversation.clock.advance(0)
        bodies = [answer.body for answer in conversation.answers()]
        assert bodies == [b"/%d" % number for number in range(31)]
        assert conversation.reading()

    def test_are_forgotten_when_the_client_leaves_before_their_turn(self) -> None:
        conversation = Conversation(brief, pipelined=16)
        conversation.say(get() * 30)
        conversation.leave()
        assert len(conversation.answers()) == 17
        assert conversation.clock.getDelayedCalls() == []

    def test_reach_the_resource_one_at_a_time(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get("/a") + post(b"x", target="/b") + get("/c"))
        for number, uri in enumerate([b"/a", b"/b", b"/c"]):
            assert len(held.requests) == number + 1
            assert held.requests[number].uri == uri
            held.requests[number].respond(200, b"", uri)
        assert [answer.body for answer in conversation.answers()] == [b"/a", b"/b", b"/c"]

    @pytest.mark.parametrize("count", [17, 200])
    @pytest.mark.parametrize("step", [0, 1, 1000])
    def test_wait_unread_beyond_a_number_and_none_is_lost(self, count: int, step: int) -> None:
        held = Held()
        conversation = Conversation(held, pipelined=16)
        data = b"".join(get(f"/{number}") for number in range(count + 1))
        sent = 0
        while sent < len(data):
            if not conversation.reading():
                break
            conversation.say(data[sent : sent + (step or len(data))])
            sent += step or len(data)
        assert not conversation.reading()
        while held.requests:
            request = held.requests.pop(0)
            request.respond(200, b"", request.uri)
            while conversation.reading() and sent < len(data):
                conversation.say(data[sent : sent + (step or len(data))])
                sent += step or len(data)
        bodies = [answer.body for answer in conversation.answers()]
        assert bodies == [b"/%d" % number for number in range(count + 1)]
        assert conversation.reading()

    def test_wait_unread_beyond_a_size(self) -> None:
        held = Held()
        conversation = Conversation(held, pipelined_bytes=1000)
        conversation.say(get("/a") + post(b"x" * 2000, target="/b"))
        assert not conversation.reading()
        held.requests[0].respond(200)
        assert conversation.reading()
        assert held.requests[1].body == b"x" * 2000

    def test_behind_one_that_fails_are_answered(self, logged_failures: Any) -> None:
        def respond(request: Request) -> object:
            if request.uri == b"/bad":
                raise ValueError(request.uri)
            return brief(request)

        conversation = Conversation(respond)
        conversation.say(get("/a") + get("/bad") + get("/b"))
        assert [answer.status for answer in conversation.answers()] == [200, 500, 200]
        assert len(logged_failures.flush(ValueError)) == 1

    def test_may_be_answered_from_within_the_answer_before(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get("/a") + get("/b"))
        first = held.requests[0].notifyFinish()
        first.addCallback(lambda _: held.requests[0].uri)
        held.requests[0].respond(200, b"", b"a")
        held.requests[1].respond(200, b"", b"b")
        assert [answer.body for answer in conversation.answers()] == [b"a", b"b"]


class TestAClientThatDoesNotRead:
    def test_is_not_read_from_either(self) -> None:
        conversation = Conversation(brief)
        conversation.channel.pauseProducing()
        assert not conversation.reading()
        conversation.say(get("/a"))
        assert conversation.answers() == []
        conversation.channel.resumeProducing()
        assert conversation.reading()
        assert conversation.answer().body == b"/a"

    def test_has_its_pipelined_requests_wait(self) -> None:
        def respond(request: Request) -> object:
            brief(request)
            # As a transport whose buffer has filled up.
            conversation.channel.pauseProducing()
            return NOT_DONE_YET

        conversation = Conversation(respond)
        conversation.say(get("/a") + get("/b") + get("/c"))
        for count in (1, 2, 3):
            assert len(conversation.answers()) == count
            assert not conversation.reading()
            conversation.channel.resumeProducing()
        assert conversation.reading()

    def test_is_still_heard_to_leave_while_it_waits(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get())
        conversation.channel.pauseProducing()
        assert conversation.reading()

    def test_is_idle(self) -> None:
        conversation = Conversation(brief, idle_seconds=75)
        conversation.say(get())
        conversation.channel.pauseProducing()
        conversation.say(get())
        conversation.clock.pump([1.0] * 77)
        assert conversation.transport.disconnecting


class TestAClientThatLeaves:
    def test_ends_the_request_that_is_held(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get())
        [request] = held.requests
        ends: list[Failure] = []
        for _ in range(2):
            request.notifyFinish().addErrback(ends.append)
        reason = conversation.leave()
        assert ends == [reason, reason]
        assert request.disconnected
        assert request.channel is None
        assert conversation.server.connections == 0

    def test_is_reported_once_to_the_listener(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get())
        listener = Listener()
        held.requests[0].watch_disconnect(listener)
        reason = conversation.leave()
        assert listener.reasons == [reason]
        held.requests[0].respond(200)
        assert listener.reasons == [reason]

    def test_is_not_reported_after_the_response(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get() * 2)
        listener = Listener()
        held.requests[0].watch_disconnect(listener)
        held.requests[0].respond(200)
        conversation.leave()
        assert listener.reasons == []

    def test_is_reported_to_one_listener_only(self) -> None:
        held = Held()
        Conversation(held).say(get())
        held.requests[0].watch_disconnect(Listener())
        with pytest.raises(RuntimeError, match="another listener"):
            held.requests[0].watch_disconnect(Listener())

    def test_leaves_its_address(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get())
        conversation.leave()
        assert held.requests[0].getClientAddress() == conversation.transport.getPeer()

    def test_can_be_written_to_in_vain(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get() * 2)
        request = held.requests[0]
        conversation.leave()
        request.write(b"x")
        request.respond(200, b"", b"x")
        assert conversation.transport.value() == b""
        with pytest.raises(RuntimeError, match="after its connection was lost"):
            request.finish()
        assert len(held.requests) == 1

    def test_stops_the_producer(self) -> None:
        stopped: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                stopped.append("paused")

            def resumeProducing(self) -> None:
                stopped.append("resumed")

            def stopProducing(self) -> None:
                stopped.append("stopped")

        held = Held()
        conversation = Conversation(held)
        conversation.say(get())
        held.requests[0].registerProducer(Producer(), True)
        conversation.leave()
        held.requests[0].registerProducer(Producer(), True)
        held.requests[0].unregisterProducer()
        assert stopped == ["stopped", "stopped"]

    def test_between_requests_leaves_nothing(self) -> None:
        conversation = Conversation(brief)
        conversation.say(get() + get()[:10])
        conversation.leave()
        assert conversation.server.connections == 0
        assert len(conversation.logged) == 1

    def test_is_logged_once(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get())
        conversation.leave()
        held.requests[0].respond(200)
        assert conversation.logged == held.requests


def test_a_request_that_is_answered_tells_those_who_asked() -> None:
    held = Held()
    conversation = Conversation(held)
    conversation.say(get() + get())
    results: list[object] = []
    held.requests[0].notifyFinish().addCallback(results.append)
    held.requests[0].respond(200)
    held.requests[1].notifyFinish().addErrback(lambda f: results.append(f.type))
    conversation.leave()
    assert results == [None, ConnectionDone]


def test_a_deferred_of_notify_finish_can_be_cancelled() -> None:
    held = Held()
    conversation = Conversation(held)
    conversation.say(get())
    done: Deferred[None] = held.requests[0].notifyFinish()
    done.addErrback(lambda _: None)
    done.cancel()
    held.requests[0].respond(200)
    assert conversation.answer().status == 200
