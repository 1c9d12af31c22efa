"""`POST /api/v1/chats/?wait_for=...`: answered when the message is delivered or read."""

from __future__ import annotations

import pytest

from tests.api.service import CHATS, Exchange, Serve, Service, User
from tests.api.test_conversations import mark_read

WAITING = f"{CHATS}?wait=30&wait_for="


def send(sender: User, to: User, wait_for: str, **headers: str) -> Exchange:
    """Start a send that waits."""
    body = {"user_id": to.id, "message": "hai"}
    return sender.start_and_settle("POST", WAITING + wait_for, json_body=body, headers=headers)


def test_a_send_is_answered_when_its_message_is_delivered(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    sending = send(ann, bob, "delivered")
    document = bob.poll("?since=0")
    assert sending.held
    bob.poll(f"?since={document['meta']['cursor']}")
    service.advance(1)
    assert sending.response.status == 201
    assert sending.response.json == {**document["messages"][0], "delivered": True}


def test_delivery_is_proved_anew_after_a_standby_has_taken_over(service: Service) -> None:
    """Positions that the database lost are no reason to ignore the cursors of what came since."""
    ann, bob = service.new_user(), service.new_user()
    service.system.components.deliveries.note(bob.id, 100)
    service.advance(1)
    service.system.subscriber.wake_all()
    sending = send(ann, bob, "delivered")
    bob.poll(f"?since={bob.page()['meta']['cursor']}")
    service.advance(1)
    assert sending.response.json["delivered"] is True


def test_a_send_is_answered_when_its_message_is_read(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    first = send(ann, bob, "read")
    second = send(ann, bob, "read")
    bob.poll(f"?since={bob.page()['meta']['cursor']}")
    service.advance(1)
    assert first.held
    mark_read(bob, ann.id, 1)
    service.settle()
    assert first.response.json["read"] is True
    assert second.held
    mark_read(bob, ann.id, 2)
    service.settle()
    assert second.response.json["read"] is True


@pytest.mark.parametrize("query", ["wait_for=read", "wait_for=read&wait=0", "wait_for=read&wait=3"])
def test_the_wait_ends_without_a_receipt(service: Service, query: str) -> None:
    ann, bob = service.new_user(), service.new_user()
    body = {"user_id": bob.id, "message": "hai"}
    sending = ann.start_and_settle("POST", f"{CHATS}?{query}", json_body=body)
    service.advance(3)
    assert (sending.response.status, sending.response.json["read"]) == (201, False)
    assert service.system.is_idle()


def test_without_wait_for_a_wait_has_no_effect(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    response = ann.post(f"{CHATS}?wait=30", {"user_id": bob.id, "message": "hai"})
    assert response.status == 201
    assert "read" not in response.json


def test_a_replay_waits_for_the_first_message(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    first = send(ann, bob, "read", **{"Idempotency-Key": "k"})
    again = send(ann, bob, "read", **{"Idempotency-Key": "k"})
    assert first.held
    assert again.held
    mark_read(bob, ann.id, 1)
    service.settle()
    assert (first.response.status, again.response.status) == (201, 200)
    assert again.response.header("Idempotency-Replayed") == "true"
    assert first.response.json == again.response.json
    assert bob.page()["meta"]["count"] == 1


def test_a_revoked_token_ends_the_wait_and_the_send_stands(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    sending = send(ann, bob, "delivered")
    assert ann.request("DELETE", "/api/v1/tokens/").status == 204
    service.settle()
    sending.response.problem(401, "unauthorized")
    assert bob.page()["meta"]["count"] == 1


def test_it_counts_as_a_held_poll(serve: Serve) -> None:
    service = serve("chatd")
    ann, bob = service.new_user(), service.new_user()
    sending = send(ann, bob, "delivered")
    polls = [ann.wait("?since=now&wait=30") for _ in range(8)]
    service.settle()
    assert sending.response.json["delivered"] is False
    assert all(each.held for each in polls)
    assert service.system.notifier.held == 8


def test_a_draining_server_answers_it(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    sending = send(ann, bob, "delivered")
    service.system.notifier.drain()
    service.settle()
    assert sending.response.json["delivered"] is False


def test_a_client_that_disconnects_leaves_nothing(serve: Serve) -> None:
    service = serve("chatd")
    ann, bob = service.new_user(), service.new_user()
    sending = send(ann, bob, "delivered")
    sending.disconnect()
    service.settle()
    assert (service.system.notifier.held, service.system.notifier._waiters) == (0, {})
    assert bob.page()["meta"]["count"] == 1


def test_a_refused_send_does_not_wait(stock: Service) -> None:
    ann = stock.new_user()
    ann.post(f"{WAITING}read", {"user_id": 4711, "message": "x"}).problem(404, "user_not_found")
    body = {"user_id": ann.id, "message": "x"}
    ann.post(f"{CHATS}?wait_for=seen", body).problem(400, "invalid_query")
    ann.post(f"{CHATS}?wait_for=read&wait=x", body).problem(400, "invalid_query")
