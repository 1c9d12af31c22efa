"""Timeouts of a connection, which are checked once a second."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.raw_client import Held, RawClient, brief, get, post


def wait(client: RawClient, seconds: float) -> None:
    """Let `seconds` pass, one after another."""
    for _ in range(int(seconds)):
        client.clock.advance(1.0)


class TestHeadTimeout:
    def test_silent_connection_is_closed(self) -> None:
        client = RawClient(head_seconds=15)
        wait(client, 14)
        assert not client.closed()
        wait(client, 2)
        assert client.closed()
        assert client.transport.value() == b""

    def test_incomplete_head_gets_408(self) -> None:
        client = RawClient(head_seconds=15)
        wait(client, 10)
        client.send(b"GET / HT")
        wait(client, 6)
        assert client.response().status == 408
        assert client.response().code == "request_timeout"
        assert client.closed()

    def test_sending_byte_by_byte_does_not_extend_the_time(self) -> None:
        client = RawClient(head_seconds=15)
        for octet in get()[:16]:
            client.send(bytes([octet]))
            wait(client, 1)
        assert client.response().status == 408

    def test_time_of_a_later_head_starts_with_its_first_byte(self) -> None:
        client = RawClient(brief, head_seconds=15, idle_seconds=75)
        client.send(get("/a"))
        wait(client, 60)
        client.send(b"G")
        wait(client, 14)
        client.send(get("/b")[1:])
        assert [response.body for response in client.responses()] == [b"/a", b"/b"]
        client.send(b"G")
        wait(client, 16)
        assert client.responses()[-1].status == 408

    def test_time_of_a_pipelined_head_starts_with_the_previous_response(self) -> None:
        held = Held()
        client = RawClient(held, head_seconds=15)
        client.send(get("/a") + get("/b")[:-1])
        wait(client, 55)
        held.requests[0].respond(200)
        wait(client, 14)
        assert not client.closed()
        wait(client, 2)
        assert [response.status for response in client.responses()] == [200, 408]


class TestBodyTimeout:
    def test_incomplete_body_gets_408(self) -> None:
        client = RawClient(body_seconds=20)
        client.send(post(b"hello")[:-1])
        wait(client, 19)
        assert not client.closed()
        wait(client, 2)
        assert client.response().code == "request_timeout"
        assert client.closed()

    def test_sending_byte_by_byte_does_not_extend_the_time(self) -> None:
        client = RawClient(body_seconds=20)
        head = get("/", "Transfer-Encoding: chunked", method="POST")
        client.send(head)
        for _ in range(21):
            client.send(b"1\r\nx\r\n")
            wait(client, 1)
        assert client.response().status == 408

    def test_time_starts_with_the_end_of_the_head(self) -> None:
        client = RawClient(head_seconds=15, body_seconds=20)
        data = post(b"hello")
        client.send(data[:10])
        wait(client, 14)
        client.send(data[10:-1])
        wait(client, 19)
        client.send(data[-1:])
        assert client.response().status == 200


class TestIdleTimeout:
    def test_idle_connection_is_closed(self) -> None:
        client = RawClient(brief, idle_seconds=75)
        client.send(get())
        wait(client, 74)
        assert not client.closed()
        wait(client, 2)
        assert client.transport.disconnecting
        assert len(client.responses()) == 1

    def test_empty_lines_do_not_extend_the_time(self) -> None:
        client = RawClient(brief, idle_seconds=75)
        client.send(get())
        for _ in range(76):
            client.send(b"\r\n")
            wait(client, 1)
        assert client.transport.disconnecting

    def test_time_starts_again_with_each_response(self) -> None:
        client = RawClient(brief, idle_seconds=75)
        for _ in range(3):
            client.send(get())
            wait(client, 70)
        assert len(client.responses()) == 3
        assert not client.closed()


def test_held_request_has_no_timeout() -> None:
    held = Held()
    client = RawClient(held)
    client.send(get())
    wait(client, 2)
    assert client.clock.getDelayedCalls() == []
    wait(client, 1000)
    held.requests[0].respond(200)
    assert client.response().status == 200
    assert not client.closed()


def test_unsent_data_is_dropped_after_a_timeout() -> None:
    client = RawClient(brief, idle_seconds=75, close_seconds=30)
    client.send(get())
    wait(client, 76)
    assert not client.transport.disconnected
    wait(client, 31)
    assert client.transport.disconnected


def test_closed_connection_has_no_timer() -> None:
    client = RawClient(brief)
    client.send(get() + b"G")
    client.disconnect()
    assert client.clock.getDelayedCalls() == []


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_timeouts_work_after_the_clock_was_set_back(seconds: float) -> None:
    client = RawClient(brief, idle_seconds=5)
    client.send(get())
    client.clock.rightNow += seconds
    wait(client, 12)
    assert client.closed()


class Slow:
    """The attributes of Twisted's TCP transport that `unsent_bytes` reads."""

    def __init__(self, left: int) -> None:
        self.dataBuffer = b"x" * left
        self.offset = 0
        self._tempDataLen = 0


class TestLargeResponse:
    def stalled(self) -> RawClient:
        client = RawClient(brief, close_seconds=30, idle_seconds=75)
        transport: Any = client.transport
        transport.__dict__.update(vars(Slow(100_000)))
        client.send(get("/a"))
        # As a transport does whose buffer is full before the response is finished.
        client.channel.pauseProducing()
        client.send(get("/b"))
        client.channel._set_deadline(client.server.state.sending)
        return client

    def test_no_timeout_while_the_client_reads(self) -> None:
        client = self.stalled()
        transport: Any = client.transport
        for _ in range(20):
            wait(client, 25)
            transport.offset += 100
        assert not client.closed()

    def test_timeout_when_the_client_stops_reading(self) -> None:
        client = self.stalled()
        wait(client, 65)
        assert client.closed()
