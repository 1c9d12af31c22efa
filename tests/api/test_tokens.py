"""Tokens: labels, expiry, scopes, listing and revoking (contract, Account and tokens)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chatd.domain.last_seen import LAST_SEEN_FLUSH_SECONDS
from tests.api.service import CHATS, TOKENS, USERS, Serve, Service, User

LOG_IN = {"username": "ann", "password": "password"}
STREAM = {"Accept": "application/x-ndjson"}
MINUTE = 60


def log_in(service: Service, **chosen: Any) -> dict[str, Any]:
    """Another token of Ann's, with what is chosen for it."""
    response = service.post(TOKENS, {**LOG_IN, **chosen})
    assert response.status == 201, response
    token: dict[str, Any] = response.json
    return token


def bearer(token: dict[str, Any]) -> str:
    return f"Bearer {token['token']}"


def listed(user: User, auth: str | None = None) -> list[dict[str, Any]]:
    """The tokens that the user sees."""
    response = user.get(TOKENS, auth=auth or user.bearer)
    assert response.status == 200, response
    assert response.header("Cache-Control") == "no-store"
    tokens: list[dict[str, Any]] = response.json["tokens"]
    return tokens


def ids(user: User) -> list[int]:
    return [token["id"] for token in listed(user)]


def test_a_token_without_choices_is_unlimited(service: Service) -> None:
    service.new_user("ann")
    token = log_in(service)
    assert {name: token[name] for name in ("label", "scopes", "expires_at")} == {
        "label": None,
        "scopes": ["read", "send", "account"],
        "expires_at": None,
    }
    assert log_in(service, label=None, expires_in=None, scopes=None)["expires_at"] is None


def test_a_token_is_issued_as_chosen(service: Service) -> None:
    service.new_user("ann")
    token = log_in(
        service, label="Ann's phone 📱", expires_in=3600, scopes=["send", "read", "send"]
    )
    assert token["label"] == "Ann's phone 📱"
    assert token["scopes"] == ["read", "send"]
    assert token["expires_at"] == "2026-01-01T01:00:00Z"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("label", ""), ("label", "x" * 65), ("label", 1), ("label", "a\0")),
        *(("expires_in", 59), ("expires_in", 31_536_001), ("expires_in", 0), ("expires_in", -60)),
        *(("expires_in", True), ("expires_in", "60"), ("expires_in", 60.5)),
        *(("scopes", []), ("scopes", ["write"]), ("scopes", "read"), ("scopes", ["READ"])),
        *(
            ("scopes", ["read"] * 4),
            ("scopes", [1]),
            ("scopes", [None]),
            ("scopes", {}),
            ("name", "x"),
        ),
    ],
)
def test_wrong_choices_are_named(stock: Service, member: str, value: Any) -> None:
    stock.new_user("ann")
    response = stock.post(TOKENS, {**LOG_IN, member: value})
    assert member in response.problem(400, "invalid_body")["detail"]


def test_the_limits_of_choices_are_inclusive(stock: Service) -> None:
    stock.new_user("ann")
    assert len(log_in(stock, label="é" * 64)["label"]) == 64
    assert log_in(stock, expires_in=60)["expires_at"] == "2026-01-01T00:01:00Z"
    assert log_in(stock, expires_in=31_536_000)["expires_at"] == "2027-01-01T00:00:00Z"


def test_a_label_with_a_lone_surrogate_is_refused(stock: Service) -> None:
    stock.new_user("ann")
    body = b'{"username": "ann", "password": "password", "label": "\\ud800"}'
    response = stock.request(
        "POST", TOKENS, body=body, headers={"Content-Type": "application/json"}
    )
    response.problem(400, "invalid_body")


