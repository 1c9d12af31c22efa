"""Conversations over HTTP: `GET /chats/?with=USER_ID` (contract, a conversation)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chatd.api import chats_read
from tests.api.service import CHATS, Person, Service


def talk(person: Person, peer: int, query: str = "") -> dict[str, Any]:
    """A part of a conversation, which decodes as the declared type."""
    answer = person.get(f"{CHATS}?with={peer}{query}")
    assert answer.status == 200, answer
    assert answer.header("Cache-Control") == "no-store"
    msgspec.json.decode(answer.body, type=chats_read.Conversation)
    found: dict[str, Any] = answer.json
    return found


def said(found: dict[str, Any]) -> list[str]:
    return [message["message"] for message in found["messages"]]


def test_both_directions_newest_first(service: Service) -> None:
    ann, bob, cat = service.join("ann"), service.join("bob"), service.join("cat")
    for number in range(3):
        ann.send(bob, f"ann {number}")
        cat.send(ann, "not bob's")
        service.advance(1)
        bob.send(ann, f"bob {number}")
        service.advance(1)
    expected = ["bob 2", "ann 2", "bob 1", "ann 1", "bob 0", "ann 0"]
    for person, peer in ((ann, bob), (bob, ann)):
        found = talk(person, peer.id)
        assert said(found) == expected
        assert found["meta"]["older"] is None
        assert list(found["meta"]) == ["older", "took"]


def test_older_leads_back_to_the_beginning(service: Service) -> None:
    ann, bob = service.join("ann"), service.join("bob")
    for number in range(25):
        (ann if number % 3 else bob).send(bob if number % 3 else ann, f"{number}")
        service.advance(1)
    found = talk(ann, bob.id, "&limit=10")
    whole = said(found)
    bob.send(ann, "arrived meanwhile")
    while found["meta"]["older"] is not None:
        found = talk(ann, bob.id, f"&limit=10&before={found['meta']['older']}")
        whole += said(found)
    assert whole == [f"{number}" for number in range(24, -1, -1)]


def test_fifty_unless_another_limit_is_given(stock: Service) -> None:
    ann, bob = stock.join("ann"), stock.join("bob")
    for number in range(51):
        ann.send(bob, f"{number}")
    assert len(talk(bob, ann.id)["messages"]) == 50
    assert len(talk(bob, ann.id, "&limit=100")["messages"]) == 51


def test_a_deleted_peer_leaves_what_is_in_the_inbox(service: Service) -> None:
    ann, bob, cat = service.join("ann"), service.join("bob"), service.join("cat")
    ann.send(bob, "gone with bob's inbox")
    bob.send(ann, "stays")
    ann.send(cat, "gone with cat's inbox")
    for person in (bob, cat):
        assert person.request("DELETE", "/api/v1/users/").status == 204
    assert said(talk(ann, bob.id)) == ["stays"]
    ann.get(f"{CHATS}?with={cat.id}").problem(404, "user_not_found")
    ann.get(f"{CHATS}?with=4711").problem(404, "user_not_found")


def test_a_conversation_without_messages_is_empty(stock: Service) -> None:
    ann, bob = stock.join("ann"), stock.join("bob")
    assert talk(ann, bob.id)["messages"] == []


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
    ann = stock.join("ann")
    ann.get(f"{CHATS}?{query}").problem(400, "invalid_query")


@pytest.mark.parametrize(
    "before",
    ["", "x", "1.1", "1.1.1.1", "01.1.1", "1.1.0", "-1.1.1", "fffffffffffffff.1.1", "1.1.G"],
)
def test_before_takes_only_what_older_returned(stock: Service, before: str) -> None:
    ann = stock.join("ann")
    ann.get(f"{CHATS}?with=1&before={before}").problem(400, "invalid_cursor")


def test_a_preferred_wait_is_not_for_conversations(stock: Service) -> None:
    ann, bob = stock.join("ann"), stock.join("bob")
    answer = ann.get(f"{CHATS}?with={bob.id}", headers={"Prefer": "wait=5"})
    assert answer.status == 200
    assert answer.header("Preference-Applied") is None
