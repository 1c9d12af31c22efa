"""How a server that stops lets its connections end."""

from __future__ import annotations

from twisted.internet.interfaces import IProtocolFactory, IProtocolNegotiationFactory
from zope.interface.verify import verifyObject

from tests.http.conversation import Conversation, Held, brief, get, post


def test_the_server_is_a_factory() -> None:
    server = Conversation().server
    assert verifyObject(IProtocolFactory, server)
    assert verifyObject(IProtocolNegotiationFactory, server)
    assert server.acceptableProtocols() == [b"http/1.1"]
    server.doStart()  # type: ignore[no-untyped-call]
    server.doStop()  # type: ignore[no-untyped-call]


class TestDraining:
    def test_closes_idle_connections_at_once(self) -> None:
        conversation = Conversation(brief)
        conversation.say(get())
        conversation.server.drain()
        assert conversation.transport.disconnecting

    def test_lets_the_answer_under_way_be_the_last(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get())
        conversation.server.drain()
        assert not conversation.ended()
        held.requests[0].answer(200)
        assert conversation.answer().header("Connection") == "close"
        assert conversation.ended()

    def test_lets_an_answer_that_has_begun_be_the_last(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get())
        held.requests[0].write(b"begun ")
        conversation.server.drain()
        held.requests[0].write(b"done")
        held.requests[0].finish()
        assert conversation.answer().body == b"begun done"
        assert conversation.ended()

    def test_lets_a_request_that_has_begun_come(self) -> None:
        conversation = Conversation()
        data = post(b"hello")
        conversation.say(data[:-1])
        conversation.server.drain()
        conversation.say(data[-1:])
        assert conversation.answer().header("Connection") == "close"
        assert conversation.ended()

    def test_answers_no_second_request(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get("/a") + get("/b"))
        conversation.server.drain()
        held.requests[0].answer(200)
        assert len(conversation.answers()) == 1
        assert len(held.requests) == 1
        # The second may be on its way still: the client must see the first answer, not a reset.
        assert not conversation.transport.disconnecting

    def test_gives_a_connection_that_comes_late_one_answer(self) -> None:
        conversation = Conversation(brief)
        conversation.server.drain()
        late = Conversation(server=conversation.server)
        late.say(get())
        assert late.answer().status == 200
        assert late.answer().header("Connection") == "close"
        assert late.ended()

    def test_gives_a_connection_that_says_nothing_a_moment(self) -> None:
        conversation = Conversation(brief, linger_seconds=2)
        late = Conversation(server=conversation.server)
        conversation.server.drain()
        later = Conversation(server=conversation.server)
        conversation.clock.advance(1.0)
        assert not late.ended()
        late.say(b"GET")
        conversation.clock.pump([1.0] * 2)
        assert conversation.transport.disconnecting
        assert later.transport.disconnecting
        assert not late.ended()


def test_connections_are_counted() -> None:
    conversation = Conversation(brief)
    server = conversation.server
    others = [Conversation(server=server) for _ in range(2)]
    assert server.connections == 3
    others[0].leave()
    assert server.connections == 2


def test_all_connections_can_be_aborted() -> None:
    held = Held()
    conversation = Conversation(held)
    conversation.say(get())
    other = Conversation(server=conversation.server)
    conversation.server.abort_all()
    assert conversation.transport.disconnected
    assert other.transport.disconnected
    ends: list[object] = []
    held.requests[0].notifyFinish().addErrback(ends.append)
    conversation.leave()
    other.leave()
    assert len(ends) == 1
    assert conversation.clock.getDelayedCalls() == []


def test_waiting_for_the_last_connection_to_close() -> None:
    held = Held()
    conversation = Conversation(held)
    conversation.say(get())
    server = conversation.server
    other = Conversation(server=server)
    ends: list[object] = []
    held.requests[0].notifyFinish().addErrback(ends.append)
    closed = [server.wait_closed() for _ in range(2)]
    for each in closed:
        each.addCallback(lambda _: ends.append("closed"))
    other.leave()
    conversation.clock.advance(0)
    assert ends == []
    conversation.leave()
    conversation.clock.advance(0)
    # The request knows before whoever waits does.
    assert len(ends) == 3
    assert ends[1:] == ["closed"] * 2
    assert server.wait_closed().called
    assert conversation.clock.getDelayedCalls() == []


def test_nobody_needs_to_wait_any_longer_for_connections_to_close() -> None:
    conversation = Conversation(brief)
    conversation.server.wait_closed().addErrback(lambda _: None).cancel()
    conversation.leave()
    conversation.clock.advance(0)
    assert conversation.clock.getDelayedCalls() == []
