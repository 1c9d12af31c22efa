"""The fast path answers as the ordinary way does, byte for byte, or leaves the request to it."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from chatd.api.chats_read import ReadCalls
from chatd.api.chats_send import SendCalls
from chatd.api.context import RequestContext
from chatd.api.fast_path import UNUSUAL, Caller, understand
from chatd.api.pending_requests import PendingPoll
from chatd.api.stream_writer import StreamWriter
from chatd.domain.message_stream import MessageStream
from chatd.domain.notifier import HELD_PER_USER
from chatd.domain.poll import Poll
from chatd.domain.rate_limits import Rates
from chatd.http.request import Request
from chatd.http.request_headers import HeaderBlock
from chatd.model import Scope, TokenOptions, WakeReason
from chatd.rates import Rate
from tests.api.service import CHATS, OWN, TOKENS, Serve, Service, serving
from tests.conftest import LoggedFailures
from tests.doubles import SteppedExecutor, scratch
from tests.examples import examples
from tests.http.raw_client import RawClient

HOST = "Host: chat.example"
BEARER = "Authorization: Bearer {token}"
JSON = "Content-Type: application/json"

QUERIES = [
    *("", "?", "?since=0", "?since=now", "?since={epoch}-1", "?since={epoch}-99", "?since=x"),
    *("?since=aaaaaaaaaaaaaaaa-1", "?since={epoch}-3&wait=5", "?wait=5&since={epoch}-3", "?wait=5"),
    *("?since=now&wait=0", "?wait=0.25", "?wait=600&since=0", "?wait=600&since=now", "?wait=-1"),
    *("?limit=1&since=0", "?limit=0", "?since=0&limit=1000", "?since=0&limit=2&wait=3&x=y"),
    *("?since=0&since=0", "?since=%30", "?since=0&wait=%31", "?since=+0", "?SINCE=0", "?since"),
    *("?page=1", "?page=2", "?page=1&limit=2", "?page=2&limit=2", "?page=9", "?page=0", "?page=x"),
    *("?at={epoch}-2", "?at={epoch}-2&page=1", "?at={epoch}-99", "?at=x", "?page=1&since=0"),
    *("?with={user}", "?with=1&since=0", "?before=1.1.1", "?with=99", "?nothing=1", "?page=%ff"),
]
"""Queries for an inbox with three messages."""

HEADERS = [
    [BEARER],
    ["authorization: bearer {token}"],
    ["AUTHORIZATION:Bearer   {token}"],
    [BEARER, "Accept: */*", "User-Agent: x"],
    [BEARER, "Accept: application/json"],
    [BEARER, "Accept: application/json, text/event-stream"],
    [BEARER, "Prefer: wait=2"],
    [BEARER, "X-Request-ID: mine"],
    [BEARER, "X-Request-ID: not mine!"],
    [BEARER, "Connection: close"],
    [BEARER, "Connection: keep-alive"],
    [BEARER, "Connection: Upgrade", "Upgrade: h2c"],
    [BEARER, "Upgrade: websocket"],
    [BEARER, "Cookie: a=b", "X-Forwarded-For: 192.0.2.1"],
    [BEARER, JSON],
    [BEARER, BEARER],
    [BEARER, JSON, JSON],
    [BEARER, "Idempotency-Key: one", "idempotency-key: one"],
    [BEARER, "X-Request-ID: one", "X-Request-ID: two"],
    [BEARER, "Prefer: wait=1", "Prefer: wait=2"],
    [BEARER, "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"],
    [BEARER, "Authorization: Basic {basic}"],
    ["Authorization: Basic {basic}"],
    ["Authorization: Bearer wrong"],
    ["Authorization: Bearer"],
    ["Authorization:"],
    [],
    [BEARER, "Last-Event-ID: {epoch}-1"],
]

BODIES = [
    '{{"user_id": {user}, "message": "hai"}}',
    '{{"message": "h\\u00e9\\ud83d\\ude00", "user_id": {user}}}',
    '{{"user_id": {user}, "message": "{long}"}}',
    '{{"user_id": {user}, "message": "{longer}"}}',
    '{{"user_id": 99, "message": "hai"}}',
    '{{"user_id": "{user}", "message": "hai"}}',
    '{{"user_id": true, "message": "hai"}}',
    '{{"user_id": 1.0, "message": "hai"}}',
    '{{"user_id": {user}, "message": " "}}',
    '{{"user_id": {user}, "message": ""}}',
    '{{"user_id": {user}, "message": "a\\u0000"}}',
    '{{"user_id": {user}, "message": "\\ud800"}}',
    '{{"user_id": {user}}}',
    '{{"user_id": {user}, "message": "hai", "more": 1}}',
    '{{"user_id": 99, "message": "hai", "user_id": {user}}}',
    '{{"user_id": {user}, "message": "hai", "mess\\u0061ge": "bye"}}',
    '{{"user_id": {user}, "message": "http://a.example/ and: \\"b\\": c"}}',
    '{{"user_id": {user}, "message": "hai"',
    "[]",
    "",
]

SEND_HEADERS = [
    [BEARER, JSON],
    [BEARER, "Content-Type: application/json; charset=utf-8"],
    [BEARER, "content-type: Application/JSON"],
    [BEARER, "Content-Type: text/plain"],
    [BEARER],
    [BEARER, JSON, JSON],
    [BEARER, JSON, "Idempotency-Key: one"],
    [BEARER, "idempotency-key:two ", JSON],
    [BEARER, JSON, "Idempotency-Key:"],
    [BEARER, JSON, "Idempotency-Key: a b"],
    [BEARER, JSON, f"Idempotency-Key: {'x' * 255}"],
    [BEARER, JSON, f"Idempotency-Key: {'x' * 256}"],
    [BEARER, JSON, "Idempotency-Key: one", "Idempotency-Key: one"],
    [BEARER, JSON, "Expect: 100-continue"],
    [BEARER, JSON, "Connection: close"],
    ["Authorization: Bearer wrong", JSON],
    ["Authorization: Basic {basic}", JSON],
]


class Side:
    """A service with one user and three messages, and what it answers."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.user = service.new_user("ann")
        for text in "abc":
            self.user.send(self.user, text)
        self.names = {
            "token": self.user.bearer.removeprefix("Bearer "),
            "basic": self.user.basic.removeprefix("Basic "),
            "epoch": service.system.store.epoch,
            "user": str(self.user.id),
            "long": "x" * 16_384,
            "longer": "x" * 16_385,
        }
        # Known to the cache, as those of clients that are there already are.
        self.answer([self.request("GET", "", [BEARER])])

    def request(
        self, method: str, query: str, headers: list[str], body: str = "", version: str = "1.1"
    ) -> bytes:
        """The bytes of a request."""
        content = body.format_map(self.names).encode()
        lines = [f"{method} {CHATS}{query} HTTP/{version}", HOST, *headers]
        if content or method == "POST":
            lines.append(f"Content-Length: {len(content)}")
        return "\r\n".join([*lines, "", ""]).format_map(self.names).encode() + content

    def answer(self, requests: list[bytes], step: int = 0) -> bytes:
        """What is answered on one connection, held polls included, without what differs."""
        client = self.service.connect()
        for request in requests:
            client.send(request, step)
            self.service.settle()
        while self.service.system.notifier.held:
            self.service.advance(5)
        received = client.transport.value()
        closed = client.closed()
        client.disconnect()
        self.service.settle()
        assert self.service.system.notifier.held == 0
        return self._without_differences(received) + (b"closed" if closed else b"open")

    def _without_differences(self, received: bytes) -> bytes:
        received = received.replace(self.names["epoch"].encode(), b"EPOCH")
        received = re.sub(rb"(?i)(x-request-id): [0-9a-f]{12}-\d+\r\n", rb"\1: ID\r\n", received)
        received = re.sub(rb"names this request: [0-9a-f]{12}-\d+", b"ID", received)
        return re.sub(rb"\r\nDate: [^\r]*", b"", received)

    def metrics(self) -> list[str]:
        """The counts of requests and polls."""
        text = self.service.get("/metrics", admin=True).body.decode()
        names = ("chatd_requests_total{", "chatd_polls_total{", "chatd_poll_hold", "chatd_request_")
        return [line for line in text.splitlines() if line.startswith(names)]