def test_tokens_are_listed_without_themselves(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    phone = log_in(service, label="phone", expires_in=3600, scopes=["read"])
    service.advance(30)
    newest, own = listed(ann)
    assert newest == {
        "id": phone["id"],
        "label": "phone",
        "scopes": ["read"],
        "created_at": "2026-01-01T00:00:00Z",
        "last_used_at": None,
        "expires_at": "2026-01-01T01:00:00Z",
        "current": False,
    }
    assert list(newest) == [
        *("id", "label", "scopes", "created_at", "last_used_at", "expires_at", "current")
    ]
    assert (own["current"], own["label"]) == (True, None)
    assert [token["current"] for token in listed(ann, ann.basic)] == [False, False]
    assert [token["current"] for token in listed(bob)] == [True]


def test_a_token_is_in_use_for_as_long_as_its_stream_is_open(service: Service) -> None:
    ann = service.new_user("ann")
    phone = log_in(service, label="phone")
    stream = ann.start_and_settle("GET", CHATS, headers=STREAM, auth=bearer(phone))
    for _ in range(20):
        service.advance(10)
    used = listed(ann)[0]["last_used_at"]
    assert "2026-01-01T00:02:00Z" < used < "2026-01-01T00:03:21Z"
    stream.disconnect()
    service.advance(300)
    assert listed(ann)[0]["last_used_at"] == used


def test_the_last_use_is_shown_at_once_and_written_once_a_minute(service: Service) -> None:
    ann = service.new_user("ann")
    phone = log_in(service, label="phone")
    assert listed(ann)[0]["last_used_at"] is None
    service.advance(61)
    ann.get(CHATS, auth=bearer(phone))
    assert listed(ann)[0]["last_used_at"] == "2026-01-01T00:01:01Z"
    service.advance(LAST_SEEN_FLUSH_SECONDS)
    [stored, _] = service.system.wait_for(service.system.store.tokens(ann.id))
    used = stored.last_used_at
    for _ in range(5):
        service.advance(10)
        ann.get(CHATS, auth=bearer(phone))
    assert listed(ann)[0]["last_used_at"] == "2026-01-01T00:01:01Z"
    [stored, _] = service.system.wait_for(service.system.store.tokens(ann.id))
    assert stored.last_used_at == used


def test_latest_uses_are_put_in_whatever_the_labels(service: Service) -> None:
    ann = service.new_user("ann")
    labels = ['","last_used_at":"', '},{"id":1,', ',"expires_at":null', "\\", '\x01"é,']
    tokens = [log_in(service, label=label) for label in labels]
    service.advance(61)
    before = listed(ann)
    for each in tokens[1::2]:
        ann.get(CHATS, auth=bearer(each))
    expected = [
        {**each, "last_used_at": "2026-01-01T00:01:01Z"} if each["id"] in used else each
        for used in [{each["id"] for each in tokens[1::2]}]
        for each in before
    ]
    response = ann.get(TOKENS)
    assert response.json == {"tokens": expected}
    assert [each["label"] for each in expected] == [*labels[::-1], None]
    # What msgspec would write.
    assert response.body == msgspec.json.encode({"tokens": expected}) + b"\n"


def test_a_token_is_revoked_by_its_id(service: Service) -> None:
    ann = service.new_user("ann")
    phone, page = log_in(service), log_in(service)
    held = [ann.wait(auth=bearer(phone)), ann.wait(auth=bearer(page)), ann.wait()]
    stream = ann.start_and_settle("GET", CHATS, auth=bearer(phone), headers=STREAM)
    response = ann.request("DELETE", f"{TOKENS}?id={phone['id']}")
    assert (response.status, response.body) == (204, b"")
    assert response.header("Cache-Control") == "no-store"
    held[0].response.problem(401, "unauthorized")
    assert b'{"error":{' in stream.client.transport.value()
    assert b'"code":"unauthorized"' in stream.client.transport.value()
    assert [poll.held for poll in held] == [False, True, True]
    ann.get(CHATS, auth=bearer(phone)).problem(401, "unauthorized")
    assert ann.get(CHATS, auth=bearer(page)).status == 200
    ann.request("DELETE", f"{TOKENS}?id={phone['id']}").problem(404, "token_not_found")
    assert phone["id"] not in ids(ann)
    for poll in held[1:]:
        poll.disconnect()


def test_only_ones_own_tokens_are_found(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    [bobs] = ids(bob)
    for token_id in (bobs, 99, 2**53 - 1):
        ann.request("DELETE", f"{TOKENS}?id={token_id}").problem(404, "token_not_found")
    assert bob.get(CHATS).status == 200


def test_all_other_tokens_are_revoked(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    others = [log_in(service) for _ in range(3)]
    polls = [ann.wait(auth=bearer(each)) for each in others]
    kept = [ann.wait(), ann.wait(auth=ann.basic), bob.wait()]
    assert ann.request("DELETE", TOKENS + "?others=true").status == 204
    for poll in polls:
        poll.response.problem(401, "unauthorized")
    for each in others:
        ann.get(CHATS, auth=bearer(each)).problem(401, "unauthorized")
    assert len(ids(ann)) == 1
    assert all(poll.held for poll in kept)
    assert ann.get(CHATS).status == bob.get(CHATS).status == 200
    for poll in kept:
        poll.disconnect()
    # There are none left.
    assert ann.request("DELETE", TOKENS + "?others=true").status == 204


def test_with_a_password_all_tokens_are_others(service: Service) -> None:
    ann = service.new_user("ann")
    [own] = ids(ann)
    log_in(service)
    assert ann.request("DELETE", f"{TOKENS}?id={own}", auth=ann.basic).status == 204
    ann.get(CHATS).problem(401, "unauthorized")
    assert ann.request("DELETE", TOKENS + "?others=true", auth=ann.basic).status == 204
    assert ann.get(TOKENS, auth=ann.basic).json == {"tokens": []}


@pytest.mark.parametrize(
    "query",
    [
        *("id=", "id=0", "id=-1", "id=x", "id=1.0", "id=+1", "id=9007199254740992", "id=1&id=1"),
        *("others=", "others=false", "others=1", "others=TRUE", "id=1&others=true"),
        *("id=1&others=false", "others=true&others=true"),
    ],
)
def test_wrong_parameters_revoke_nothing(stock: Service, query: str) -> None:
    ann = stock.new_user("ann")
    log_in(stock)
    ann.request("DELETE", f"{TOKENS}?{query}").problem(400, "invalid_query")
    assert len(ids(ann)) == 2


# Expiry


def test_an_expired_token_is_unknown(service: Service) -> None:
    ann = service.new_user("ann")
    token = log_in(service, expires_in=MINUTE)
    service.advance(59)
    assert ann.get(CHATS, auth=bearer(token)).status == 200
    assert len(ids(ann)) == 2
    service.advance(1)
    response = ann.get(CHATS, auth=bearer(token))
    response.problem(401, "unauthorized")
    assert response.header("WWW-Authenticate") == 'Bearer realm="chatd", error="invalid_token"'
    assert len(ids(ann)) == 1
    ann.request("DELETE", f"{TOKENS}?id={token['id']}").problem(404, "token_not_found")


def test_a_token_that_expires_ends_its_polls_and_streams(service: Service) -> None:
    ann = service.new_user("ann")
    token = log_in(service, expires_in=MINUTE)
    # Known before, so that the poll may take the fast path.
    ann.get(CHATS, auth=bearer(token))
    service.advance(20)
    polls = [ann.wait("?since=now&wait=55", auth=auth) for auth in (bearer(token), ann.bearer)]
    stream = ann.start_and_settle("GET", CHATS, auth=bearer(token), headers=STREAM)
    endless = ann.start_and_settle("GET", CHATS, headers=STREAM)
    service.advance(39)
    assert all(each.held for each in polls)
    assert b"error" not in stream.client.transport.value()
    service.advance(1)
    polls[0].response.problem(401, "unauthorized")
    assert b'"code":"unauthorized"' in stream.client.transport.value()
    assert not stream.held
    assert polls[1].held
    assert endless.held
    assert service.system.notifier.held == 2
    polls[1].disconnect()
    endless.disconnect()


def test_polls_that_end_earlier_leave_no_timer(service: Service) -> None:
    ann = service.new_user("ann")
    token = log_in(service, expires_in=MINUTE)
    ann.wait(auth=bearer(token)).disconnect()
    poll = ann.wait("?since=now&wait=5", auth=bearer(token))
    service.advance(5)
    assert poll.response.json["meta"]["timed_out"] is True
    expiry = service.system.notifier._expiry
    assert not expiry._entries
    assert not len(expiry._deadlines)


# Scopes


CHANGES = {"current_password": "password", "email": "new@example.org"}
CALLS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("read", "GET", CHATS, {}),
    ("read", "HEAD", CHATS, {}),
    ("read", "GET", CHATS + "?since=0&wait=5", {}),
    ("read", "GET", CHATS + "?with=1", {}),
    ("read", "GET", USERS, {}),
    ("read", "GET", USERS + "?username=ann", {}),
    ("send", "POST", CHATS, {"json_body": {"user_id": 1, "message": "hai"}}),
    ("send", "DELETE", CHATS + "?user_id=1&seq=1", {}),
    ("account", "DELETE", CHATS + "?up_to=1", {}),
    ("account", "GET", TOKENS, {}),
    ("account", "DELETE", TOKENS + "?id=1", {}),
    ("account", "DELETE", TOKENS + "?others=true", {}),
    ("account", "PATCH", USERS, {"json_body": CHANGES}),
    ("account", "DELETE", USERS, {}),
]


@pytest.mark.parametrize("scope", ["read", "send", "account"])
def test_a_token_does_what_its_scope_permits(service: Service, scope: str) -> None:
    ann = service.new_user("ann")
    ann.send(ann)
    token = log_in(service, scopes=[scope])
    for _ in range(2):  # The second time the session is known, which matters to the fast path.
        for needed, method, target, options in CALLS:
            if needed == scope:
                continue
            response = ann.request(method, target, auth=bearer(token), **options)
            assert response.status == 403
            challenge = f'Bearer realm="chatd", error="insufficient_scope", scope="{needed}"'
            assert response.header("WWW-Authenticate") == challenge
            if method != "HEAD":
                problem = response.problem(403, "insufficient_scope")
                assert problem["detail"].endswith(f"the scope {needed}")
    assert ann.get(USERS).json["email"] == "ann@example.org"
    for needed, method, target, options in CALLS:
        if needed == scope:
            response = ann.request(method, target, auth=bearer(token), **options)
            assert 200 <= response.status < 300, response


def test_several_scopes_permit_what_each_does(service: Service) -> None:
    ann = service.new_user("ann")
    token = bearer(log_in(service, scopes=["read", "send"]))
    assert ann.get(CHATS, auth=token).status == 200
    assert ann.post(CHATS, {"user_id": ann.id, "message": "x"}, auth=token).status == 201
    ann.get(TOKENS, auth=token).problem(403, "insufficient_scope")


@pytest.mark.parametrize("scope", ["read", "send"])
def test_a_token_may_always_revoke_itself(service: Service, scope: str) -> None:
    ann = service.new_user("ann")
    token, by_id = log_in(service, scopes=[scope]), log_in(service, scopes=[scope])
    assert ann.request("DELETE", TOKENS, auth=bearer(token)).status == 204
    response = ann.request("DELETE", f"{TOKENS}?id={by_id['id']}", auth=bearer(by_id))
    assert response.status == 204
    assert len(ids(ann)) == 1


def test_a_password_permits_everything(service: Service) -> None:
    ann = service.new_user("ann")
    ann.send(ann)
    for _, method, target, options in CALLS:
        assert ann.request(method, target, auth=ann.basic, **options).status < 300


def test_scopes_are_checked_before_parameters_and_bodies(stock: Service) -> None:
    ann = stock.new_user("ann")
    token = bearer(log_in(stock, scopes=["account"]))
    ann.get(CHATS + "?page=x", auth=token).problem(403, "insufficient_scope")
    ann.request("POST", CHATS, body=b"{", auth=token).problem(403, "insufficient_scope")


def test_listing_needs_a_user(serve: Serve) -> None:
    service = serve()
    service.get(TOKENS).problem(401, "unauthorized")
    service.request("DELETE", TOKENS + "?others=true").problem(401, "unauthorized")
