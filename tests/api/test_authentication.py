"""Authentication: bearer tokens, Basic, invalid credentials (contract, Who is calling)."""

from __future__ import annotations

import re
import sqlite3
from base64 import b64encode
from typing import Any

import pytest

from tests.api.service import CHATS, TOKENS, USERS, Serve, Service, User, basic

LOG_IN = {"username": "ann", "password": "password"}


def challenges(service: Service, auth: str | bytes | None) -> list[str]:
    """The challenges that a request with these credentials is answered with."""
    response = service.get(CHATS, auth=auth)
    response.problem(401, "unauthorized")
    values = response.headers.getRawHeaders(b"WWW-Authenticate")
    assert values
    return [value.decode() for value in values]


def test_logging_in_returns_a_token(service: Service) -> None:
    ann = service.new_user("ann")
    response = service.post(TOKENS, LOG_IN)
    assert response.status == 201
    assert response.header("Cache-Control") == "no-store"
    assert list(response.json) == [
        *("token", "user_id", "created_at"),
        *("id", "label", "scopes", "expires_at"),
    ]
    assert response.json["user_id"] == ann.id
    assert response.json["created_at"] == "2026-01-01T00:00:00Z"
    found = service.get(USERS, auth=f"Bearer {response.json['token']}")
    assert found.json["id"] == ann.id


def test_a_token_is_256_bits_and_never_the_same(service: Service) -> None:
    service.new_user("ann")
    tokens = {service.post(TOKENS, LOG_IN).json["token"] for _ in range(5)}
    assert len(tokens) == 5
    assert all(re.fullmatch(r"chatd_1\.[A-Za-z0-9_-]{43}", token) for token in tokens)


def test_neither_a_token_nor_a_password_is_stored(serve: Serve, tmp_path: Any) -> None:
    service = serve()
    service.post(USERS, {"username": "bob", "email": "b@b", "password": "very secret"})
    token = service.post(TOKENS, {"username": "bob", "password": "very secret"}).json["token"]
    with sqlite3.connect(tmp_path / "0" / "chatd.db") as db:
        dump = "\n".join(db.iterdump())
    db.close()
    assert "very secret" not in dump
    assert token not in dump
    assert "$argon2id$" in dump


def test_a_name_logs_in_whatever_its_case(service: Service) -> None:
    ann = service.new_user("ann")
    assert service.post(TOKENS, {**LOG_IN, "username": "ANN"}).json["user_id"] == ann.id
    assert service.get(USERS, auth=basic("AnN", "password")).json["id"] == ann.id


@pytest.mark.parametrize(
    ("username", "password"),
    [
        *(("ann", "Password"), ("ann", ""), ("ann", "password "), ("bob", "password"), ("", "")),
        *(("ann", "p" * 5000), ("ann\0", "password"), ("änn", "password"), ("🙂", "🙂" * 2000)),
        *(("\u212aate", "password"), ("a" * 10_000, "password")),
    ],
)
def test_wrong_credentials_are_all_alike(service: Service, username: str, password: str) -> None:
    service.new_user("ann")
    service.new_user("kate")
    wrong = service.post(TOKENS, {"username": "ann", "password": "wrong"})
    response = service.post(TOKENS, {"username": username, "password": password})
    response.problem(401, "unauthorized")
    assert response.body == wrong.body
    assert response.headers.getRawHeaders("WWW-Authenticate")
    if len(username) < 100:
        assert challenges(service, basic(username, password)) == [
            'Basic realm="chatd", charset="UTF-8"'
        ]


def test_an_unknown_name_costs_as_many_hashes_as_a_known_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.new_user("ann")
    hashed: list[tuple[Any, ...]] = []
    run = service.system.hashing.run

    def watched(*args: Any) -> Any:
        hashed.append(args)
        return run(*args)

    monkeypatch.setattr(service.system.hashing, "run", watched)
    for username in ("ann", "nobody", "no body", ""):
        hashed.clear()
        service.post(TOKENS, {"username": username, "password": "wrong"})
        assert len(hashed) == 1, username
        hashed.clear()
        service.get(USERS, auth=basic(username, "wrong"))
        assert len(hashed) == 1, username