class Both:
    """The same requests on the fast path and without it."""

    def __init__(self, fast: Service, ordinary: Service) -> None:
        ordinary.fast_path = None
        self.fast, self.ordinary = Side(fast), Side(ordinary)
        self.taken = 0
        path: Any = fast.fast_path

        def count(*arguments: Any) -> bool:
            taken = path(*arguments)
            self.taken += taken
            return bool(taken)

        fast.fast_path = count  # type: ignore[assignment]

    def check(self, *requests: tuple[Any, ...], step: int = 0) -> bytes:
        """Check that both answer alike; returns the answer."""
        answers = [
            side.answer([side.request(*request) for request in requests], step)
            for side in (self.fast, self.ordinary)
        ]
        assert answers[0] == answers[1]
        return answers[0]


@contextmanager
def both(folder: Path, **options: Any) -> Iterator[Both]:
    """Two services with the same accounts and messages."""
    for name in ("fast", "ordinary"):
        (folder / name).mkdir()
    with (
        serving(folder / "fast", OWN, **options) as fast,
        serving(folder / "ordinary", OWN, **options) as ordinary,
    ):
        yield Both(fast, ordinary)


def test_reads_are_answered_alike(tmp_path: Path) -> None:
    with both(tmp_path) as sides:
        for query in QUERIES:
            before = sides.taken
            answer = sides.check(("GET", query, [BEARER]))
            if b" 200 OK" in answer and "with=" not in query:
                assert sides.taken == before + 1, query
        assert sides.fast.metrics() == sides.ordinary.metrics()


