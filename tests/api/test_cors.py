"""Browser apps of other origins, `--cors-origins`."""

from __future__ import annotations

import pytest

from chatd.api.cors import CORS
from chatd.api.fast_path import UNUSUAL, Caller, understand
from chatd.http.request_headers import HeaderBlock
from tests.api.service import (
    CHATS,
    FRONTS,
    OWN,
    SERVERS,
    TOKENS,
    Exchange,
    Serve,
    Service,
    ServiceResponse,
)
from tests.http.raw_client import get

APP = "https://app.example"
ORIGIN = {"Origin": APP}
EVENTS = {**ORIGIN, "Accept": "text/event-stream"}


def preflight(
    service: Service, path: str, origin: str = APP, method: str = "GET", *, admin: bool = False
) -> ServiceResponse:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization",
    }
    return service.request("OPTIONS", path, headers=headers, admin=admin)


def cors_headers(response: ServiceResponse) -> dict[str, str | None]:
    """The headers that concern other origins."""
    return {
        name.decode().lower(): response.header(name.decode())
        for name, _ in response.headers.getAllRawHeaders()
        if name.lower().startswith(b"access-control-") or name.lower() == b"vary"
    }


def assert_shared(response: ServiceResponse, origin: str = APP) -> None:
    """Assert that an app of the origin can read the response and its headers."""
    headers = cors_headers(response)
    exposed = headers.pop("access-control-expose-headers")
    assert headers == {"vary": "Origin", "access-control-allow-origin": origin}
    assert exposed is not None
    assert set(exposed.split(", ")) == {
        *("Location", "Link", "Retry-After", "X-Request-ID", "WWW-Authenticate", "Allow"),
        *("Idempotency-Replayed", "Preference-Applied", "Unknown-Parameter"),
    }


@pytest.fixture(params=SERVERS)
def service(request: pytest.FixtureRequest, serve: Serve) -> Service:
    return serve(request.param, cors=[APP, "http://localhost:5173"])


def test_a_preflight_permits_what_the_api_takes(service: Service) -> None:
    response = preflight(service, CHATS, method="PATCH")
    assert (response.status, response.body) == (204, b"")
    assert response.header("Allow") == "DELETE, GET, HEAD, OPTIONS, PATCH, POST"
    assert response.header("X-Request-ID")
    headers = cors_headers(response)
    assert headers["access-control-allow-origin"] == APP
    assert headers["vary"] == "Origin"
    assert headers["access-control-max-age"] == "7200"
    assert headers["access-control-allow-methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE"
    assert headers["access-control-allow-headers"] == (
        "Authorization, Content-Type, Idempotency-Key, Prefer, Last-Event-ID, X-Request-ID, Accept"
    )
    assert "access-control-allow-credentials" not in headers


def test_a_path_that_does_not_exist_is_told_by_the_request_itself(service: Service) -> None:
    # A preflight that fails would look like a lost network to the app.
    response = preflight(service, "/api/v1/chat/", method="POST")
    assert response.status == 204
    assert response.header("Allow") is None
    response = service.post("/api/v1/chat/", {}, headers=dict(ORIGIN))
    response.problem(404, "not_found")
    assert_shared(response)


def test_options_that_are_no_preflight_are_answered_as_ever(service: Service) -> None:
    response = service.request("OPTIONS", CHATS, headers=dict(ORIGIN))
    assert response.status == 204
    assert "POST" in str(response.header("Allow"))
    assert_shared(response)


def test_responses_and_errors_of_all_kinds_are_shared(service: Service) -> None:
    ann, ben = service.new_user(), service.new_user()
    ben.send(ann)
    origin = dict(ORIGIN)
    for status, response in [
        (200, ann.get(CHATS, headers=origin)),
        (200, ann.get(CHATS + "?since=0", headers=origin)),
        (200, ann.request("HEAD", CHATS, headers=origin)),
        (
            201,
            ann.post(
                CHATS,
                {"user_id": ben.id, "message": "hai"},
                headers={**origin, "Idempotency-Key": "1"},
            ),
        ),
        (204, ann.request("DELETE", f"{CHATS}?user_id={ben.id}&seq=1", headers=origin)),
        (400, ann.get(CHATS + "?page=0", headers=origin)),
        (401, service.get(CHATS, headers=origin)),
        (401, service.get(CHATS, headers=origin, auth="Bearer wrong")),
        (404, ann.post(CHATS, {"user_id": 99, "message": "hai"}, headers=origin)),
        (405, ann.post("/api/v1/openapi.json", {}, headers=origin)),
        (415, service.request("POST", TOKENS, body=b"{}", headers=origin)),
        (200, service.get("/api/v1/openapi.json", headers=origin)),
        (404, service.get("/api/v1/x%2fy", headers=origin)),
        (200, service.get("/healthz", headers=origin)),
    ]:
        assert response.status == status, response
        assert_shared(response)


def test_a_held_poll_and_its_end_are_shared(service: Service) -> None:
    ann, ben = service.new_user(), service.new_user()
    poll = ann.wait(headers=dict(ORIGIN))
    ben.send(ann)
    assert_shared(poll.response)
    poll = ann.wait(headers=dict(ORIGIN))
    ann.request("DELETE", TOKENS)
    poll.response.problem(401, "unauthorized")
    assert_shared(poll.response)


def head_of(stream: Exchange) -> bytes:
    received: bytes = stream.client.transport.value()
    return received.partition(b"\r\n\r\n")[0].lower()


def test_a_stream_is_shared(service: Service) -> None:
    ann = service.new_user()
    head = head_of(ann.wait("?since=0", headers=dict(EVENTS)))
    assert b"\r\naccess-control-allow-origin: https://app.example\r\n" in head + b"\r\n"
    assert b"\r\nvary: origin\r\n" in head + b"\r\n"


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "null", "https://app.example.evil.example", "http://app.example"),
        *("https://app.example:8443", "https://APP.example", "", "*", f"{APP}, {APP}"),
    ],
)
def test_an_origin_that_is_not_listed_gets_no_header(service: Service, origin: str) -> None:
    ann = service.new_user()
    for response in (
        ann.get(CHATS, headers={"Origin": origin}),
        service.get(CHATS, headers={"Origin": origin}),
        preflight(service, CHATS, origin),
        ann.get(CHATS, headers={"Origin": [APP, APP]}),
    ):
        assert cors_headers(response) == {"vary": "Origin"}
    assert preflight(service, CHATS, origin).header("Allow") is not None


