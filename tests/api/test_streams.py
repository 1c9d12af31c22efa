"""Streams (contract, Streams), on both servers and in both formats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatd.api.stream_writer import KEEP_ALIVE_SECONDS, STALLED_KEEP_ALIVES, WRITE_BYTES
from chatd.domain.last_seen import LAST_SEEN_FLUSH_SECONDS
from chatd.domain.notifier import HELD_PER_USER
from tests.api.service import (
    CHATS,
    OWN,
    RETRY_JITTER,
    TOKENS,
    USERS,
    Exchange,
    Serve,
    Service,
    User,
)
from tests.conftest import LoggedFailures
from tests.http.raw_client import get

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"


class Stream:
    """A stream in memory: its head, and its events as (name, id, data) or as lines."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._format = ""

    def ended(self) -> bool:
        """Whether the response is complete."""
        return not self.exchange.held

    @property
    def head(self) -> dict[str, str]:
        """The header fields, with names in lower case."""
        head, _ = self._parts()
        status, *lines = head.decode("latin-1").split("\r\n")
        assert status == "HTTP/1.1 200 OK"
        pairs = [line.split(": ", 1) for line in lines]
        return {name.lower(): value for name, value in pairs}

    @property
    def body(self) -> bytes:
        """What has been written, without the framing of chunks."""
        head, rest = self._parts()
        assert b"\r\ntransfer-encoding: chunked" in head.lower()
        body = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            assert rest[length : length + 2] == b"\r\n"
            body += rest[:length]
            rest = rest[length + 2 :]
            if not length:
                assert not rest
                assert self.ended()
        return body

    def _parts(self) -> tuple[bytes, bytes]:
        head, end, rest = self.exchange.client.transport.value().partition(b"\r\n\r\n")
        assert end, head
        return head, rest

    def events(self) -> list[Any]:
        """The documents of all events, without keep-alives and the opening.

        Each is made to look like a line of JSON.
        """
        if self.head["content-type"] == NDJSON:
            lines = [json.loads(line) for line in self.body.splitlines()]
            return [line for line in lines if line != {"keepalive": True}]
        blocks = self.body.decode().split("\n\n")
        assert blocks.pop() == ""
        found = []
        for block in blocks:
            if block.startswith((":", "retry: 2000\nid: ")):
                continue
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            document = json.loads(fields["data"])
            if fields["event"] in ("message", "change"):
                document = {"cursor": fields["id"], fields["event"]: document}
            elif fields["event"] == "error":
                document = {"error": document}
            else:
                assert document[fields["event"]] is True
            found.append(document)
        return found

    def texts(self) -> list[str]:
        """The texts of the messages."""
        return [event["message"]["message"] for event in self.events() if "message" in event]

    def keep_alives(self) -> int:
        """The number of keep-alives, without the one that opens lines of JSON."""
        if self.head["content-type"] == NDJSON:
            return self.body.count(b'{"keepalive":true}\n') - 1
        return self.body.count(b": keepalive\n\n")


def open_stream(user: User, accept: str = SSE, query: str = "?since=0", **headers: str) -> Stream:
    """A stream that is open."""
    stream = Stream(
        user.start_and_settle("GET", CHATS + query, headers={"Accept": accept, **headers})
    )
    assert stream.head["content-type"] == accept
    return stream


@pytest.fixture(params=[SSE, NDJSON])
def accept(request: pytest.FixtureRequest) -> str:
    """The media type."""
    value: str = request.param
    return value


def test_a_stream_writes_messages_as_they_are_sent(service: Service, accept: str) -> None:
    ann, bob = service.new_user(), service.new_user()
    first = bob.send(ann, "a")
    stream = open_stream(ann, accept)
    assert stream.head["cache-control"] == "no-store"
    assert stream.head["x-accel-buffering"] == "no"
    assert stream.head["x-request-id"]
    assert [event["message"] for event in stream.events()] == [first]
    second = bob.send(ann, "b")
    bob.send(bob, "for another")
    service.advance(3600)
    third = bob.send(ann, "c")
    assert [event["message"] for event in stream.events()] == [first, second, third]
    assert not stream.ended()
    for number, event in enumerate(stream.events(), 1):
        # Every cursor is the position after its message, for polls, too.
        later = ann.poll(f"?since={event['cursor']}")
        assert [each["seq"] for each in later["messages"]] == list(range(number + 1, 4))
    stream.exchange.disconnect()
    assert service.system.notifier.held == 0


def test_without_since_a_stream_is_from_now(service: Service, accept: str) -> None:
    ann = service.new_user()
    ann.send(ann, "before")
    streams = [open_stream(ann, accept, query) for query in ("", "?since=now", "?wait=5&limit=3")]
    ann.send(ann, "after")
    assert [stream.texts() for stream in streams] == [["after"]] * 3


