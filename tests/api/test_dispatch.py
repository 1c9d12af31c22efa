"""Dispatch through the route table and through Klein, and the other duties of the root resource."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from klein import Response
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.api.calls import bind, call, calls_of, routes
from chatd.api.dispatch import Dispatch
from chatd.errors import PageNotFound
from chatd.metrics import Metrics
from tests.api.service import CHATS, FRONTS, SERVERS, USERS, Serve, Service, ServiceResponse, User
from tests.conftest import LoggedFailures
from tests.examples import examples
from tests.http.raw_client import RawClient, get


def klein_only(service: Service) -> Service:
    """Send every request of the service through Klein."""
    for dispatch in (service.resource, service.admin):
        dispatch._table.clear()
        dispatch._methods.clear()
        dispatch._prefixes = (b"",)
    return service


def essence(response: ServiceResponse) -> tuple[int, list[tuple[bytes, Any]], bytes]:
    """The response without its Date."""
    headers = [
        (name, values)
        for name, values in sorted(response.headers.getAllRawHeaders())
        if name.lower() != b"date"
    ]
    return response.status, headers, response.body


def every_route(service: Service, admin: bool) -> Iterator[tuple[str, str]]:
    app = (service.admin if admin else service.resource)._app
    for rule in app.url_map.iter_rules():
        if rule.arguments:
            # Only Klein finds them.
            continue
        for method in sorted({*(rule.methods or ()), "OPTIONS", "PUT", "GET", "DELETE"}):
            yield method, rule.rule
            yield method, rule.rule + "/"


GIVEN: list[dict[str, Any]] = [
    {},
    {"auth": "Bearer wrong"},
    {"auth": "Basic !"},
    {"json_body": {}},
    {"json_body": {"user_id": 1, "message": "x"}},
    {"json_body": {"username": "cat", "email": "c@c", "password": "zzzzz"}},
    {"json_body": {"username": "ann", "password": "password"}},
    {"body": b"{}", "headers": {"Content-Type": "text/plain"}},
]
STEP = examples(4, deep=1)
"""There are 15 cases, so that each is taken with every fourth route."""
QUERIES = ["", "?page=0", "?page=9", "?user_id=1", "?user_id=x", "?since=0", "?since=x&wait=3"]


@pytest.mark.parametrize("front", SERVERS)
@pytest.mark.parametrize("admin", [False, True])
def test_the_route_table_and_klein_respond_alike(serve: Serve, front: str, admin: bool) -> None:
    table, klein = serve(front), klein_only(serve(front))
    # Each database has its own epoch; here, only the route to the handler may differ.
    klein.system.store.epoch = table.system.store.epoch
    count = 0
    users: list[User] = []
    cases = [*((options, "") for options in GIVEN), *(({}, query) for query in QUERIES)]
    every = itertools.product(sorted(set(every_route(table, admin))), cases)
    # All routes and all cases, but not all pairs of them.
    for (method, path), (options, query) in itertools.islice(every, 0, None, STEP):
        if "metrics" in path:
            continue
        count += 1
        if not users:
            users = [service.new_user(f"u{count}") for service in (table, klein)]
        responses = []
        for service, user in zip((table, klein), users, strict=True):
            arguments = {"headers": {}, "auth": user.bearer, **options}
            arguments["headers"] = {**arguments["headers"], "X-Request-ID": "same"}
            if method == "POST" and "body" in options:
                arguments["headers"] = {"X-Request-ID": "same", **options["headers"]}
            responses.append(service.request(method, path + query, admin=admin, **arguments))
        if method == "DELETE":
            # Their account or token is gone.
            users = []
        first, second = responses
        tokens = re.compile(rb"chatd_[0-9]+\.[A-Za-z0-9_-]{43}")
        assert first.status == second.status, (method, path, query, options)
        assert tokens.sub(b"", first.body) == tokens.sub(b"", second.body)
        assert essence(first)[1] == essence(second)[1], (method, path, query, options)
        if count % 8:
            continue
        for service in (table, klein):
            service.clock.advance(1)
            service.settle()
    assert count > 100 // STEP


@pytest.mark.parametrize("front", FRONTS)
def test_the_route_table_and_klein_hold_and_end_polls_alike(serve: Serve, front: str) -> None:
    outcomes = []
    for service in (serve(front), klein_only(serve(front))):
        ann, bob = service.new_user("ann"), service.new_user("bob")
        answered, timed, disconnected, ended = (ann.wait("?since=now&wait=9") for _ in range(4))
        disconnected.disconnect()
        assert service.system.notifier.held == 3
        service.advance(1)
        bob.send(ann)
        assert [answered.response.status, timed.response.status, ended.response.status] == [200] * 3
        late = ann.wait("?since=now&wait=9")
        revoked = ann.wait("?since=now&wait=19")
        service.advance(9)
        ann.request("DELETE", USERS, auth=ann.basic)
        outcomes.append([json.loads(each.response.body) for each in (answered, late, revoked)])
        assert service.system.notifier.held == 0
        for document in outcomes[-1][:2]:
            document["meta"].pop("cursor")
    assert outcomes[0] == outcomes[1]


class OddCalls:
    """Calls that the daemon does not have."""

    def __init__(self) -> None:
        self.waiting: Deferred[Response] = Deferred()
        self.seen: list[str] = []

    @call("GET", "/plain", summary="", responses={})
    async def plain(self, context: Any) -> Response:
        return Response(200, {"X-Two": ["a", "b"], "Content-Type": "text/x"}, b"plain")

    @call("GET", "/waits", summary="", responses={})
    async def waits(self, context: Any) -> Response:
        return await self.waiting

    @call("GET", "/waits/often", summary="", responses={})
    async def waits_often(self, context: Any) -> Response:
        for number in range(3):
            ready: Deferred[int] = Deferred()
            ready.callback(number)
            self.seen.append(str(await ready))
        try:
            await self.waiting
        except ValueError as wrong:
            self.seen.append(str(wrong))
        return Response(200, {}, ",".join(self.seen).encode())

    @call("GET", "/refuses", summary="", responses={})
    async def refuses(self, context: Any) -> Response:
        raise PageNotFound("at once")

    @call("GET", "/named/<name>", summary="", responses={})
    async def named(self, context: Any) -> Response:
        if context.path_arguments["name"] == "nobody":
            raise PageNotFound("nobody")
        return Response(200, {}, context.path_arguments["name"].encode())


class Odd:
    """The application of these calls."""

    calls = calls_of(OddCalls)
    app = routes(calls)

    def __init__(self, owner: OddCalls) -> None:
        self.handlers = bind(None, owner)


class Site:
    """`Odd` behind a dispatch, in memory."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.odd = OddCalls()
        self.metrics = Metrics()
        self.dispatch = Dispatch(Odd(self.odd), clock=self.clock, metrics=self.metrics)

    def request(self, path: str, method: str = "GET") -> RawClient:
        client = RawClient(resource=self.dispatch)
        client.send(get(path, method=method))
        return client