def test_headers_are_understood_alike(tmp_path: Path) -> None:
    with both(tmp_path) as sides:
        for headers in HEADERS:
            for query in ("", "?since=0", "?since={epoch}-3&wait=1"):
                for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
                    sides.check((method, query, headers))
                sides.check(("GET", query, headers, "", "1.0"))
                sides.check(("GET", query, headers, "body"))
        assert sides.fast.metrics() == sides.ordinary.metrics()


def test_revised_messages_and_blocks_are_answered_alike(tmp_path: Path) -> None:
    keyed = ("POST", "", [BEARER, JSON, "Idempotency-Key: one"], BODIES[0])
    with both(tmp_path) as sides:
        sides.check(keyed)
        for side in (sides.fast, sides.ordinary):
            user = side.user
            bob = side.service.new_user("bob")
            bob.request("PUT", "/api/v1/blocks/", json_body={"user_id": user.id})
            for seq in (2, 4):
                body = {"user_id": user.id, "seq": seq, "message": "new"}
                assert user.request("PATCH", CHATS, json_body=body).status == 200
            assert user.request("DELETE", f"{CHATS}?user_id={user.id}&seq=3").status == 204
        for query in ("", "?since=0", "?since={epoch}-1&wait=1", "?page=2&limit=1"):
            before = sides.taken
            sides.check(("GET", query, [BEARER]))
            answer = sides.check(("GET", query, [BEARER]))
            assert b'"deleted_at":' in answer
            # The first read fills the cache.
            assert sides.taken > before
        assert b'"edited_at":' in sides.check(keyed)
        answer = sides.check(("POST", "", [BEARER, JSON], '{{"user_id": 2, "message": "x"}}'))
        assert b'"code":"blocked"' in answer
        assert sides.fast.metrics() == sides.ordinary.metrics()


def test_sends_are_answered_alike(tmp_path: Path) -> None:
    with both(tmp_path) as sides:
        for body in BODIES:
            before = sides.taken
            answer = sides.check(("POST", "", [BEARER, JSON], body))
            assert sides.taken > before or b" 400 " in answer
        for headers in SEND_HEADERS:
            sides.check(("POST", "", headers, BODIES[0]))
            sides.check(("POST", "?x=y", headers, BODIES[0]))
            sides.check(("POST", "", headers, BODIES[0], "1.0"))
        assert sides.fast.metrics() == sides.ordinary.metrics()


