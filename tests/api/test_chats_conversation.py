"""Conversations over HTTP: `GET /chats/?with=USER_ID` (contract, a conversation)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chatd.api import chats_read
from tests.api.service import CHATS, Service, User, texts


def conversation(user: User, peer: int, query: str = "") -> dict[str, Any]:
    """A part of a conversation, which decodes as the declared type."""
    response = user.get(f"{CHATS}?with={peer}{query}")
    assert response.status == 200, response
    assert response.header("Cache-Control") == "no-store"
    msgspec.json.decode(response.body, type=chats_read.Conversation)
    found: dict[str, Any] = response.json
    return found


def test_both_directions_newest_first(service: Service) -> None:
    ann, bob, cat = service.new_user("ann"), service.new_user("bob"), service.new_user("cat")
    for number in range(3):
        ann.send(bob, f"ann {number}")
        cat.send(ann, "not bob's")
        service.advance(1)
        bob.send(ann, f"bob {number}")
        service.advance(1)
    expected = ["bob 2", "ann 2", "bob 1", "ann 1", "bob 0", "ann 0"]
    for user, peer in ((ann, bob), (bob, ann)):
        found = conversation(user, peer.id)
        assert texts(found) == expected
        assert found["meta"]["older"] is None
        assert list(found["meta"]) == ["older", "peer_read", "peer_delivered", "took"]


def test_older_leads_back_to_the_beginning(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    for number in range(25):
        (ann if number % 3 else bob).send(bob if number % 3 else ann, f"{number}")
        service.advance(1)
    found = conversation(ann, bob.id, "&limit=10")
    received = texts(found)
    bob.send(ann, "arrived meanwhile")
    while found["meta"]["older"] is not None:
        found = conversation(ann, bob.id, f"&limit=10&before={found['meta']['older']}")
        received += texts(found)
    assert received == [f"{number}" for number in range(24, -1, -1)]


def test_fifty_unless_another_limit_is_given(stock: Service) -> None:
    ann, bob = stock.new_user("ann"), stock.new_user("bob")
    for number in range(51):
        ann.send(bob, f"{number}")
    assert len(conversation(bob, ann.id)["messages"]) == 50
    assert len(conversation(bob, ann.id, "&limit=100")["messages"]) == 51


def test_a_deleted_peer_leaves_what_is_in_the_inbox(service: Service) -> None:
    ann, bob, cat = service.new_user("ann"), service.new_user("bob"), service.new_user("cat")
    ann.send(bob, "deleted with bob's inbox")
    bob.send(ann, "stays")
    ann.send(cat, "deleted with cat's inbox")
    for user in (bob, cat):
        assert user.request("DELETE", "/api/v1/users/").status == 204
    assert texts(conversation(ann, bob.id)) == ["stays"]
    ann.get(f"{CHATS}?with={cat.id}").problem(404, "user_not_found")
    ann.get(f"{CHATS}?with=4711").problem(404, "user_not_found")


def test_a_conversation_without_messages_is_empty(stock: Service) -> None:
    ann, bob = stock.new_user("ann"), stock.new_user("bob")
    assert conversation(ann, bob.id)["messages"] == []


@pytest.mark.parametrize(
    "query",
    [
        *("with=", "with=0", "with=x", "with=1.0", "with=+1", "with=-1", "with=9007199254740992"),
        *("with=2&limit=0", "with=2&limit=101", "with=2&with=3"),
        *("with=2&page=1", "with=2&since=0", "with=2&wait=1", "with=2&at=aaaaaaaaaaaaaaaa-1"),
        "before=1.1.1",
    ],
)
def test_invalid_queries_are_refused(stock: Service, query: str) -> None:
    ann = stock.new_user("ann")
    ann.get(f"{CHATS}?{query}").problem(400, "invalid_query")


@pytest.mark.parametrize(
    "before",
    ["", "x", "1.1", "1.1.1.1", "01.1.1", "1.1.0", "-1.1.1", "fffffffffffffff.1.1", "1.1.G"],
)
def test_before_takes_only_what_older_returned(stock: Service, before: str) -> None:
    ann = stock.new_user("ann")
    ann.get(f"{CHATS}?with=1&before={before}").problem(400, "invalid_cursor")


def test_a_preferred_wait_is_not_for_conversations(stock: Service) -> None:
    ann, bob = stock.new_user("ann"), stock.new_user("bob")
    response = ann.get(f"{CHATS}?with={bob.id}", headers={"Prefer": "wait=5"})
    assert response.status == 200
    assert response.header("Preference-Applied") is None


def test_a_part_that_is_too_large_is_cut_and_older_is_right(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    for number in range(15):
        ann.send(bob, "\x01" * 16_000 + f"{number}")
        service.advance(1)
    found = conversation(bob, ann.id, "&limit=100")
    received = texts(found)
    assert len(received) == 10
    found = conversation(bob, ann.id, f"&limit=100&before={found['meta']['older']}")
    received += texts(found)
    assert found["meta"]["older"] is None
    assert [text.lstrip("\x01") for text in received] == [f"{n}" for n in range(14, -1, -1)]