def test_a_basic_client_that_repeats_itself_is_hashed_once_a_minute(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = service.new_user("ann")
    hashed: list[Any] = []
    run = service.system.hashing.run

    def watched(*args: Any) -> Any:
        hashed.append(args)
        return run(*args)

    monkeypatch.setattr(service.system.hashing, "run", watched)
    for _ in range(10):
        assert ann.get(CHATS, auth=ann.basic).status == 200
    assert len(hashed) == 1
    service.advance(60)
    assert ann.get(CHATS, auth=ann.basic).status == 200
    assert len(hashed) == 2


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEARER"])
def test_the_scheme_is_written_in_any_case(service: Service, scheme: str) -> None:
    ann = service.new_user("ann")
    token = ann.bearer.partition(" ")[2]
    assert service.get(CHATS, auth=f"{scheme} {token}").status == 200
    assert service.get(CHATS, auth=f"{scheme}  {token}").status == 200
    proof = ann.basic.partition(" ")[2]
    for name in ("Basic", "basic", "BASIC"):
        assert service.get(CHATS, auth=f"{name} {proof}").status == 200


MALFORMED: list[str | bytes] = [
    "Basic",
    "Basic ",
    "Basic !",
    "Basic YW5u",  # no colon
    "Basic YW5uOnBhc3N3b3Jk YW5u",
    "Basic YW5uOnBhc3N3b3J",
    b"Basic " + b64encode(b"ann:\xff"),
    b"Basic " + b64encode(b"\xff\xfe:password"),
    b"Basic \xff\xff",
    b"Basic " + b64encode("ann:password".encode("utf-16")),
    "Basic ann:password",
    "Basic Og==",
    "Basic " + "A" * 8000,
]


@pytest.mark.parametrize("auth", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_basic_credentials_are_challenged(service: Service, auth: str | bytes) -> None:
    service.new_user("ann")
    assert challenges(service, auth) == ['Basic realm="chatd", charset="UTF-8"']


@pytest.mark.parametrize(
    "auth",
    [
        *("Bearer", "Bearer x", "Bearer chatd_", b"Bearer \xff", "Bearer " + "x" * 8000),
        *("Bearer a b", "Bearer null", "Bearer chatd_" + "A" * 43, "bearer\tx y"),
    ],
)
def test_an_unknown_token_is_challenged(service: Service, auth: str | bytes) -> None:
    service.new_user("ann")
    [challenge, *_] = challenges(service, auth)
    assert challenge.startswith('Bearer realm="chatd"')


@pytest.mark.parametrize("auth", [None, "", "Digest x", "Token x", "x", b"\xff \xff", ",", "Bear"])
def test_without_credentials_all_schemes_are_challenged(
    service: Service, auth: str | bytes | None
) -> None:
    assert challenges(service, auth) == [
        'Bearer realm="chatd"',
        'Basic realm="chatd", charset="UTF-8"',
    ]


def test_a_token_that_is_extended_or_cut_is_unknown(service: Service) -> None:
    ann = service.new_user("ann")
    assert challenges(service, ann.bearer + "x")
    assert challenges(service, ann.bearer[:-1])
    assert challenges(service, ann.bearer.swapcase())


def other_token(service: Service, user: User) -> str:
    response = service.post(TOKENS, {"username": user.name, "password": "password"})
    return f"Bearer {response.json['token']}"


def test_revoking_a_token_leaves_the_others(service: Service) -> None:
    ann = service.new_user("ann")
    other = other_token(service, ann)
    response = ann.request("DELETE", TOKENS)
    assert (response.status, response.body) == (204, b"")
    ann.get(CHATS).problem(401, "unauthorized")
    ann.request("DELETE", TOKENS).problem(401, "unauthorized")
    assert ann.get(CHATS, auth=other).status == 200
    assert ann.get(CHATS, auth=ann.basic).status == 200


def test_revoking_ends_the_polls_of_that_token_only(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    other = other_token(service, ann)
    ended = [ann.wait(), ann.wait("?since=0&wait=55")]
    others = [ann.wait(auth=other), ann.wait(auth=ann.basic), bob.wait()]
    ann.request("DELETE", TOKENS)
    for poll in ended:
        poll.response.problem(401, "unauthorized")
        assert poll.response.headers.getRawHeaders("WWW-Authenticate")
    bob.send(ann)
    ann_again = [poll.response.json["messages"][0]["message"] for poll in others[:2]]
    assert ann_again == ["hai", "hai"]
    assert others[2].held
    others[2].disconnect()


def test_without_a_token_there_is_none_to_revoke(service: Service) -> None:
    ann = service.new_user("ann")
    ann.request("DELETE", TOKENS, auth=ann.basic).problem(400, "not_a_token")
    service.request("DELETE", TOKENS).problem(401, "unauthorized")
    assert ann.get(CHATS).status == 200


def test_a_poll_that_a_revocation_overtook_is_not_held(service: Service) -> None:
    ann = service.new_user("ann")
    poll = ann.start("GET", CHATS + "?wait=30")
    logout = ann.start("DELETE", TOKENS)
    service.settle()
    assert logout.response.status == 204
    poll.response.problem(401, "unauthorized")
    assert service.system.notifier.held == 0


def test_cached_sessions_are_not_used_while_the_bus_is_down(service: Service) -> None:
    ann = service.new_user("ann")
    assert ann.get(CHATS).status == 200
    digest = next(iter(service.system.accounts._tokens._sessions))
    service.system.wait_for(service.system.store.delete_token(ann.id, digest))
    assert ann.get(CHATS).status == 200  # cached: the bus reported no revocation
    service.system.bus.broken = "no wake-ups arrive"
    ann.get(CHATS).problem(401, "unauthorized")


def test_a_password_may_hold_a_colon_and_be_in_any_script(service: Service) -> None:
    for name, password in [("a", "p:a:s:s"), ("b", "пароль🔑"), ("c", ":::::")]:
        made = service.post(USERS, {"username": name, "email": "a@b", "password": password})
        assert made.status == 201
        assert service.get(CHATS, auth=basic(name, password)).status == 200


def test_a_header_that_decides_something_is_given_once(service: Service) -> None:
    ann = service.new_user("ann")
    for values in ([ann.bearer, ann.bearer], [ann.bearer, ann.basic], [ann.basic, "Bearer x"]):
        response = service.get(USERS, headers={"Authorization": values})
        assert "Authorization" in response.problem(400, "invalid_header")["detail"]
    body = b'{"user_id": 1, "message": "x"}'
    for name, value in [
        *(("Content-Type", "application/json"), ("Idempotency-Key", "one")),
        ("Last-Event-ID", "0"),
    ]:
        headers: dict[str, Any] = {"Content-Type": "application/json", name: [value, value]}
        response = ann.request("POST", CHATS, body=body, headers=headers)
        assert name.title() in response.problem(400, "invalid_header")["detail"]
        for target in ("/healthz", "/nowhere"):
            refused = service.get(target, headers={name: [value, value]})
            refused.problem(400, "invalid_header")
    assert ann.page()["messages"] == []


def test_a_list_may_be_given_in_several_headers(service: Service) -> None:
    ann = service.new_user("ann")
    waiting = ann.start_and_settle(
        "GET", CHATS + "?since=0", headers={"Prefer": ["respond-async", "wait=5"]}
    )
    assert waiting.held
    service.advance(5)
    assert waiting.response.header("Preference-Applied") == "wait=5"