@pytest.mark.parametrize("scope", list(Scope))
def test_tokens_of_one_scope_are_answered_alike(tmp_path: Path, scope: Scope) -> None:
    with both(tmp_path) as sides:
        for side in (sides.fast, sides.ordinary):
            log_in = side.service.system.accounts.log_in
            options = TokenOptions(scopes=scope)
            issued = side.service.system.run(log_in("ann", "password", "192.0.2.1", options))
            side.names["token"] = issued.token
            side.answer([side.request("GET", "", [BEARER])])
        requests: dict[Scope, list[tuple[Any, ...]]] = {
            Scope.READ: [("GET", "", [BEARER]), ("GET", "?since={epoch}-3&wait=1", [BEARER])],
            Scope.SEND: [("POST", "", [BEARER, JSON], BODIES[0])],
        }
        for needed, each in requests.items():
            for request in each:
                before = sides.taken
                answer = sides.check(request)
                assert (b" 403 " in answer) is (needed != scope)
                assert sides.taken == before + (needed == scope)


def test_a_token_that_expires_is_answered_alike(tmp_path: Path) -> None:
    with both(tmp_path) as sides:
        for side in (sides.fast, sides.ordinary):
            log_in = side.service.system.accounts.log_in
            options = TokenOptions(lifetime=60_000_000)
            issued = side.service.system.run(log_in("ann", "password", "192.0.2.1", options))
            side.names["token"] = issued.token
            side.answer([side.request("GET", "", [BEARER])])
            side.service.advance(50)
        answer = sides.check(("GET", "?since={epoch}-3&wait=30", [BEARER]))
        assert b" 401 " in answer
        assert sides.taken == 1
        assert b" 401 " in sides.check(("GET", "", [BEARER]))
        assert sides.taken == 1


def test_pipelined_requests_are_answered_alike(tmp_path: Path) -> None:
    requests = [
        ("GET", "?since=0", [BEARER]),
        ("GET", "?since={epoch}-3&wait=2", [BEARER]),
        ("GET", "", [BEARER]),
        ("POST", "", [BEARER, JSON], BODIES[0]),
        ("POST", "", [BEARER, JSON], BODIES[0]),
        ("GET", "?since=x", [BEARER]),
        ("GET", "?since={epoch}-4", [BEARER]),
        ("GET", "", [BEARER, "Connection: close"]),
        ("GET", "", [BEARER]),
    ]
    with both(tmp_path) as sides:
        for step in (0, 1, 7):
            sides.check(*requests, step=step)
        assert sides.taken


def test_sends_with_keys_are_answered_alike(tmp_path: Path) -> None:
    one, two = [BEARER, JSON, "Idempotency-Key: one"], [BEARER, JSON, "Idempotency-Key: two-2"]
    with both(tmp_path) as sides:
        answer = sides.check(
            ("POST", "", one, BODIES[0]),
            ("POST", "", one, BODIES[0]),
            ("POST", "", two, BODIES[1]),
            ("POST", "", two, BODIES[0]),
            ("POST", "", one, BODIES[0]),
        )
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"201", b"200", b"201", b"422", b"200"]
        assert answer.count(b"Idempotency-Replayed: true") == 2
        assert sides.taken == 5


def test_sends_beyond_the_rate_are_answered_alike(tmp_path: Path) -> None:
    with both(tmp_path, rates=Rates(send=Rate(5, 0.001))) as sides:
        answers = [sides.check(("POST", "", [BEARER, JSON], BODIES[0])) for _ in range(4)]
        assert [b" 429 " in answer for answer in answers] == [False, False, True, True]
        assert sides.taken == 4