def test_server_sent_events_begin_with_the_cursor(service: Service) -> None:
    ann = service.new_user()
    ann.send(ann)
    cursor = ann.poll("?since=0")["meta"]["cursor"]
    stream = open_stream(ann, SSE, "")
    assert stream.body == f"retry: 2000\nid: {cursor}\n\n".encode()


def test_lines_of_json_begin_with_a_keep_alive(service: Service) -> None:
    assert open_stream(service.new_user(), NDJSON, "").body == b'{"keepalive":true}\n'


def test_last_event_id_takes_precedence_over_since(service: Service, accept: str) -> None:
    ann = service.new_user()
    for text in "abc":
        ann.send(ann, text)
    cursor = ann.poll("?since=0&limit=2")["meta"]["cursor"]
    for query in ("", "?since=0", "?since=now"):
        assert open_stream(ann, accept, query, **{"Last-Event-ID": cursor}).texts() == ["c"]
    assert open_stream(ann, accept, "?since=0", **{"Last-Event-ID": ""}).texts() == ["a", "b", "c"]


def test_what_cannot_begin_is_an_ordinary_error(service: Service, accept: str) -> None:
    ann = service.new_user()

    def refused(query: str, status: int, code: str, **headers: Any) -> None:
        response = ann.get(CHATS + query, headers={"Accept": accept, **headers})
        response.problem(status, code)

    refused("?since=x", 400, "invalid_cursor")
    refused("", 400, "invalid_cursor", **{"Last-Event-ID": "x"})
    refused("", 400, "invalid_header", **{"Last-Event-ID": ["a", "b"]})
    refused("?limit=0", 400, "invalid_query")
    refused("?wait=x", 400, "invalid_query")
    for query in ("page=1", "at=aaaaaaaa-1", f"with={ann.id}", "before=1.1.1"):
        refused(f"?{query}", 400, "invalid_query")
    refused("?since=aaaaaaaaaaaaaaaa-0", 410, "cursor_epoch")
    service.get(CHATS, headers={"Accept": accept}).problem(401, "unauthorized")
    assert service.system.notifier.held == 0


@pytest.mark.parametrize("accepted", ["*/*", "application/json", "application/json, */*;q=0.1"])
def test_other_types_are_no_stream(service: Service, accepted: str) -> None:
    ann = service.new_user()
    assert ann.get(CHATS, headers={"Accept": accepted}).json["messages"] == []


def test_head_is_answered_at_once(service: Service, accept: str) -> None:
    response = service.new_user().request("HEAD", CHATS, headers={"Accept": accept})
    assert (response.status, response.header("Content-Type")) == (200, accept)
    assert response.body == b""
    assert service.system.notifier.held == 0


def test_a_keep_alive_is_written_every_15_seconds(service: Service, accept: str) -> None:
    ann = service.new_user()
    stream = open_stream(ann, accept)
    for number in range(1, 5):
        service.advance(10)
        assert stream.keep_alives() == number - 1
        service.advance(5)
        assert stream.keep_alives() == number
    stream.exchange.disconnect()
    service.advance(LAST_SEEN_FLUSH_SECONDS)
    assert not service.system.timers()


def test_a_draining_server_ends_streams(service: Service, accept: str) -> None:
    stream = open_stream(service.new_user(), accept)
    service.system.notifier.drain()
    assert stream.ended()
    assert stream.events() == [{"drain": True, "retry_after": RETRY_JITTER}]


def test_a_stream_of_a_draining_server_ends_at_once(service: Service, accept: str) -> None:
    ann = service.new_user()
    ann.send(ann, "a")
    service.system.notifier.drain()
    stream = open_stream(ann, accept)
    assert stream.ended()
    assert stream.texts() == ["a"]
    assert stream.events()[-1] == {"drain": True, "retry_after": RETRY_JITTER}


def test_beyond_max_polls_a_stream_ends_at_once(serve: Serve, accept: str) -> None:
    service = serve(OWN, max_held=1)
    ann, bob = service.new_user(), service.new_user()
    ann.send(bob, "a")
    held = open_stream(ann, accept)
    stream = open_stream(bob, accept)
    assert stream.ended()
    assert stream.texts() == ["a"]
    assert stream.events()[-1] == {"drain": True, "retry_after": 5}
    assert not held.ended()


def test_streams_and_polls_of_a_user_are_limited_together(service: Service, accept: str) -> None:
    ann = service.new_user()
    stream = open_stream(ann, accept)
    polls = [ann.wait() for _ in range(HELD_PER_USER - 1)]
    assert not stream.ended()
    open_stream(ann, accept)
    assert stream.ended()
    assert stream.events() == [{"superseded": True}]
    assert all(poll.held for poll in polls)
    open_stream(ann, accept)
    assert polls[0].response.json["meta"]["superseded"] is True


