"""What a request has brought along is not kept while it is held."""

from __future__ import annotations

from typing import Any

import pytest

from chatd.http.request import Request
from tests.api.service import CHATS, OWN, TOKENS, USERS, Exchange, Serve, Service, User
from tests.doubles import SteppedExecutor

BODY = b" " * 100_000
POLL = f"{CHATS}?since=now&wait=30"
JSON: dict[str, Any] = {"Content-Type": "application/json"}


def kept(exchange: Exchange) -> tuple[int, int]:
    """How much of its body a request has that waits, and how much its server counts."""
    channel: Any = exchange.client.channel
    request = channel._request
    body = request.body if isinstance(request, Request) else b""
    return len(body), channel._server.received.total


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
@pytest.mark.parametrize("fast", [False, True])
def test_the_body_of_a_poll_is_forgotten_at_once(serve: Serve, accept: str, fast: bool) -> None:
    service = serve(OWN)
    if not fast:
        service.fast_path = None
    ann = service.new_user()
    exchange = ann.start_and_settle("GET", POLL, body=BODY, headers={**JSON, "Accept": accept})
    assert exchange.held
    assert kept(exchange) == (0, 0)
    exchange.disconnect()
    plain = ann.start_and_settle("GET", CHATS).response
    assert ann.request("GET", CHATS, body=BODY, headers=JSON).json == plain.json


def test_the_body_of_a_call_that_declares_none_is_forgotten_before_the_token_is_known(
    serve: Serve,
) -> None:
    service = serve(OWN, worker=SteppedExecutor)
    exchange = service.start("GET", POLL, body=BODY, headers=JSON, auth="Bearer unknown")
    assert exchange.held
    assert kept(exchange) == (0, 0)
    service.settle()
    exchange.response.problem(401, "unauthorized")


def test_a_body_is_counted_until_it_is_decoded(serve: Serve) -> None:
    service = serve(OWN, worker=SteppedExecutor)
    body = b'{"user_id":1,"message":"x"}' + BODY
    exchange = service.start("POST", CHATS, body=body, headers=JSON, auth="Bearer unknown")
    assert exchange.held
    assert kept(exchange) == (len(body), len(body))
    service.settle()
    exchange.response.problem(401, "unauthorized")
    channel: Any = exchange.client.channel
    assert channel._server.received.total == 0


def log_in(service: Service, ann: User) -> Exchange:
    body = b'{"username":"ann","password":"password"}' + BODY
    return service.start("POST", TOKENS, body=body, headers=JSON)


def register(service: Service, ann: User) -> Exchange:
    body = b'{"username":"bob","email":"b@example.org","password":"password"}' + BODY
    return service.start("POST", USERS, body=body, headers=JSON)


def send(service: Service, ann: User) -> Exchange:
    body = b'{"user_id":%d,"message":"x"}' % ann.id + BODY
    return ann.start("POST", CHATS, body=body, headers=JSON)


def edit(service: Service, ann: User) -> Exchange:
    body = b'{"user_id":%d,"seq":1,"message":"y"}' % ann.id + BODY
    return ann.start("PATCH", CHATS, body=body, headers=JSON)


def send_and_wait(service: Service, ann: User) -> Exchange:
    body = b'{"user_id":%d,"message":"x"}' % ann.id + BODY
    return ann.start("POST", f"{CHATS}?wait_for=read&wait=1", body=body, headers=JSON)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("begin", [log_in, register, send, edit, send_and_wait])
def test_a_decoded_body_is_forgotten_while_the_call_waits(
    serve: Serve, begin: Any, fast: bool
) -> None:
    service = serve(OWN, worker=SteppedExecutor)
    if not fast:
        service.fast_path = None
    ann = service.new_user("ann")
    ann.send(ann)
    exchange = begin(service, ann)
    assert exchange.held
    assert kept(exchange) == (0, 0)
    service.settle()
    service.advance(1)
    assert exchange.response.status in (200, 201, 204)