def test_the_access_log_has_the_same_lines(tmp_path: Path) -> None:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "chatd.access":
            lines.append(re.sub("request=[0-9a-f]{12}-[0-9]+", "request=ID", formatEvent(event)))

    with both(tmp_path, access_log=True) as sides:
        lines.clear()
        globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
        try:
            for request in (
                ("GET", "?since=0", [BEARER]),
                ("GET", "?since={epoch}-3&wait=2", [BEARER]),
                ("GET", "", [BEARER]),
                ("POST", "", [BEARER, JSON], BODIES[0]),
                ("POST", "", [BEARER, JSON], BODIES[4]),
            ):
                sides.check(request)
                fast, ordinary = lines
                assert fast == ordinary
                lines.clear()
        finally:
            globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]
        assert sides.taken == 5


def held(service: Service, user: Any, query: str = "?since=now&wait=30") -> RawClient:
    client = service.connect()
    head = f"GET {CHATS}{query} HTTP/1.1\r\n{HOST}\r\nAuthorization: {user.bearer}\r\n\r\n"
    client.send(head.encode())
    service.settle()
    return client


@pytest.mark.parametrize("fast", [True, False])
def test_held_polls_end_alike(serve: Serve, fast: bool) -> None:
    service = serve(OWN)
    if not fast:
        service.fast_path = None
    ann = service.new_user()
    ann.page()
    # Superseded.
    polls = [held(service, ann) for _ in range(HELD_PER_USER + 1)]
    assert json.loads(polls[0].response().body)["meta"]["superseded"] is True
    # Disconnected.
    polls[1].disconnect()
    assert service.system.notifier.held == HELD_PER_USER - 1
    # Revoked.
    assert ann.request("DELETE", TOKENS).status == 204
    response = polls[2].response()
    assert (response.status, response.code) == (401, "unauthorized")
    assert response.header("WWW-Authenticate") == 'Bearer realm="chatd", error="invalid_token"'
    assert service.system.notifier.held == 0
    # Drained.
    bob = service.new_user()
    bob.page()
    poll = held(service, bob)
    service.system.notifier.drain()
    response = poll.response()
    assert (response.status, response.header("Connection")) == (200, "close")
    assert response.header("Retry-After") == "3"


@pytest.mark.parametrize("fast", [True, False])
def test_a_client_that_disconnects_during_its_send(serve: Serve, fast: bool) -> None:
    service = serve(OWN, worker=SteppedExecutor)
    if not fast:
        service.fast_path = None
    ann = service.new_user()
    ann.page()
    sent = ann.start("POST", CHATS, json_body={"user_id": ann.id, "message": "x"})
    sent.disconnect()
    service.settle()
    assert [each["message"] for each in ann.page()["messages"]] == ["x"]
    metrics = service.get("/metrics", admin=True).body.decode()
    line = '\nchatd_requests_total{method="POST",route="send",status="499"} 1.0\n'
    assert line in metrics


@pytest.mark.parametrize("fast", [True, False])
def test_a_response_that_cannot_be_made_is_a_500(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures, fast: bool
) -> None:
    service = serve(OWN)
    if not fast:
        service.fast_path = None
    ann = service.new_user()
    ann.page()
    poll = held(service, ann)

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ReadCalls, "poll_response", broken)
    monkeypatch.setattr(SendCalls, "response", broken)
    sent = ann.post(CHATS, {"user_id": ann.id, "message": "x"})
    for response in (sent, poll.response()):
        assert response.status == 500
    assert len(logged_failures.flush(ZeroDivisionError)) == 2


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_what_has_ended_leaves_no_reference_cycles(serve: Serve, fast: bool, accept: str) -> None:
    """The daemon collects garbage rarely, because that stops it."""
    service = serve(OWN, read_cached=False, worker=SteppedExecutor)
    if not fast:
        service.fast_path = None
    ann = service.new_user()

    def ended() -> None:
        past_the_end = f"?since={service.system.store.epoch}-99&wait=1"
        for query in ("?since=now&wait=1", "?since=0&wait=1", past_the_end):
            polls = [
                ann.start_and_settle("GET", CHATS + query, headers={"Accept": accept})
                for _ in range(HELD_PER_USER + 1)
            ]
            ann.send(ann)
            for poll in polls:
                if poll.held:
                    poll.disconnect()

    ended()
    gc.collect()
    gc.disable()
    try:
        ended()
        # Connections in memory and their transports refer to each other.
        found = collected(Poll, PendingPoll, MessageStream, StreamWriter, Request, RequestContext)
    finally:
        gc.enable()
    assert found == []