def test_a_revoked_token_ends_its_streams(service: Service, accept: str) -> None:
    ann = service.new_user("ann")
    stream, basic = open_stream(ann, accept), open_stream_basic(ann, accept)
    assert ann.request("DELETE", TOKENS).status == 204
    assert stream.ended()
    [event] = stream.events()
    assert (event["error"]["status"], event["error"]["code"]) == (401, "unauthorized")
    assert not basic.ended()
    assert ann.request("DELETE", USERS, auth=ann.basic).status == 204
    assert basic.ended()
    assert basic.events()[0]["error"]["code"] == "unauthorized"


def open_stream_basic(user: User, accept: str) -> Stream:
    """A stream that is authenticated by the password."""
    return Stream(user.start_and_settle("GET", CHATS, headers={"Accept": accept}, auth=user.basic))


def test_a_slow_reader_is_given_what_it_can_take(service: Service, accept: str) -> None:
    ann = service.new_user()
    stream = open_stream(ann, accept)
    transport: Any = stream.exchange.client.transport
    transport.producer.pauseProducing()
    for number in range(100):
        ann.send(ann, str(number))
    service.advance(20)
    assert stream.texts() == []
    assert stream.keep_alives() == 0
    transport.producer.resumeProducing()
    service.settle()
    assert stream.texts() == [str(number) for number in range(100)]
    ann.send(ann, "last")
    assert stream.texts()[-1] == "last"


def test_large_messages_are_written_in_pieces(serve: Serve, accept: str) -> None:
    """The transport pauses the response as soon as it has enough."""
    service = serve(OWN)
    ann = service.new_user()
    for number in range(20):
        ann.send(ann, f"{number} " + "x" * 16000)
    exchange = ann.start("GET", CHATS + "?since=0", headers={"Accept": accept})
    transport: Any = exchange.client.transport
    write = transport.write

    def pausing(data: bytes) -> None:
        write(data)
        if len(data) > 1000:
            transport.producer.pauseProducing()

    transport.write = pausing
    service.settle()
    stream = Stream(exchange)
    for _ in range(10):
        before = len(stream.body)
        transport.producer.resumeProducing()
        service.settle()
        assert len(stream.body) - before < WRITE_BYTES + 20_000
    assert [text.split()[0] for text in stream.texts()] == [str(number) for number in range(20)]


def test_a_client_that_never_reads_is_disconnected(serve: Serve, accept: str) -> None:
    service = serve(OWN)
    stream = open_stream(service.new_user(), accept)
    transport: Any = stream.exchange.client.transport
    transport.producer.pauseProducing()
    for _ in range(STALLED_KEEP_ALIVES - 1):
        service.advance(KEEP_ALIVE_SECONDS)
    assert not transport.disconnected
    service.advance(KEEP_ALIVE_SECONDS)
    assert transport.disconnected


def test_requests_after_a_stream_are_answered(serve: Serve) -> None:
    service = serve(OWN)
    ann = service.new_user()
    client = service.connect()
    auth = f"Authorization: {ann.bearer}"
    client.send(get(CHATS, auth, f"Accept: {SSE}") + get(USERS, auth))
    service.settle()
    assert b'"username"' not in client.transport.value()
    for _ in range(HELD_PER_USER):
        ann.wait()
    assert client.transport.value().count(b"HTTP/1.1 200 OK") == 2
    assert b'"username"' in client.transport.value()


def test_a_stream_counts_as_a_held_poll(service: Service, accept: str) -> None:
    ann = service.new_user()
    stream = open_stream(ann, accept)
    assert "\nchatd_polls_held 1.0\n" in service.get("/metrics", admin=True).body.decode()
    service.advance(7)
    stream.exchange.disconnect()
    metrics = service.get("/metrics", admin=True).body.decode()
    assert "\nchatd_polls_held 0.0\n" in metrics
    assert '\nchatd_polls_total{outcome="disconnect"} 1.0\n' in metrics
    assert "\nchatd_poll_hold_seconds_sum 7.0\n" in metrics


def test_http_1_0_ends_with_the_connection(serve: Serve) -> None:
    service = serve(OWN)
    ann = service.new_user()
    client = service.connect()
    client.send(get(CHATS, f"Authorization: {ann.bearer}", f"Accept: {SSE}", version="1.0"))
    service.settle()
    ann.send(ann, "hai")
    service.system.notifier.drain()
    value = client.transport.value()
    assert b"transfer-encoding" not in value.lower()
    assert value.count(b"\nevent: ") == 2
    assert client.closed()


def test_a_keep_alive_that_fails_does_not_end_those_of_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    service = serve(OWN)
    ann, bob = service.new_user(), service.new_user()
    broken, stream = open_stream(ann), open_stream(bob)
    request: Any = broken.exchange.client.channel
    monkeypatch.setattr(request._request, "write", lambda data: 1 / 0)
    for _ in range(3):
        service.advance(15)
    assert stream.keep_alives() == 3
    assert len(logged_failures.flush(ZeroDivisionError)) == 3
