"""Owners remove the oldest messages of their inboxes (contract, Make room in the inbox)."""

from __future__ import annotations

import json

import pytest

from chatd.domain.rate_limits import Rates
from chatd.model import InboxLimits
from chatd.rates import Rate
from chatd.store.sqlite import retention
from tests.api.service import CHATS, TOKENS, USERS, Serve, Service, ServiceResponse, User, texts
from tests.doubles import SteppedExecutor


def remove(user: User, up_to: object, more: str = "") -> ServiceResponse:
    return user.request("DELETE", f"{CHATS}?up_to={up_to}{more}")


def send(user: User, to: User) -> ServiceResponse:
    return user.post(CHATS, {"user_id": to.id, "message": "hai"})


def test_the_owner_of_a_full_inbox_makes_room(serve: Serve) -> None:
    service = serve(limits=InboxLimits(3))
    ann, bob, cat = (service.new_user() for _ in range(3))
    for _ in range(3):
        ann.send(bob)
    for each in (ann, cat):
        send(each, bob).problem(507, "inbox_full")
    response = remove(bob, 2)
    assert (response.status, response.body) == (204, b"")
    assert cat.send(bob, "at last")["seq"] == 4
    assert ann.send(bob)["seq"] == 5
    send(cat, bob).problem(507, "inbox_full")


