"""What all calls have in common (contract, General)."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.api.service import CHATS, OWN, TOKENS, USERS, Serve, Service
from tests.conftest import LoggedFailures
from tests.http.raw_client import get, post

JSON = "Content-Type: application/json"
BODIES: dict[str, dict[str, Any]] = {
    USERS: {"username": "ann", "email": "ann@example.org", "password": "zzzzz"},
    TOKENS: {"username": "ann", "password": "password"},
    CHATS: {"user_id": 1, "message": "hai"},
}
PATHS = [
    *("/api/v1/users", "/api/v1/tokens", "/api/v1/chats", "/api/v1/blocks"),
    *("/healthz", "/readyz"),
]
ALLOW = {
    "/api/v1/users": "DELETE, GET, HEAD, OPTIONS, PATCH, POST",
    "/api/v1/tokens": "DELETE, GET, HEAD, OPTIONS, POST",
    "/api/v1/blocks": "DELETE, GET, HEAD, OPTIONS, PUT",
    "/api/v1/chats": "DELETE, GET, HEAD, OPTIONS, PATCH, POST",
    "/healthz": "GET, HEAD, OPTIONS",
    "/readyz": "GET, HEAD, OPTIONS",
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_every_collection_answers_with_and_without_its_slash(service: Service, slash: str) -> None:
    ann = service.new_user("ann")
    assert ann.get("/api/v1/chats" + slash).status == 200
    assert ann.get("/api/v1/chats" + slash + "?page=1").status == 200
    assert ann.get("/api/v1/users" + slash).status == 200
    assert service.post("/api/v1/tokens" + slash, BODIES[TOKENS]).status == 201
    bob = {**BODIES[USERS], "username": "bob"}
    assert service.post("/api/v1/users" + slash, bob).status == 201
    assert ann.post("/api/v1/chats" + slash, BODIES[CHATS]).status == 201
    assert ann.request("DELETE", "/api/v1/tokens" + slash).status == 204
    assert ann.request("DELETE", "/api/v1/users" + slash, auth=ann.basic).status == 204
    assert service.get("/healthz" + slash).status == 200
    assert service.get("/readyz" + slash).status == 200


@pytest.mark.parametrize("path", [*PATHS, *(f"{path}/" for path in PATHS)])
def test_other_methods_are_405_with_allow(service: Service, path: str) -> None:
    allow = ALLOW[path.rstrip("/")]
    for method in METHODS:
        response = service.request(method, path, json_body={})
        if method in allow.split(", "):
            assert response.status not in (404, 405, 500)
            continue
        assert response.status == 405
        assert response.header("Allow") == allow
        assert response.header("Cache-Control") == "no-store"
        if method != "HEAD":
            response.problem(405, "method_not_allowed")


def test_options_lists_the_allowed_methods(service: Service) -> None:
    for path in PATHS:
        for slash in ("", "/"):
            response = service.request("OPTIONS", path + slash)
            assert (response.status, response.body) == (204, b"")
            assert response.header("Allow") == ALLOW[path]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/web",
            "/web/",
            "/index.html",
            "/api",
            "/api/v1",
            "/api/v1/",
            "/api/v2/chats/",
            "/api/v1/chats//",
            "/favicon.ico",
        ),
        *("//api/v1/chats", "/api//v1/chats", "/api/v1/chats/1", "/api/v1/Chats", "/metrics"),
        *("/api/v1/chats%2F", "/api%2Fv1%2Fchats", "/api/v1/../v1/chats", "/api/v1/./chats"),
        *("/%00", "/%0d%0aX:%20y", "/api/v1/chats%20", "/api/v1/chats%00", "/api/v1/chats;x=1"),
        *("/api/v1/%F0%9F%92%AC", "/%E2%80%AE", "/api/v1/chats%3Fsince=0", "/" + "a" * 4000),
        *("/:", "/<int:x>", "/%", "/%zz", "/%%%", "/.well-known/x", "/api/v1/chats/%2e%2e/chats"),
    ],
)
def test_other_paths_are_404(service: Service, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "DELETE"):
        service.request(method, path).problem(404, "not_found")
    head = service.request("HEAD", path)
    assert (head.status, head.body) == (404, b"")


@pytest.mark.parametrize("path", ["/%FF", "/api/v1/chats/%C0%80", "/%ED%A0%80", "/a%2F%FF"])
def test_a_path_is_utf_8(service: Service, path: str) -> None:
    service.get(path).problem(400, "bad_request")


def test_a_path_may_be_written_in_escapes(service: Service) -> None:
    ann = service.new_user()
    assert ann.get("/api/v1/%63hats").status == 200
    assert ann.get("/api/v1/chats%2f").status == 404
    assert ann.request("PUT", "/api/v1/%63hats").header("Allow") == ALLOW["/api/v1/chats"]


@pytest.mark.parametrize("query", ["", "?page=1", "?since=0", "?since=now&wait=0"])
def test_head_is_get_without_the_body(service: Service, query: str) -> None:
    ann, bob = service.new_user(), service.new_user()
    bob.send(ann)
    full, head = ann.get(CHATS + query), ann.request("HEAD", CHATS + query)
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Type", "Cache-Control", "Link"):
        assert head.header(name) == full.header(name)
    assert head.header("Content-Length") == str(len(full.body))


def test_head_works_wherever_get_does(service: Service) -> None:
    ann = service.new_user()
    for target in (USERS, USERS + "?user_id=1", "/healthz", "/readyz"):
        assert (ann.request("HEAD", target).status, ann.request("HEAD", target).body) == (200, b"")
    assert ann.request("HEAD", CHATS + "?page=0").status == 400
    assert service.request("HEAD", CHATS).status == 401


def test_a_held_head_is_answered_like_a_poll(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    held = ann.start_and_settle("HEAD", CHATS + "?wait=5")
    assert held.held
    bob.send(ann)
    assert (held.response.status, held.response.body) == (200, b"")


@pytest.mark.parametrize(
    "kind",
    [
        *(None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"),
        *("text/json", "application/jsonx", "application/json+x", "application/problem+json"),
        *("application/json; charset=latin-1", "application/json, text/plain", "json"),
        *("text/plain; application/json", "application/json;charset=utf-16", b"\xff"),
        *(b"application/json\xff", b"application/json; charset=\xc3\xa9", "application/json\t;x"),
    ],
)
def test_a_body_needs_the_content_type_json(service: Service, kind: str | bytes | None) -> None:
    ann = service.new_user("ann")
    headers: Any = {} if kind is None else {"Content-Type": kind}
    for target, body in BODIES.items():
        response = ann.request("POST", target, body=json.dumps(body).encode(), headers=headers)
        response.problem(415, "unsupported_media_type")


@pytest.mark.parametrize(
    "kind",
    [
        *("application/json", "Application/JSON", "application/json;charset=utf-8"),
        *("application/json; charset=UTF-8", 'application/json ; charset = "utf-8"'),
    ],
)
def test_spellings_of_the_content_type_json(service: Service, kind: str) -> None:
    service.new_user("ann")
    body = json.dumps(BODIES[TOKENS]).encode()
    assert service.request("POST", TOKENS, body=body, headers={"Content-Type": kind}).status == 201


BROKEN = [
    b"",
    b" ",
    b"{",
    b"}",
    b"null",
    b"true",
    b"1",
    b'"text"',
    b"[]",
    b"[{}]",
    b"{}",
    b"{}{}",
    b"NaN",
    b"{'a': 1}",
    b'{"a": 1,}',
    b'{"a": undefined}',
    b'{"a"}',
    b"username=ann&password=zzzzz",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    b"\x00",
    b'{"\xff": 1}',
    b'{"username": "\xff"}',
    b'{"message": "\xed\xa0\x80"}',
    b'{"message": "\xc0\x80"}',
    b'{"message": "\xf4\x90\x80\x80"}',
    b'{"message": "\x00"}',
    b'{"message": "\n"}',
    rb'{"message": "\x"}',
    rb'{"message": "\u12"}',
    rb'{"\ud800": 1}',
    b"[" * 100_000,
    b'{"username":' * 8_000,
    b'{"user_id":' + b"[" * 100_000,
    b'{"user_id": 1e999999999}',
    b'{"user_id": ' + b"9" * 100_000 + b"}",
    b'{"user_id": -' + b"9" * 5_000 + b"}",
    b'{"' + b"k" * 100_000 + b'": 1}',
    b'{"a\\nb\\u0000c": 1}',
]


@pytest.mark.parametrize("body", BROKEN, ids=range(len(BROKEN)))
def test_invalid_bodies_are_refused(service: Service, body: bytes) -> None:
    ann = service.new_user("ann")
    for target in BODIES:
        response = ann.request(
            "POST", target, body=body, headers={"Content-Type": "application/json"}
        )
        response.problem(400, "invalid_body")


@pytest.mark.parametrize("target", [USERS, TOKENS, CHATS])
def test_an_unknown_member_is_refused_by_name(service: Service, target: str) -> None:
    ann = service.new_user("ann")
    response = ann.post(target, {**BODIES[target], "mistake": None})
    assert "mistake" in response.problem(400, "invalid_body")["detail"]


def test_a_request_id_is_made(service: Service) -> None:
    first, second = service.get("/healthz"), service.get("/healthz")
    ids = {first.header("X-Request-ID"), second.header("X-Request-ID")}
    assert len(ids) == 2
    assert all(each and re.fullmatch("[A-Za-z0-9._-]{1,128}", each) for each in ids)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        *(("GET", "/healthz", 200), ("GET", "/nowhere", 404), ("PUT", CHATS, 405)),
        *(("GET", CHATS, 401), ("OPTIONS", CHATS, 204), ("GET", "/%FF", 400)),
    ],
)
def test_a_request_id_is_echoed(service: Service, method: str, target: str, status: int) -> None:
    for wanted in ("a", "A.b_c-9", "x" * 128):
        response = service.request(method, target, headers={"X-Request-ID": wanted})
        assert (response.status, response.header("X-Request-ID")) == (status, wanted)


def test_of_two_request_ids_none_is_echoed(service: Service) -> None:
    """Proxies such as HAProxy add theirs to that of the client."""
    ann = service.new_user("ann")
    for target in ("/healthz", CHATS, CHATS + "?since=0"):
        response = ann.get(target, headers={"X-Request-ID": ["one", "two"]})
        assert response.status == 200
        assert response.header("X-Request-ID") not in ("one", "two", None)


@pytest.mark.parametrize(
    "wanted", ["", " ", "x" * 129, "a b", "a,b", "a/b", "é", b"\xff", "a;", '"a"', "٣".encode()]
)
def test_an_invalid_request_id_is_replaced(service: Service, wanted: str | bytes) -> None:
    for target in ("/healthz", "/nowhere"):
        made = service.get(target, headers={"X-Request-ID": wanted}).header("X-Request-ID")
        assert made is not None
        assert re.fullmatch("[A-Za-z0-9._-]{1,128}", made)
        assert made != wanted


@pytest.mark.parametrize(
    "host", ["a..b", "x" * 64, ".", "a.", "-", "[::1]", "127.0.0.1:8080", "xn--a", "%41", "*"]
)
def test_no_host_causes_a_500(serve: Serve, host: str) -> None:
    service = serve(OWN)
    for method in ("GET", "OPTIONS", "PUT"):
        for path in ("/nowhere", CHATS):
            client = service.connect()
            client.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            response = client.response(method)
            assert response.status in (204, 400, 401, 404, 405)
            assert response.status == 204 or response.code


@pytest.mark.parametrize(
    "header",
    [
        *("Authorization", "Content-Type", "Idempotency-Key", "Prefer", "X-Request-ID"),
        *("X-Forwarded-For", "Cookie", "Accept", "Origin", "Content-Encoding", "User-Agent"),
    ],
)
@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"\xc3\x28", b"\t", b"a" * 8000, b',;="\\'])
def test_no_header_causes_a_500(serve: Serve, header: str, value: bytes) -> None:
    service = serve(trusted=["0.0.0.0/0"], access_log=True)
    ann = service.new_user("ann")
    options: dict[str, Any] = {"headers": {header: value}}
    if header == "Authorization":
        options["auth"] = None
    for method, target in [("GET", CHATS), ("POST", CHATS), ("POST", TOKENS), ("GET", USERS)]:
        body = json.dumps(BODIES.get(target)).encode() if method == "POST" else None
        if header != "Content-Type" and method == "POST":
            options["headers"] = {header: value, "Content-Type": "application/json"}
        response = ann.request(method, target, body=body, **options)
        assert response.status in (200, 201, 400, 401, 415)


def test_responses_for_a_user_are_never_cached(service: Service) -> None:
    ann = service.new_user("ann")
    for response in [
        ann.get(USERS),
        ann.get(CHATS),
        ann.get(CHATS + "?since=0"),
        ann.get(CHATS + "?page=99"),
        ann.post(CHATS, {"user_id": ann.id, "message": "x"}),
        service.post(TOKENS, BODIES[TOKENS]),
        service.get(CHATS),
        ann.request("DELETE", TOKENS),
        ann.request("DELETE", USERS, auth=ann.basic),
    ]:
        assert response.header("Cache-Control") == "no-store", response


def test_a_body_over_the_limit_is_refused(serve: Serve) -> None:
    client = serve(OWN, body_bytes=1000).connect()
    client.send(post(b"x" * 1001, JSON, target=USERS))
    assert (client.response().status, client.response().code) == (413, "body_too_large")


def test_a_message_of_escapes_fits_into_the_body(serve: Serve) -> None:
    service = serve(OWN)
    ann = service.new_user()
    text = r"\u0001" * 16384
    body = f'{{"user_id":1,"message":"{text}"}}'.encode()
    response = ann.request("POST", CHATS, body=body, headers={"Content-Type": "application/json"})
    assert response.json["message"] == "\x01" * 16384


@pytest.mark.parametrize(("hosts", "code"), [([], "bad_request"), (["a", "b"], "invalid_header")])
def test_a_request_has_one_host(serve: Serve, hosts: list[str], code: str) -> None:
    client = serve(OWN).connect()
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    client.send(f"GET /healthz HTTP/1.1\r\n{lines}\r\n".encode())
    assert (client.response().status, client.response().code) == (400, code)


def test_options_of_everything_is_answered(serve: Serve) -> None:
    client = serve(OWN).connect()
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.response("OPTIONS").status == 200


def test_requests_on_one_connection_are_answered_in_order(service: Service) -> None:
    client = service.connect()
    client.send(get("/healthz") + get("/nowhere") + get("/readyz") + get("/api/v1/chats"))
    service.settle()
    assert [response.status for response in client.responses()] == [200, 404, 200, 401]


class Broken(Exception):
    """An internal error whose text must not be sent to clients."""


SECRET = "the inside says /var/lib/secret"


@pytest.mark.parametrize(
    ("method", "target", "verb"),
    [
        *(("GET", CHATS, "read"), ("POST", CHATS, "append"), ("GET", USERS, "account")),
        *(("GET", USERS + "?username=ann", "account_named"), ("POST", USERS, "add_account")),
        *(("POST", TOKENS, "credentials"), ("POST", TOKENS, "add_token")),
        *(("DELETE", TOKENS, "delete_token"), ("DELETE", USERS, "delete_account")),
        *(("GET", CHATS + "?since=0", "read"), ("GET", CHATS, "sessions")),
        *(("GET", TOKENS, "encoded_tokens"), ("DELETE", TOKENS + "?id=99", "delete_token_by_id")),
        ("DELETE", TOKENS + "?others=true", "delete_other_tokens"),
        *(("PATCH", USERS, "account"), ("PATCH", USERS, "change_account")),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_500_reveals_no_internals(
    service: Service,
    logged_failures: LoggedFailures,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    target: str,
    verb: str,
    at_once: bool,
) -> None:
    ann = service.new_user("ann")

    def broken(*_: object, **__: object) -> Any:
        from twisted.internet.defer import fail

        if at_once:
            raise Broken(SECRET)
        return fail(Broken(SECRET))

    if verb == "sessions":
        monkeypatch.setattr(service.system.accounts._look_ups, "_run", broken)
    elif verb in ("read", "append"):
        batch = {"read": "_reads", "append": "_sends"}[verb]
        monkeypatch.setattr(getattr(service.system.chats, batch), "_run", broken)
    else:
        monkeypatch.setattr(service.system.store, verb, broken)
    bodies = {"POST": BODIES.get(target), "PATCH": {"current_password": "password", "email": "a@b"}}
    options: dict[str, Any] = {"json_body": bodies[method]} if method in bodies else {}
    response = ann.request(method, target, headers={"X-Request-ID": "find-me"}, **options)
    document = response.problem(500, "internal_error")
    assert b"inside says" not in response.body
    assert b"Broken" not in response.body
    assert document["request_id"] == response.header("X-Request-ID") == "find-me"
    [failure] = logged_failures.flush(Broken)
    assert str(failure.value) == SECRET
    assert service.get("/healthz").status == 200


def test_the_log_of_a_500_has_the_request_id(
    service: Service, logged_failures: LoggedFailures, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = service.new_user("ann")

    def broken(*_: object) -> Any:
        raise Broken(SECRET)

    monkeypatch.setattr(service.system.store, "account", broken)
    made = ann.get(USERS).problem(500, "internal_error")["request_id"]
    assert any(f"request {made} failed" in text for text in logged_failures.describe())
    logged_failures.flush(Broken)


def test_every_problem_has_the_same_members(service: Service) -> None:
    ann = service.new_user("ann")
    for response in [
        service.get(CHATS),
        service.get("/nowhere"),
        service.request("PUT", CHATS),
        ann.get(CHATS + "?page=0"),
        ann.post(CHATS, []),
        ann.post(CHATS, {"user_id": 99, "message": "x"}),
    ]:
        document = json.loads(response.body)
        assert list(document) == ["type", "title", "status", "detail", "code"]
        assert document["type"] == f"/api/v1/docs/#{document['code']}"
        assert response.header("Content-Type") == "application/problem+json"


def test_every_json_document_is_a_line(service: Service) -> None:
    ann = service.new_user("ann")
    key = {"Idempotency-Key": "key"}
    for response in [
        service.post(USERS, {**BODIES[USERS], "username": "bob"}),
        service.post(TOKENS, BODIES[TOKENS]),
        ann.get(USERS),
        ann.post(CHATS, BODIES[CHATS], headers=key),
        ann.post(CHATS, BODIES[CHATS], headers=key),
        ann.get(CHATS),
        ann.get(CHATS + "?since=0"),
        ann.get(CHATS + "?with=1"),
        service.get("/healthz"),
        service.get("/readyz"),
        service.get("/healthz", admin=True),
        service.get("/api/v1/openapi.json"),
        service.get(CHATS),
        service.get("/nowhere"),
        service.request("PUT", CHATS),
    ]:
        assert response.body.endswith(b"}\n"), response
        assert response.body.count(b"\n") == 1


def test_a_refusal_of_the_http_server_is_a_line(serve: Serve) -> None:
    client = serve(OWN).connect()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert client.response().status == 400
    assert client.response().body.endswith(b"}\n")
