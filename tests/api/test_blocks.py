"""Blocks, and who may write first (contract, Blocking)."""

from __future__ import annotations

import pytest

from chatd.domain.rate_limits import Rates
from tests.api.service import CHATS, USERS, Serve, Service, ServiceResponse, User, texts

BLOCKS = "/api/v1/blocks/"
KEY = {"Idempotency-Key": "key"}


def block(user: User, blocked: int) -> ServiceResponse:
    return user.request("PUT", BLOCKS, json_body={"user_id": blocked})


def unblock(user: User, blocked: int) -> ServiceResponse:
    return user.request("DELETE", f"{BLOCKS}?user_id={blocked}")


def send(user: User, to: User, text: str = "hai", **headers: str) -> ServiceResponse:
    return user.post(CHATS, {"user_id": to.id, "message": text}, headers={**headers})


def test_a_blocked_sender_is_refused_until_unblocked(service: Service) -> None:
    ann, bob, cat = (service.new_user(name) for name in ("ann", "bob", "cat"))
    ann.send(bob, "before")
    for _ in range(2):
        response = block(bob, ann.id)
        assert (response.status, response.body) == (204, b"")
    send(ann, bob).problem(403, "blocked")
    send(ann, bob, **KEY).problem(403, "blocked")
    for sender, recipient in ((bob, ann), (cat, bob), (ann, cat), (ann, ann)):
        assert send(sender, recipient).status == 201
    assert texts(bob.page()) == ["hai", "before"]
    for _ in range(2):
        response = unblock(bob, ann.id)
        assert (response.status, response.body) == (204, b"")
    assert send(ann, bob, "after", **KEY).json["seq"] == 3


def test_a_repeated_send_is_answered_although_its_sender_was_blocked_since(
    stock: Service,
) -> None:
    ann, bob = stock.new_user(), stock.new_user()
    first = send(ann, bob, **KEY).json
    block(bob, ann.id)
    replayed = send(ann, bob, **KEY)
    assert (replayed.status, replayed.json) == (200, first)


def test_a_blocked_sender_can_delete_but_not_edit(stock: Service) -> None:
    ann, bob = stock.new_user(), stock.new_user()
    ann.send(bob)
    block(bob, ann.id)
    body = {"user_id": bob.id, "seq": 1, "message": "new"}
    ann.request("PATCH", CHATS, json_body=body).problem(403, "blocked")
    assert texts(bob.page()) == ["hai"]
    assert ann.request("DELETE", f"{CHATS}?user_id={bob.id}&seq=1").status == 204


def test_blocks_are_listed_by_name(service: Service) -> None:
    ann, zoe, bob, cat = (service.new_user(name) for name in ("ann", "zoe", "Bob", "cat"))
    response = ann.get(BLOCKS)
    assert (response.status, response.json) == (200, {"blocks": []})
    assert response.header("Cache-Control") == "no-store"
    for each in (zoe, bob, cat):
        block(ann, each.id)
    cat.request("DELETE", USERS)
    assert ann.get(BLOCKS.rstrip("/")).json == {
        "blocks": [
            {"user_id": bob.id, "username": "Bob"},
            {"user_id": zoe.id, "username": "zoe"},
        ]
    }
    assert bob.get(BLOCKS).json == {"blocks": []}
    assert ann.request("HEAD", BLOCKS).status == 200


def test_unknown_accounts_and_oneself_cannot_be_blocked(stock: Service) -> None:
    ann, bob = stock.new_user(), stock.new_user()
    bob.request("DELETE", USERS)
    block(ann, ann.id).problem(400, "invalid_body")
    for unknown in (bob.id, 4711, 2**53 - 1):
        block(ann, unknown).problem(404, "user_not_found")
        assert unblock(ann, unknown).status == 204
    assert unblock(ann, ann.id).status == 204
    assert send(ann, ann).status == 201


@pytest.mark.parametrize("user_id", [0, -1, True, 1.0, "1", None, 2**53])
def test_a_block_needs_a_valid_id(stock: Service, user_id: object) -> None:
    ann = stock.new_user()
    ann.request("PUT", BLOCKS, json_body={"user_id": user_id}).problem(400, "invalid_body")
    ann.request("PUT", BLOCKS, json_body={}).problem(400, "invalid_body")
    ann.request("PUT", BLOCKS, json_body={"user_id": 2, "x": 1}).problem(400, "invalid_body")


@pytest.mark.parametrize("query", ["", "?user_id=", "?user_id=0", "?user_id=x", "?user=1"])
def test_unblocking_needs_a_valid_id(stock: Service, query: str) -> None:
    stock.new_user().request("DELETE", BLOCKS + query).problem(400, "invalid_query")


def test_nothing_works_without_credentials(stock: Service) -> None:
    for method, query in (("GET", ""), ("DELETE", "?user_id=1"), ("PUT", "")):
        stock.request(method, BLOCKS + query, json_body={"user_id": 1}).problem(401, "unauthorized")
    assert stock.request("POST", BLOCKS).header("Allow") == "DELETE, GET, HEAD, OPTIONS, PUT"


def test_changes_of_blocks_count_as_sends(serve: Serve) -> None:
    service = serve(rates=Rates())
    ann, bob = service.new_user(), service.new_user()
    statuses = [(block if number % 2 else unblock)(ann, bob.id).status for number in range(201)]
    assert statuses == [204] * 200 + [429]
    assert ann.get(BLOCKS).status == 200


def test_where_nobody_may_write_first_only_acquaintances_write(serve: Serve) -> None:
    service = serve("chatd", known_only=True)
    ann, bob = service.new_user(), service.new_user()
    send(ann, bob).problem(403, "first_contact_closed")
    send(ann, bob, **KEY).problem(403, "first_contact_closed")
    assert send(ann, ann).status == 201
    ann.post(CHATS, {"user_id": 4711, "message": "x"}).problem(404, "user_not_found")
    # As if they had written while everybody could.
    service.system.store._contacts._known_only = False
    bob.send(ann)
    service.system.store._contacts._known_only = True
    assert send(ann, bob, **KEY).status == 201
    assert send(bob, ann).status == 201
    block(bob, ann.id)
    send(ann, bob).problem(403, "blocked")
