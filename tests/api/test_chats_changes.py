"""`GET /api/v1/chats/?since=...&changes=true`: changes on the same cursor."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.service import CHATS, Serve, Service, User
from tests.api.test_conversations import mark_read


def poll(user: User, since: str, query: str = "") -> dict[str, Any]:
    response = user.get(f"{CHATS}?since={since}&changes=true{query}")
    assert response.status == 200, response
    document: dict[str, Any] = response.json
    return document


def now(user: User) -> str:
    """A cursor that has seen everything."""
    document = poll(user, "now")
    assert (document["messages"], document["changes"]) == ([], [])
    cursor: str = document["meta"]["cursor"]
    return cursor


def test_what_one_device_sends_is_told_to_the_other(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    cursor = now(ann)
    held = ann.wait(f"?since={cursor}&changes=true&wait=30")
    sent = ann.send(bob, "from the phone")
    service.settle()
    document = held.response.json
    assert document["changes"] == [{"type": "sent", "message": sent}]
    assert document["messages"] == []
    assert document["meta"]["timed_out"] is False
    assert list(document) == ["meta", "messages", "changes"]
    after = poll(ann, document["meta"]["cursor"])
    assert after["changes"] == []
    # Reading consumes nothing.
    assert poll(ann, cursor)["changes"] == document["changes"]


def test_messages_and_changes_come_together(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    cursor = now(ann)
    received = bob.send(ann, "question")
    sent = ann.send(bob, "answer")
    mark_read(ann, bob.id, 1)
    mark_read(bob, ann.id, 1)
    document = poll(ann, cursor, "&wait=30")
    assert document["messages"] == [received]
    assert document["changes"] == [
        {"type": "sent", "message": sent},
        {"type": "read", "user_id": bob.id, "seq": 1},
        {"type": "peer", "user_id": bob.id, "delivered": 1, "read": 1},
    ]
    assert document["meta"]["more"] is False


def test_a_delivery_ends_the_wait(serve: Serve) -> None:
    service = serve("chatd")
    ann, bob = service.new_user(), service.new_user()
    ann.send(bob)
    held = ann.wait(f"?since={now(ann)}&changes=true&wait=30")
    bob.poll(f"?since={bob.page()['meta']['cursor']}")
    service.settle()
    [change] = held.response.json["changes"]
    assert change == {"type": "peer", "user_id": bob.id, "delivered": 1, "read": 0}


def test_polls_of_version_1_are_not_woken_by_changes(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    cursor = now(ann)
    plain = ann.wait(f"?since={cursor}&wait=30")
    ann.send(bob)
    mark_read(bob, ann.id, 1)
    service.settle()
    assert plain.held
    service.advance(30)
    document = plain.response.json
    assert document["meta"]["timed_out"] is True
    assert list(document) == ["meta", "messages"]
    # It keeps the position in the changes.
    assert document["meta"]["cursor"] == cursor
    assert len(poll(ann, document["meta"]["cursor"])["changes"]) == 2


def test_a_cursor_of_version_1_has_seen_all_changes_until_now(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    ann.send(bob, "before")
    cursor = ann.poll("?since=now")["meta"]["cursor"]
    document = poll(ann, cursor)
    assert document["changes"] == []
    after = ann.send(bob, "after")
    found = poll(ann, document["meta"]["cursor"])
    assert [each["message"] for each in found["changes"]] == [after]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_zero_begins_with_everything(service: Service, limit: int) -> None:
    ann, bob, cat = service.new_user(), service.new_user(), service.new_user()
    sent = [ann.send(to, f"{number}") for number in range(3) for to in (bob, cat)]
    received = [bob.send(ann, f"{number}") for number in range(3)]
    mark_read(bob, ann.id, 2)
    for _ in range(2):
        messages, changes, cursor = [], [], "0"
        while True:
            document = poll(ann, cursor, f"&limit={limit}&wait=30")
            messages += document["messages"]
            changes += document["changes"]
            assert max(len(document["messages"]), len(document["changes"])) <= limit
            cursor = document["meta"]["cursor"]
            if not document["meta"]["more"]:
                break
        assert messages == received
        found = [each["message"] for each in changes if each["type"] == "sent"]
        assert sorted(found, key=str) == sorted(sent, key=str)
        others = [each for each in changes if each["type"] != "sent"]
        assert others == [{"type": "peer", "user_id": bob.id, "delivered": 2, "read": 2}]
        sent.append(ann.send(bob, "logged"))


def test_changes_are_drained_and_superseded_like_messages(serve: Serve) -> None:
    service = serve("chatd")
    ann = service.new_user()
    cursor = now(ann)
    held = [ann.wait(f"?since={cursor}&changes=true&wait=30") for _ in range(8)]
    ann.wait(f"?since={cursor}&changes=true&wait=30")
    service.settle()
    meta = held[0].response.json["meta"]
    assert (meta["superseded"], meta["cursor"]) == (True, cursor)
    service.system.notifier.drain()
    service.settle()
    for each in held[1:]:
        assert each.response.json["meta"]["cursor"] == cursor


def test_a_revoked_token_ends_the_wait_for_changes(service: Service) -> None:
    ann = service.new_user()
    held = ann.wait("?since=now&changes=true&wait=30")
    assert ann.request("DELETE", "/api/v1/tokens/").status == 204
    service.settle()
    held.response.problem(401, "unauthorized")


def test_a_disconnected_poll_leaves_nothing(serve: Serve) -> None:
    service = serve("chatd")
    ann = service.new_user()
    held = ann.wait("?since=now&changes=true&wait=30")
    held.disconnect()
    service.settle()
    assert (service.system.notifier.held, service.system.notifier._waiters) == (0, {})


def test_a_position_past_the_end_is_of_another_history(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    cursor, _, number = now(ann).rpartition(".")
    ann.send(bob)
    past_the_end = f"{cursor}.{int(number) + 10**6}"
    ann.get(f"{CHATS}?since={past_the_end}&changes=true").problem(410, "cursor_epoch")


@pytest.mark.parametrize("query", ["changes=", "changes=yes", "changes=true&page=1"])
def test_invalid_queries_are_refused(stock: Service, query: str) -> None:
    stock.new_user().get(f"{CHATS}?{query}").problem(400, "invalid_query")


def test_false_is_as_absent(stock: Service) -> None:
    ann = stock.new_user()
    assert "current_page" in ann.page("?changes=false")["meta"]
    assert list(ann.poll("?changes=false&since=0")) == ["meta", "messages"]
    assert list(ann.poll("?changes=true")) == ["meta", "messages", "changes"]