def test_a_header_may_have_several_values() -> None:
    response = Site().request("/plain").response()
    assert [value for name, value in response.headers if name == "X-Two"] == ["a", "b"]
    assert (response.status, response.body) == (200, b"plain")


def test_a_handler_may_wait() -> None:
    site = Site()
    client = site.request("/waits")
    assert client.responses() == []
    site.odd.waiting.callback(Response(201, {}, b"late"))
    assert (client.response().status, client.response().body) == (201, b"late")


def test_a_handler_may_await_fired_and_failing_deferreds() -> None:
    site = Site()
    client = site.request("/waits/often")
    site.odd.waiting.errback(ValueError("no"))
    assert client.response().body == b"0,1,2,no"


def test_a_handler_that_fails_is_answered_with_a_problem() -> None:
    refused, missing = Site().request("/refuses").response(), Site().request("/none").response()
    assert (refused.code, missing.code) == ("page_not_found", "not_found")
    site = Site()
    client = site.request("/waits")
    site.odd.waiting.errback(PageNotFound("late"))
    assert (client.response().status, client.response().code) == (404, "page_not_found")


def test_a_handler_may_have_path_arguments() -> None:
    assert Site().request("/named/%C3%A9").response().body == "é".encode()
    assert Site().request("/named/nobody").response().code == "page_not_found"


def test_a_handler_is_cancelled_when_its_client_disconnects() -> None:
    site = Site()
    cancelled: list[object] = []
    site.odd.waiting = Deferred(cancelled.append)
    site.request("/waits").disconnect()
    assert len(cancelled) == 1
    assert b'status="499"' in site.metrics.render()


def counted(service: Service) -> str:
    lines = service.system.metrics.render().decode().splitlines()
    return "\n".join(line for line in lines if line.startswith("chatd_requests_total"))


def test_requests_are_counted_by_route_and_status(service: Service) -> None:
    ann = service.new_user()
    ann.get(CHATS)
    ann.get(CHATS + "?page=0")
    service.get("/nowhere")
    service.request("PUT", CHATS)
    lines = counted(service)
    assert 'method="GET",route="get_chats",status="200"} 1.0' in lines
    assert 'method="GET",route="get_chats",status="400"} 1.0' in lines
    assert 'method="GET",route="none",status="404"} 1.0' in lines
    assert 'method="PUT",route="none",status="405"} 1.0' in lines
    assert "user" not in lines.replace("get_user", "")


def test_held_polls_are_not_counted_as_slow_requests(service: Service) -> None:
    ann = service.new_user()
    poll = ann.wait("?since=now&wait=30")
    service.advance(30)
    assert not poll.held
    assert "get_chats" not in counted(service)


def test_an_application_is_served_although_nothing_else_refers_to_it(
    logged_failures: LoggedFailures,
) -> None:
    import gc

    dispatch = Site().dispatch
    gc.collect()
    client = RawClient(resource=dispatch)
    client.send(get("/named/x"))
    assert client.response().body == b"x"
    assert logged_failures.flush() == []
