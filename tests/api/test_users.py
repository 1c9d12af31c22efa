"""Users: register, look up, find, change, delete (contract, Users, Account and tokens)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatd.domain.erasures import FIRST_STEPS, PAUSE_SECONDS
from chatd.domain.rate_limits import Rates
from chatd.model import Draft
from chatd.rates import Rate
from chatd.store.erasure_statements import ERASE_MESSAGES
from tests.api.service import (
    CHATS,
    TOKENS,
    USERS,
    Serve,
    Service,
    ServiceResponse,
    User,
    basic,
    texts,
)
from tests.test_metrics import value

ANN = {"username": "ann", "email": "ann@example.org", "password": "zzzzz"}


def test_registration_answers_with_the_user_of_the_seed(service: Service) -> None:
    response = service.post(USERS, ANN)
    assert response.status == 201
    assert response.header("Location") == "/api/v1/users/?user_id=1"
    assert response.header("Cache-Control") == "no-store"
    assert response.json == {
        "id": 1,
        "username": "ann",
        "email": "ann@example.org",
        "date_joined": "2026-01-01T00:00:00Z",
        "last_seen_at": None,
    }
    assert list(response.json) == ["id", "username", "email", "date_joined", "last_seen_at"]


def test_the_location_of_a_new_user_is_theirs(service: Service) -> None:
    location = service.post(USERS, ANN).header("Location")
    assert location is not None
    found = service.get(location, auth=basic("ann", "zzzzz"))
    assert found.json["username"] == "ann"


def test_members_may_come_in_any_order_and_written_in_escapes(stock: Service) -> None:
    body = rb'{ "password":"zz\u007azz","em\u0061il":"a@b","username":"\u0061nn" }'
    response = stock.request(
        "POST", USERS, body=body, headers={"Content-Type": "application/json; charset=UTF-8"}
    )
    assert response.json["username"] == "ann"


@pytest.mark.parametrize(
    "username",
    [
        "",
        " ",
        "a b",
        "a" * 33,
        "ann\n",
        "ann\0",
        "änn",
        "\u0430nn",
        "ann@b",
        "a/b",
        "a:b",
        "\u0663",
        "\u212a",
    ],
)
def test_a_username_is_1_to_32_of_a_few_ascii_characters(stock: Service, username: str) -> None:
    response = stock.post(USERS, {**ANN, "username": username})
    assert "username" in response.problem(400, "invalid_body")["detail"]


@pytest.mark.parametrize("username", ["a", "A.b_c-9", "a" * 32, ".", "-", "..", "0", "None"])
def test_a_username_may_be_any_of_those(stock: Service, username: str) -> None:
    assert stock.post(USERS, {**ANN, "username": username}).json["username"] == username
    found = stock.get(USERS + f"?username={username}", auth=basic(username, "zzzzz"))
    assert found.json["username"] == username


def test_a_username_is_unique_without_regard_to_case(service: Service) -> None:
    service.post(USERS, ANN)
    response = service.post(USERS, {**ANN, "username": "ANN"})
    response.problem(409, "username_taken")


def test_the_name_of_a_deleted_account_stays_taken(service: Service) -> None:
    service.post(USERS, ANN)
    assert service.request("DELETE", USERS, auth=basic("ann", "zzzzz")).status == 204
    service.post(USERS, {**ANN, "username": "Ann"}).problem(409, "username_taken")


def test_ids_are_not_reused(service: Service) -> None:
    ann = service.new_user("ann")
    ann.request("DELETE", USERS)
    assert service.new_user("bob").id == ann.id + 1


def test_one_email_may_have_many_accounts(service: Service) -> None:
    service.post(USERS, ANN)
    assert service.post(USERS, {**ANN, "username": "bob"}).status == 201


@pytest.mark.parametrize(
    "email",
    ["", "ann", "@", "ann@", "@b", "a@b@c", "a@@b", "a" * 253 + "@b", "a@b\0", "é" * 254 + "@b"],
)
def test_an_email_has_one_at_sign_inside(stock: Service, email: str) -> None:
    response = stock.post(USERS, {**ANN, "email": email})
    assert "email" in response.problem(400, "invalid_body")["detail"]


@pytest.mark.parametrize("email", ["a@b\r\nBcc: x", "a\t@b", "a@\x7f", "a@b\x85", "\u2028a@b"])
def test_an_email_has_no_control_characters(stock: Service, email: str) -> None:
    response = stock.post(USERS, {**ANN, "email": email})
    assert response.problem(400, "invalid_body")["detail"] == "email: no control characters"


@pytest.mark.parametrize("email", ["a@b", "a" * 252 + "@b", "é" * 252 + "@b", "ann+x@exämple.org"])
def test_an_email_may_be_long_and_in_any_script(stock: Service, email: str) -> None:
    assert stock.post(USERS, {**ANN, "email": email}).json["email"] == email


@pytest.mark.parametrize("password", ["", "zzzz", "z" * 1025])
def test_a_password_has_5_to_1024_characters(stock: Service, password: str) -> None:
    response = stock.post(USERS, {**ANN, "password": password})
    detail = response.problem(400, "invalid_body")["detail"]
    assert "password" in detail
    assert password == "" or password not in detail


@pytest.mark.parametrize(
    "password", ["zzzzz", "z" * 1024, "🔑" * 5, "🔑" * 1024, "     ", "a:b:c", "p\0p\0p"]
)
def test_a_password_may_be_any_text(stock: Service, password: str) -> None:
    assert stock.post(USERS, {**ANN, "password": password}).status == 201
    assert stock.get(USERS, auth=basic("ann", password)).status == 200
    assert stock.get(USERS, auth=basic("ann", password + "x")).status == 401
    assert stock.post(TOKENS, {"username": "ann", "password": password}).status == 201


def test_the_shortest_password_is_configured(serve: Serve) -> None:
    strict = serve(min_password_length=12)
    strict.post(USERS, {**ANN, "password": "z" * 11}).problem(400, "invalid_body")
    assert strict.post(USERS, {**ANN, "password": "z" * 12}).status == 201


def test_where_registration_is_closed_nobody_registers(serve: Serve) -> None:
    closed = serve(registration_open=False)
    closed.post(USERS, ANN).problem(403, "registration_closed")


@pytest.mark.parametrize("missing", list(ANN))
def test_every_member_is_required(stock: Service, missing: str) -> None:
    body = {name: value for name, value in ANN.items() if name != missing}
    assert missing in stock.post(USERS, body).problem(400, "invalid_body")["detail"]


@pytest.mark.parametrize("value", [None, 1, 1.5, True, [], {}, ["zzzzz"]])
@pytest.mark.parametrize("name", list(ANN))
def test_every_member_is_a_text(stock: Service, name: str, value: Any) -> None:
    assert name in stock.post(USERS, {**ANN, name: value}).problem(400, "invalid_body")["detail"]


def test_an_unknown_member_is_named(stock: Service) -> None:
    response = stock.post(USERS, {**ANN, "is_admin": True})
    assert "is_admin" in response.problem(400, "invalid_body")["detail"]


@pytest.mark.parametrize("name", list(ANN))
@pytest.mark.parametrize("text", [r"\ud800", r"\udfff", r"\udc00\ud800", r"x\ud83dx"])
def test_a_lone_surrogate_is_no_text(stock: Service, name: str, text: str) -> None:
    body = json.dumps({**ANN, name: "@TEXT@"}).replace("@TEXT@", f"a@b{text}cde").encode()
    response = stock.request("POST", USERS, body=body, headers={"Content-Type": "application/json"})
    response.problem(400, "invalid_body")


def test_the_caller_is_the_default(service: Service) -> None:
    ann = service.new_user("ann")
    response = ann.get(USERS)
    assert response.status == 200
    assert response.header("Cache-Control") == "no-store"
    assert (response.json["id"], response.json["username"]) == (ann.id, "ann")


def test_a_user_finds_others_by_id_and_by_name_whatever_its_case(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("Bob")
    by_id = ann.get(USERS + f"?user_id={bob.id}").json
    by_name = ann.get(USERS + "?username=bOB").json
    assert by_id == by_name
    assert list(by_id) == ["id", "username", "email", "date_joined", "last_seen_at"]
    assert (by_id["id"], by_id["username"]) == (bob.id, "Bob")


@pytest.mark.parametrize(
    "query",
    ["user_id=99", "user_id=9007199254740991", "username=nobody", "username=", "username=%00"],
)
def test_an_unknown_user_is_404(service: Service, query: str) -> None:
    service.new_user().get(f"{USERS}?{query}").problem(404, "user_not_found")


@pytest.mark.parametrize(
    "value",
    [
        *("", "0", "-1", "1.0", "1e0", "%201", "1%20", "%2B1", "+1", "1_000", "0x10", "abc"),
        *("9007199254740992", "9" * 400, "9" * 5000, "%D9%A1", "%EF%BC%91", "%FF", "%00", "1%0A"),
        *("null", "true", "1,2", "%F0%9D%9F%8F", "%E2%91%A0", "NaN", "Infinity"),
    ],
)
def test_an_id_in_a_query_is_plain_digits_within_range(stock: Service, value: str) -> None:
    stock.new_user().get(f"{USERS}?user_id={value}").problem(400, "invalid_query")


def test_an_id_may_have_leading_zeros(stock: Service) -> None:
    assert stock.new_user().get(USERS + "?user_id=0001").json["id"] == 1


def test_a_parameter_is_given_once(stock: Service) -> None:
    ann = stock.new_user()
    ann.get(USERS + "?user_id=1&user_id=1").problem(400, "invalid_query")
    ann.get(USERS + "?username=a&user_id=1").problem(400, "invalid_query")


def test_unknown_parameters_are_ignored(stock: Service) -> None:
    ann = stock.new_user()
    assert ann.get(USERS + "?x=1&x=%FF&user_id=1&=&&;").json["id"] == ann.id
    for query in ("?limit=20", "?limit=20&user_id=1", "?username=user0&limit=1"):
        assert ann.get(USERS + query).json["id"] == ann.id
    ann.get(USERS + "?limit=101").problem(400, "invalid_query")


def test_looking_up_needs_a_user(service: Service) -> None:
    service.new_user()
    service.get(USERS + "?user_id=1").problem(401, "unauthorized")
    service.get(USERS).problem(401, "unauthorized")
    service.request("DELETE", USERS).problem(401, "unauthorized")


def test_last_seen_is_null_until_the_first_request(service: Service) -> None:
    service.post(USERS, ANN)
    bob = service.new_user("bob")
    assert bob.get(USERS + "?username=ann").json["last_seen_at"] is None
    service.advance(7)
    service.get(USERS, auth=basic("ann", "zzzzz"))
    assert bob.get(USERS + "?username=ann").json["last_seen_at"] == "2026-01-01T00:00:07Z"


def test_last_seen_moves_at_most_once_a_minute(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    seen = ann.get(USERS).json["last_seen_at"]
    service.advance(59)
    ann.get(USERS)
    assert bob.get(USERS + "?username=ann").json["last_seen_at"] == seen
    service.advance(1)
    ann.get(USERS)
    assert bob.get(USERS + "?username=ann").json["last_seen_at"] == "2026-01-01T00:01:00Z"


def test_a_deleted_account_is_gone_and_what_it_sent_stays(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    ann.send(bob, "before")
    bob.send(ann, "to be lost")
    deletion = ann.request("DELETE", USERS)
    assert (deletion.status, deletion.body) == (204, b"")
    assert deletion.header("Cache-Control") == "no-store"
    for auth in (ann.bearer, ann.basic):
        service.get(USERS, auth=auth).problem(401, "unauthorized")
        service.get(CHATS, auth=auth).problem(401, "unauthorized")
    service.post(TOKENS, {"username": "ann", "password": "password"}).problem(401, "unauthorized")
    bob.get(USERS + f"?user_id={ann.id}").problem(404, "user_not_found")
    bob.get(USERS + "?username=ann").problem(404, "user_not_found")
    bob.post(CHATS, {"user_id": ann.id, "message": "x"}).problem(404, "user_not_found")
    assert texts(bob.page()) == ["before"]
    assert bob.page()["messages"][0]["sent_by"] == ann.id


def test_an_erased_account_leaves_no_text_behind(service: Service) -> None:
    ann, bob, cat = (service.new_user(name) for name in ("ann", "bob", "cat"))
    ann.send(bob, "secret")
    cat.send(bob, "stays")
    changes = CHATS + "?since=now&changes=true"
    cursor = bob.get(changes).json["meta"]["cursor"]
    held = bob.start("GET", f"{CHATS}?since={cursor}&changes=true&wait=30")
    plain = bob.wait()
    deletion = ann.request("DELETE", USERS + "?erase=true")
    assert (deletion.status, deletion.body) == (204, b"")
    service.settle()
    [change] = held.response.json["changes"]
    assert change["type"] == "changed"
    assert (change["message"]["seq"], change["message"]["message"]) == (1, "")
    assert change["message"]["deleted_at"] == "2026-01-01T00:00:00Z"
    assert plain.held
    plain.disconnect()
    assert texts(bob.page()) == ["stays", ""]
    assert texts(bob.page(f"?with={ann.id}")) == [""]
    service.get(USERS, auth=ann.bearer).problem(401, "unauthorized")
    assert value(service.system.metrics, "chatd_changed_messages_total") == 1


def test_what_a_large_account_sent_is_erased_in_the_background(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    count = FIRST_STEPS * ERASE_MESSAGES + 150
    store = service.system.store
    service.system.wait_for(store.append([Draft(ann.id, bob.id, "x")] * count))
    deletion = ann.request("DELETE", USERS + "?erase=true")
    assert (deletion.status, deletion.body) == (202, b"")
    assert deletion.header("Cache-Control") == "no-store"
    assert texts(bob.page())[0] == "x"
    for _ in range(3):
        service.advance(PAUSE_SECONDS)
    assert set(texts(bob.page("?limit=100"))) == {""}


@pytest.mark.parametrize("query", ["?erase=false", "?erase=", "?erase=1", "?erase=True"])
def test_erase_is_true_or_left_out(service: Service, query: str) -> None:
    ann = service.new_user("ann")
    ann.request("DELETE", USERS + query).problem(400, "invalid_query")
    assert ann.get(USERS).status == 200


def test_deletion_ends_the_polls_of_every_way_of_logging_in(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    token = service.post(TOKENS, {"username": "ann", "password": "password"}).json["token"]
    held = [ann.wait(auth=auth) for auth in (ann.bearer, ann.basic, f"Bearer {token}")]
    other = bob.wait()
    assert ann.request("DELETE", USERS).status == 204
    for poll in held:
        poll.response.problem(401, "unauthorized")
    assert other.held
    other.disconnect()


def test_an_account_can_be_deleted_once_only(service: Service) -> None:
    ann = service.new_user("ann")
    first, second = ann.start("DELETE", USERS), ann.start("DELETE", USERS)
    service.settle()
    assert [first.response.status, second.response.status] == [204, 401]
    ann.request("DELETE", USERS).problem(401, "unauthorized")


# Finding users by the beginning of their name


def found(service: Service, query: str) -> list[str]:
    """The names that Ann, who is the first user, finds."""
    response = service.get(USERS + query, auth=basic("ann", "password"))
    assert response.status == 200, response
    assert response.header("Cache-Control") == "no-store"
    users = response.json["users"]
    assert all(list(user) == ["id", "username"] for user in users)
    return [user["username"] for user in users]


@pytest.fixture
def directory(serve: Serve) -> Service:
    """A service with an open directory and some users."""
    service = serve(directory=True)
    for name in ("ann", "Bob", "anna", "ANNE", "an-x", "an.y", "an_z", "Bo", "b", "zoe"):
        service.new_user(name)
    return service


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?prefix=an", ["an-x", "an.y", "an_z", "ann", "anna", "ANNE"]),
        ("?prefix=AN", ["an-x", "an.y", "an_z", "ann", "anna", "ANNE"]),
        ("?prefix=an&limit=2", ["an-x", "an.y"]),
        ("?prefix=ann", ["ann", "anna", "ANNE"]),
        ("?prefix=an_", ["an_z"]),
        ("?prefix=an.", ["an.y"]),
        ("?prefix=b", ["b", "Bo", "Bob"]),
        ("?prefix=z", ["zoe"]),
        ("?prefix=zoe1", []),
        ("?prefix=%25", []),
        ("?prefix=%C3%A4", []),
        ("?prefix=%00", []),
        ("?prefix=" + "a" * 33, []),
        ("?prefix=%20an", []),
    ],
)
def test_users_are_found_by_the_beginning_of_their_name(
    directory: Service, query: str, names: list[str]
) -> None:
    assert found(directory, query) == names


def test_twenty_users_are_found_unless_more_are_wanted(directory: Service) -> None:
    for number in range(30):
        directory.system.account(f"user{number:02}")
    names = [f"user{number:02}" for number in range(30)]
    assert found(directory, "?prefix=user") == names[:20]
    assert found(directory, "?prefix=user&limit=100") == names


def test_a_deleted_user_is_not_found(directory: Service) -> None:
    directory.request("DELETE", USERS, auth=basic("anna", "password"))
    assert found(directory, "?prefix=ann") == ["ann", "ANNE"]


@pytest.mark.parametrize(
    "query",
    [
        *("?prefix=", "?prefix=a&limit=0", "?prefix=a&limit=101", "?prefix=a&limit=x"),
        *("?prefix=a&user_id=1", "?prefix=a&username=ann", "?prefix=a&prefix=b", "?prefix=%FF"),
    ],
)
def test_wrong_parameters_of_a_search(directory: Service, query: str) -> None:
    response = directory.get(USERS + query, auth=basic("ann", "password"))
    response.problem(400, "invalid_query")


def test_the_directory_is_closed_unless_it_is_opened(service: Service) -> None:
    ann = service.new_user("ann")
    ann.get(USERS + "?prefix=a").problem(403, "directory_closed")
    ann.get(USERS + "?prefix=").problem(400, "invalid_query")
    service.get(USERS + "?prefix=a").problem(401, "unauthorized")


# Who sees an email address


def test_emails_may_be_shown_to_their_owners_only(serve: Serve) -> None:
    service = serve(show_email=False)
    assert service.post(USERS, {**ANN, "username": "eve"}).json["email"] == "ann@example.org"
    ann, bob = service.new_user("ann"), service.new_user("bob")
    for query in (f"?user_id={bob.id}", "?username=Bob"):
        assert bob.get(USERS + query).json["email"] == "bob@example.org"
        assert ann.get(USERS + query).json["email"] == ""
    assert ann.get(USERS).json["email"] == "ann@example.org"
    change = {"current_password": "password", "email": "new@example.org"}
    assert ann.request("PATCH", USERS, json_body=change).json["email"] == "new@example.org"


def test_emails_are_shown_to_all_by_default(stock: Service) -> None:
    ann, bob = stock.new_user("ann"), stock.new_user("bob")
    assert ann.get(USERS + f"?user_id={bob.id}").json["email"] == "bob@example.org"


# Changing password and email


def change(user: User, **members: Any) -> ServiceResponse:
    """`PATCH` with the present password, unless another is given."""
    auth = members.pop("auth", user.bearer)
    body = {"current_password": "password", **members}
    return user.request("PATCH", USERS, json_body=body, auth=auth)


def log_in(service: Service, password: str) -> ServiceResponse:
    return service.post(TOKENS, {"username": "ann", "password": password})


def test_the_email_is_changed(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    response = change(ann, email="new@example.org")
    assert response.status == 200
    assert response.header("Cache-Control") == "no-store"
    assert response.json == ann.get(USERS).json
    assert list(response.json) == ["id", "username", "email", "date_joined", "last_seen_at"]
    assert bob.get(USERS + "?username=ann").json["email"] == "new@example.org"
    # Nobody is logged out.
    assert ann.get(CHATS, auth=ann.basic).status == 200


def test_a_new_password_replaces_the_old_one(service: Service) -> None:
    ann = service.new_user("ann")
    assert change(ann, password="very secret", email="x@y").json["email"] == "x@y"
    log_in(service, "password").problem(401, "unauthorized")
    ann.get(CHATS, auth=ann.basic).problem(401, "unauthorized")
    assert log_in(service, "very secret").status == 201
    assert ann.get(CHATS, auth=basic("ann", "very secret")).status == 200
    change(ann, email="a@b").problem(403, "wrong_password")
    assert change(ann, current_password="very secret", password="password").status == 200
    assert log_in(service, "password").status == 201


def test_a_new_password_ends_all_other_sessions_and_their_polls(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    other = f"Bearer {log_in(service, 'password').json['token']}"
    ended = [ann.wait(auth=auth) for auth in (other, ann.basic)]
    kept = [ann.wait(), bob.wait()]
    streams = [
        ann.start_and_settle("GET", CHATS, auth=auth, headers={"Accept": "text/event-stream"})
        for auth in (other, ann.basic, ann.bearer)
    ]
    assert change(ann, password="very secret").status == 200
    for poll in ended:
        poll.response.problem(401, "unauthorized")
    assert [stream.held for stream in streams] == [False, False, True]
    for stream in streams[:2]:
        assert b"event: error" in stream.client.transport.value()
    assert all(poll.held for poll in kept)
    service.get(CHATS, auth=other).problem(401, "unauthorized")
    assert ann.get(CHATS).status == 200
    assert [token["current"] for token in ann.get(TOKENS).json["tokens"]] == [True]
    for poll in (*kept, streams[2]):
        poll.disconnect()


def test_with_a_password_the_change_ends_all_sessions(service: Service) -> None:
    ann = service.new_user("ann")
    polls = [ann.wait(), ann.wait(auth=ann.basic)]
    assert change(ann, password="very secret", auth=ann.basic).status == 200
    for poll in polls:
        poll.response.problem(401, "unauthorized")
    for auth in (ann.bearer, ann.basic):
        service.get(USERS, auth=auth).problem(401, "unauthorized")
    [] = ann.get(TOKENS, auth=basic("ann", "very secret")).json["tokens"]


@pytest.mark.parametrize("wrong", ["", "Password", "password ", "p" * 2000])
def test_a_wrong_password_changes_nothing(service: Service, wrong: str) -> None:
    ann = service.new_user("ann")
    before = ann.get(USERS).json
    response = change(ann, current_password=wrong, email="x@y", password="very secret")
    response.problem(403, "wrong_password")
    assert ann.get(USERS).json == before
    assert log_in(service, "password").status == 201


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({}, "password"),
        ({"password": None, "email": None}, "password"),
        ({"password": "zzzz"}, "password: 5 to 1024"),
        ({"password": "z" * 1025}, "password: 5 to 1024"),
        ({"email": "x"}, "email"),
        ({"email": ""}, "email"),
        ({"email": "a@b\0"}, "email"),
        ({"password": 1}, "password"),
        ({"username": "bob"}, "username"),
        ({"current_password": None, "email": "a@b"}, "current_password"),
    ],
)
def test_wrong_changes_are_named(stock: Service, members: dict[str, Any], named: str) -> None:
    ann = stock.new_user("ann")
    assert named in change(ann, **members).problem(400, "invalid_body")["detail"]


def test_the_present_password_is_required(stock: Service) -> None:
    ann = stock.new_user("ann")
    response = ann.request("PATCH", USERS, json_body={"email": "a@b"})
    assert "current_password" in response.problem(400, "invalid_body")["detail"]
    stock.request("PATCH", USERS, json_body={"email": "a@b"}).problem(401, "unauthorized")


def test_wrong_present_passwords_are_limited_as_log_ins_are(serve: Serve) -> None:
    service = serve(rates=Rates(failed_log_in=Rate(2, 0.1)))
    ann = service.new_user("ann")
    for _ in range(2):
        change(ann, current_password="wrong", email="x@y").problem(403, "wrong_password")
    assert change(ann, email="x@y").problem(429, "rate_limited")
    log_in(service, "password").problem(429, "rate_limited")
    service.advance(11)
    assert change(ann, email="x@y").status == 200