def test_what_is_removed_is_gone_for_both(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    for user in (ann, bob):
        user.get("/api/v1/conversations/")
    for number in range(1, 6):
        ann.send(bob, f"{number}")
    service.advance(1)
    bob.send(ann, "answer")
    for path in (CHATS, CHATS.rstrip("/")):
        assert bob.request("DELETE", f"{path}?up_to=3").status == 204
    page = bob.page()
    assert texts(page) == ["5", "4"]
    assert (page["meta"]["count"], page["meta"]["next"]) == (2, None)
    for one, other in ((ann, bob), (bob, ann)):
        assert texts(one.page(f"?with={other.id}")) == ["answer", "5", "4"]
    # Nothing else of the account, and nothing of others.
    assert texts(ann.page()) == ["answer"]
    assert remove(bob, 5).status == 204
    assert (bob.page()["meta"]["count"], bob.page()["messages"]) == (0, [])
    [listed] = bob.get("/api/v1/conversations/").json["conversations"]
    assert (listed["last_message"]["message"], listed["unread"]) == ("answer", 0)
    ann.request("DELETE", f"{CHATS}?user_id={bob.id}&seq=4").problem(404, "message_not_found")
    assert ann.send(bob, "next")["seq"] == 6


def test_cursors_from_before_expire_and_others_do_not(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    ann.send(bob, "1")
    old = bob.page()["meta"]["cursor"]
    for number in (2, 3, 4):
        ann.send(bob, f"{number}")
    edge = bob.poll("?since=0&limit=3")["meta"]["cursor"]
    held = bob.wait(f"?since={bob.page()['meta']['cursor']}&wait=30")
    lines = {"Accept": "application/x-ndjson"}
    stream = bob.start_and_settle("GET", f"{CHATS}?since=now", headers=lines)
    assert remove(bob, 3).status == 204
    for query in (f"?since={old}", f"?since={old}&wait=30", f"?at={old}"):
        bob.get(CHATS + query).problem(410, "cursor_expired")
    assert texts(bob.poll(f"?since={edge}")) == ["4"]
    assert texts(bob.poll("?since=0")) == ["4"]
    # Who is up to date does not notice.
    ann.send(bob, "5")
    assert texts(held.response.json) == ["5"]
    [line] = [
        each for each in stream.client.transport.value().splitlines() if b'"message":{' in each
    ]
    assert json.loads(line[line.index(b"{") :])["message"]["message"] == "5"
    stream.disconnect()


def test_a_removal_can_be_repeated_but_not_past_the_end(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    for _ in range(3):
        ann.send(bob)
    for up_to in (2, 2, 1):
        assert remove(bob, up_to).status == 204
        assert [message["seq"] for message in bob.page()["messages"]] == [3]
    for up_to in (4, 2**53 - 1):
        problem = remove(bob, up_to).problem(400, "invalid_query")
        assert problem["detail"] == "up_to: past the end of the inbox"
    remove(ann, 1).problem(400, "invalid_query")
    assert bob.page()["meta"]["count"] == 1
    assert remove(bob, 3).status == 204


@pytest.mark.parametrize("up_to", ["", "0", "-1", "1.0", "x", "2&up_to=2", f"{2**53}"])
def test_a_malformed_seq_is_refused(stock: Service, up_to: str) -> None:
    ann = stock.new_user()
    ann.send(ann)
    remove(ann, up_to).problem(400, "invalid_query")


@pytest.mark.parametrize("more", ["&user_id=1", "&seq=1", "&user_id=1&seq=1"])
def test_a_removal_is_not_combined_with_a_deletion(stock: Service, more: str) -> None:
    ann = stock.new_user()
    ann.send(ann)
    problem = remove(ann, 1, more).problem(400, "invalid_query")
    assert problem["detail"].endswith("cannot be combined with up_to")
    assert texts(ann.page()) == ["hai"]


def test_a_password_will_do_and_a_token_needs_the_scope_account(service: Service) -> None:
    ann = service.new_user("ann")
    for _ in range(4):
        ann.send(ann)
    tokens = {}
    for scope in ("read", "send", "account"):
        body = {"username": "ann", "password": "password", "scopes": [scope]}
        tokens[scope] = f"Bearer {service.post(TOKENS, body).json['token']}"
    for scope in ("read", "send"):
        response = ann.request("DELETE", f"{CHATS}?up_to=1", auth=tokens[scope])
        response.problem(403, "insufficient_scope")
    deletion = f"{CHATS}?user_id={ann.id}&seq=1"
    for scope in ("read", "account"):
        ann.request("DELETE", deletion, auth=tokens[scope]).problem(403, "insufficient_scope")
    assert ann.request("DELETE", deletion, auth=tokens["send"]).status == 204
    assert ann.request("DELETE", f"{CHATS}?up_to=2", auth=tokens["account"]).status == 204
    assert ann.request("DELETE", f"{CHATS}?up_to=3", auth=ann.basic).status == 204
    assert ann.page()["meta"]["count"] == 1
    service.request("DELETE", f"{CHATS}?up_to=4").problem(401, "unauthorized")


@pytest.mark.parametrize(
    ("query", "needed"),
    [
        ("up_to=x", "account"),
        ("up_to", "account"),
        ("%75p_to=%FF", "account"),
        ("up_to=1&up_to=1", "account"),
        ("up_to=1&user_id=1", "account"),
        ("", "send"),
        ("user_id=x&seq=1", "send"),
        ("user_id=1", "send"),
        ("UP_TO=1", "send"),
    ],
)
def test_the_scope_is_checked_before_the_parameters(
    service: Service, query: str, needed: str
) -> None:
    ann = service.new_user("ann")
    for scope in ("read", "send", "account"):
        body = {"username": "ann", "password": "password", "scopes": [scope]}
        token = f"Bearer {service.post(TOKENS, body).json['token']}"
        response = ann.request("DELETE", f"{CHATS}?{query}", auth=token)
        if scope == needed:
            response.problem(400, "invalid_query")
        else:
            problem = response.problem(403, "insufficient_scope")
            assert problem["detail"].endswith(f"the scope {needed}")


def test_changes_of_removed_messages_are_not_told_though_their_rows_are_there(
    service: Service,
) -> None:
    ann, bob = service.new_user(), service.new_user()
    cursors = {
        user: user.get(f"{CHATS}?since=now&changes=true").json["meta"]["cursor"]
        for user in (ann, bob)
    }
    for _ in range(4):
        ann.send(bob, "x")
    # Bob has all messages, but not what has changed of them.
    cursors[bob] = bob.get(f"{CHATS}?since={cursors[bob]}").json["meta"]["cursor"]
    for seq in (1, 3):
        edited = {"user_id": bob.id, "seq": seq, "message": "y"}
        assert ann.request("PATCH", CHATS, json_body=edited).status == 200
    for removed, told in ((0, {1, 3}), (2, {3})):
        # As after a removal, until the rows have been deleted, for which there is not always time.
        service.system.store.removed[bob.id] = removed
        for user, seqs in ((ann, told | {4} | ({2} - {removed})), (bob, told)):
            found = user.get(f"{CHATS}?since={cursors[user]}&changes=true").json
            messages = [each["message"] for each in found["changes"] if "message" in each]
            assert {message["seq"] for message in messages} == seqs
            assert found["meta"]["more"] is False
            again = f"{CHATS}?since={found['meta']['cursor']}&changes=true"
            assert user.get(again).json["changes"] == []


def test_a_removal_counts_as_one_message_however_large_it_is(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MESSAGES", 2)
    service = serve(rates=Rates(send=Rate(burst=13, per_second=0.001)))
    ann = service.new_user()
    for _ in range(11):
        ann.send(ann)
    assert remove(ann, 11).status == 204
    assert ann.page()["meta"]["count"] == 0
    assert remove(ann, 11).status == 204
    remove(ann, 11).problem(429, "rate_limited")


def test_a_client_that_disconnects_ends_the_removal(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MESSAGES", 2)
    service = serve("chatd", worker=SteppedExecutor)
    ann, bob = service.new_user(), service.new_user()
    for _ in range(9):
        ann.send(bob)
    exchange = bob.start("DELETE", f"{CHATS}?up_to=8")
    while not service.system.store.removed:
        assert service.system.micro_step()
    exchange.disconnect()
    service.settle()
    left = bob.page()["meta"]["count"]
    assert 1 < left < 9
    # What was done stays done, and the rest can be done.
    assert remove(bob, 8).status == 204
    assert bob.page()["meta"]["count"] == 1


def test_the_account_may_be_deleted_meanwhile(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MESSAGES", 2)
    service = serve("chatd", worker=SteppedExecutor)
    ann = service.new_user()
    for _ in range(9):
        ann.send(ann)
    removal = ann.start("DELETE", f"{CHATS}?up_to=9")
    deletion = ann.start("DELETE", USERS)
    service.settle()
    assert deletion.response.status == 204
    removal.response.problem(401, "unauthorized")