def collected(*types: type) -> list[object]:
    """The objects of these types that only a garbage collection finds."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return [each for each in gc.garbage if isinstance(each, types)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_an_unknown_token_is_looked_up_the_ordinary_way(serve: Serve) -> None:
    service = serve(OWN)
    ann = service.new_user()
    service.system.accounts.clear_cache()
    assert ann.page()["messages"] == []


def test_a_draining_server_is_answered_the_ordinary_way(serve: Serve) -> None:
    service = serve(OWN)
    ann = service.new_user()
    ann.page()
    client = service.connect()
    server: Any = client.server
    server.drain()
    head = f"GET {CHATS} HTTP/1.1\r\n{HOST}\r\nAuthorization: {ann.bearer}\r\n\r\n"
    client.send(head.encode())
    assert client.response().header("Connection") == "close"
    # A poll that was held before.
    other = held(service, ann)
    other.server.state.draining = True
    service.system.subscriber.wake([ann.id])
    service.system.notifier._waiters[ann.id][0].wake(WakeReason.TIMEOUT)
    assert other.response().header("Connection") == "close"


@pytest.mark.parametrize(
    ("lines", "understood"),
    [
        (["Authorization: Bearer x"], True),
        (["authorization:bearer x"], True),
        (["Authorization: Basic x"], False),
        (["Authorization: Bearer"], False),
        ([], False),
        (["Authorization: Bearer x", "Authorization: Bearer x"], False),
        (["Authorization: Bearer x", "Content-Type: a", "Content-Type: a"], False),
        (["Authorization: Bearer x", "Prefer: wait=1"], False),
        (["Authorization: Bearer x", "X-Request-ID: 1"], False),
        (["Authorization: Bearer x", "Idempotency-Key: 1"], True),
        (["Authorization: Bearer x", "Last-Event-ID: 1"], False),
        (["Authorization: Bearer x", "Accept: text/event-stream"], False),
        (["Authorization: Bearer x", "Accept: application/x-ndjson"], False),
        (["Authorization: Bearer x", "Accept: */*"], True),
        (["Authorization: Bearer x", "Transfer-Encoding: chunked"], False),
        (["Authorization: Bearer x", "Expect: 100-continue"], False),
        (["Authorization: Bearer x", "Connection: close"], False),
    ],
)
def test_what_is_unusual(lines: list[str], understood: bool) -> None:
    block = HeaderBlock("\r\n".join(["", HOST, *lines, "", ""]).encode())
    found = understand(block)
    assert isinstance(found, Caller) if understood else found is UNUSUAL


header_lines = st.sampled_from(
    sorted({line for headers in [*HEADERS, *SEND_HEADERS] for line in headers})
)
parameters = st.tuples(
    st.sampled_from(["since", "wait", "limit", "page", "at", "with", "before", "wiat", "x", ""]),
    st.sampled_from(
        ["0", "now", "1", "2", "{epoch}-1", "{epoch}-3", "{epoch}-9", "0.5", "%31", "x", "", "-1"]
    ),
).map("=".join)
request = st.tuples(
    st.sampled_from(["GET", "GET", "GET", "POST", "POST", "HEAD", "PUT"]),
    st.lists(parameters, max_size=4).map(lambda each: "?" + "&".join(each) if each else ""),
    st.lists(header_lines, max_size=4),
    st.sampled_from(["", *BODIES]),
    st.sampled_from(["1.1", "1.1", "1.1", "1.0"]),
)


@settings(max_examples=examples(15, deep=60))
@given(st.lists(st.lists(request, min_size=1, max_size=4), min_size=1, max_size=8))
def test_any_requests_are_answered_alike(connections: list[list[Any]]) -> None:
    with scratch() as folder, both(folder) as sides:
        for requests in connections:
            sides.check(*requests)
        assert sides.fast.metrics() == sides.ordinary.metrics()
