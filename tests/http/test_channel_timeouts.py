"""What a client must have done by when. Deadlines are looked at once a second."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.raw_client import Conversation, Held, brief, get, post


def wait(conversation: Conversation, seconds: float) -> None:
    """Let `seconds` pass, one after another."""
    for _ in range(int(seconds)):
        conversation.clock.advance(1.0)


class TestAHead:
    def test_that_never_comes_ends_the_connection_without_a_word(self) -> None:
        conversation = Conversation(head_seconds=15)
        wait(conversation, 14)
        assert not conversation.ended()
        wait(conversation, 2)
        assert conversation.ended()
        assert conversation.transport.value() == b""

    def test_that_comes_in_part_is_answered_408(self) -> None:
        conversation = Conversation(head_seconds=15)
        wait(conversation, 10)
        conversation.say(b"GET / HT")
        wait(conversation, 6)
        assert conversation.answer().status == 408
        assert conversation.answer().code == "request_timeout"
        assert conversation.ended()

    def test_has_no_more_time_for_coming_byte_by_byte(self) -> None:
        conversation = Conversation(head_seconds=15)
        for octet in get()[:16]:
            conversation.say(bytes([octet]))
            wait(conversation, 1)
        assert conversation.answer().status == 408

    def test_after_an_answer_has_its_time_from_its_first_byte(self) -> None:
        conversation = Conversation(brief, head_seconds=15, idle_seconds=75)
        conversation.say(get("/a"))
        wait(conversation, 60)
        conversation.say(b"G")
        wait(conversation, 14)
        conversation.say(get("/b")[1:])
        assert [answer.body for answer in conversation.answers()] == [b"/a", b"/b"]
        conversation.say(b"G")
        wait(conversation, 16)
        assert conversation.answers()[-1].status == 408

    def test_behind_a_held_request_has_its_time_from_that_answer(self) -> None:
        held = Held()
        conversation = Conversation(held, head_seconds=15)
        conversation.say(get("/a") + get("/b")[:-1])
        wait(conversation, 55)
        held.requests[0].respond(200)
        wait(conversation, 14)
        assert not conversation.ended()
        wait(conversation, 2)
        assert [answer.status for answer in conversation.answers()] == [200, 408]


class TestABody:
    def test_that_does_not_come_is_answered_408(self) -> None:
        conversation = Conversation(body_seconds=20)
        conversation.say(post(b"hello")[:-1])
        wait(conversation, 19)
        assert not conversation.ended()
        wait(conversation, 2)
        assert conversation.answer().code == "request_timeout"
        assert conversation.ended()

    def test_has_no_more_time_for_coming_byte_by_byte(self) -> None:
        conversation = Conversation(body_seconds=20)
        head = get("/", "Transfer-Encoding: chunked", method="POST")
        conversation.say(head)
        for _ in range(21):
            conversation.say(b"1\r\nx\r\n")
            wait(conversation, 1)
        assert conversation.answer().status == 408

    def test_has_its_time_from_the_end_of_its_head(self) -> None:
        conversation = Conversation(head_seconds=15, body_seconds=20)
        data = post(b"hello")
        conversation.say(data[:10])
        wait(conversation, 14)
        conversation.say(data[10:-1])
        wait(conversation, 19)
        conversation.say(data[-1:])
        assert conversation.answer().status == 200


class TestAnIdleConnection:
    def test_ends_without_a_word(self) -> None:
        conversation = Conversation(brief, idle_seconds=75)
        conversation.say(get())
        wait(conversation, 74)
        assert not conversation.ended()
        wait(conversation, 2)
        assert conversation.transport.disconnecting
        assert len(conversation.answers()) == 1

    def test_is_not_kept_by_empty_lines(self) -> None:
        conversation = Conversation(brief, idle_seconds=75)
        conversation.say(get())
        for _ in range(76):
            conversation.say(b"\r\n")
            wait(conversation, 1)
        assert conversation.transport.disconnecting

    def test_has_its_time_anew_after_each_answer(self) -> None:
        conversation = Conversation(brief, idle_seconds=75)
        for _ in range(3):
            conversation.say(get())
            wait(conversation, 70)
        assert len(conversation.answers()) == 3
        assert not conversation.ended()


def test_a_request_that_is_held_has_all_the_time_and_no_timer() -> None:
    held = Held()
    conversation = Conversation(held)
    conversation.say(get())
    wait(conversation, 2)
    assert conversation.clock.getDelayedCalls() == []
    wait(conversation, 1000)
    held.requests[0].respond(200)
    assert conversation.answer().status == 200
    assert not conversation.ended()


def test_a_client_that_does_not_take_what_is_left_for_it_is_aborted() -> None:
    conversation = Conversation(brief, idle_seconds=75, close_seconds=30)
    conversation.say(get())
    wait(conversation, 76)
    assert not conversation.transport.disconnected
    wait(conversation, 31)
    assert conversation.transport.disconnected


def test_a_connection_that_is_gone_has_no_deadline() -> None:
    conversation = Conversation(brief)
    conversation.say(get() + b"G")
    conversation.leave()
    assert conversation.clock.getDelayedCalls() == []


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_a_clock_that_is_set_back_keeps_nothing_from_ending(seconds: float) -> None:
    conversation = Conversation(brief, idle_seconds=5)
    conversation.say(get())
    conversation.clock.rightNow += seconds
    wait(conversation, 12)
    assert conversation.ended()


class Slow:
    """What `Connection.has_read` looks at in Twisted's TCP transport."""

    def __init__(self, left: int) -> None:
        self.dataBuffer = b"x" * left
        self.offset = 0
        self._tempDataLen = 0


class TestALargeAnswer:
    def stalled(self) -> Conversation:
        conversation = Conversation(brief, close_seconds=30, idle_seconds=75)
        transport: Any = conversation.transport
        transport.__dict__.update(vars(Slow(100_000)))
        conversation.say(get("/a"))
        # As a transport with more than it likes does before the answer is finished.
        conversation.channel.pauseProducing()
        conversation.say(get("/b"))
        conversation.channel._set_deadline(conversation.server.state.sending)
        return conversation

    def test_may_take_any_time_while_some_of_it_is_read(self) -> None:
        conversation = self.stalled()
        transport: Any = conversation.transport
        for _ in range(20):
            wait(conversation, 25)
            transport.offset += 100
        assert not conversation.ended()

    def test_of_which_nothing_is_read_any_more_is_cut_off(self) -> None:
        conversation = self.stalled()
        wait(conversation, 65)
        assert conversation.ended()