def test_what_caches_may_keep_varies_also_without_an_origin(service: Service) -> None:
    assert cors_headers(service.get("/api/v1/openapi.json")) == {"vary": "Origin"}


def test_any_origin_may_be_permitted(serve: Serve) -> None:
    service = serve(OWN, cors=["*"])
    ann = service.new_user()
    for origin in ("https://elsewhere.example", "null"):
        assert_shared(ann.get(CHATS, headers={"Origin": origin}), "*")
        assert preflight(service, CHATS, origin).header("Access-Control-Allow-Origin") == "*"


def test_errors_that_the_server_sends_itself_are_shared(serve: Serve) -> None:
    service = serve(OWN, cors=[APP], body_bytes=1000)
    large = service.post(CHATS, {"message": "x" * 2000}, headers=dict(ORIGIN))
    large.problem(413, "body_too_large")
    assert_shared(large)
    client = service.connect()
    client.send(get(CHATS, f"oRIGIN:{APP} ", "Expect: cake"))
    refused = client.response()
    assert refused.status == 417
    assert refused.header("Access-Control-Allow-Origin") == APP
    client = service.connect()
    client.send(get(CHATS, "Origin: https://evil.example", "Expect: cake"))
    assert client.response().header("Access-Control-Allow-Origin") is None


@pytest.mark.parametrize("front", FRONTS)
def test_without_the_option_there_is_nothing(serve: Serve, front: str) -> None:
    service = serve(front)
    ann = service.new_user()
    for response in (ann.get(CHATS, headers=dict(ORIGIN)), preflight(service, CHATS)):
        assert cors_headers(response) == {}


def test_the_operators_listener_shares_nothing(service: Service) -> None:
    for response in (
        service.get("/metrics", headers=dict(ORIGIN), admin=True),
        preflight(service, "/metrics", admin=True),
        service.get("/nothing", headers=dict(ORIGIN), admin=True),
    ):
        assert cors_headers(response) == {}
    client = service.connect(admin=True)
    client.send(get("/metrics", f"Origin: {APP}", "Expect: cake"))
    assert b"access-control" not in client.transport.value().lower()


def test_preflights_are_counted(service: Service) -> None:
    preflight(service, CHATS)
    metrics = service.get("/metrics", admin=True).body.decode()
    assert 'chatd_requests_total{method="OPTIONS",route="none",status="204"} 1' in metrics


def test_the_headers_of_a_rejected_head() -> None:
    cors = CORS([APP])
    none = b"Vary: Origin\r\n"
    assert cors.in_head(b"GET / HTTP/1.1\r\n") == none
    head = b"GET / HTTP/1.1\r\nOrigin: https://a.example\r\n\r\nOrigin: https://app.example\r\n"
    assert cors.in_head(head) == none
    found = cors.in_head(b"GET / HTTP/1.1\r\norigin:https://app.example\t\r\nHost")
    assert found.startswith(none + b"Access-Control-Allow-Origin: https://app.example\r\n")


def test_only_requests_of_other_origins_leave_the_fast_path(serve: Serve) -> None:
    service = serve(OWN, cors=[APP])
    ann = service.new_user()
    ann.page()
    assert ann.get(CHATS).header("Vary") is None, "not to be stored, so it need not vary"
    lines = ["", "Host: a", "Authorization: Bearer x", "ORIGIN:https://a.example", "", ""]
    block = HeaderBlock("\r\n".join(lines).encode())
    assert understand(block, cors=True) is UNUSUAL
    assert isinstance(understand(block), Caller)
