"""What clients see of messages that were removed because they were old."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from chatd.domain.deliveries import FLUSH_SECONDS
from chatd.store.sqlite.housekeeping import RETENTION_SECONDS
from tests.api.service import CHATS, Serve, Service, User, texts

DAY = 86_400.0


@pytest.fixture
def pair(service: Service) -> tuple[User, User]:
    return service.new_user("ann"), service.new_user("bob")


def remove(service: Service) -> None:
    """Remove all messages that there are now."""
    service.clock.advance(1)
    service.system.wait_for(service.system.store.admin.remove_old(service.system.now()))


def filled(service: Service, ann: User, bob: User, old: int, new: int) -> None:
    """Have Bob's inbox begin with removed messages."""
    for number in range(old):
        ann.send(bob, f"old {number}")
    remove(service)
    for number in range(new):
        ann.send(bob, f"new {number}")


def test_pages_are_of_what_there_is(service: Service, pair: tuple[User, User]) -> None:
    ann, bob = pair
    filled(service, ann, bob, 7, 13)
    first = bob.page()
    assert (first["meta"]["count"], first["meta"]["next"]) == (13, 2)
    assert first["messages"][0]["seq"] == 20
    last = bob.page("?page=2")
    assert texts(last) == ["new 2", "new 1", "new 0"]
    assert [message["seq"] for message in last["messages"]] == [10, 9, 8]
    assert (last["meta"]["next"], last["meta"]["count"]) == (None, 13)
    bob.get(CHATS + "?page=3").problem(404, "page_not_found")
    remove(service)
    empty = bob.page()
    assert (empty["meta"]["count"], empty["meta"]["next"], empty["messages"]) == (0, None, [])
    bob.get(CHATS + "?page=2").problem(404, "page_not_found")


def test_pages_are_right_before_rows_are_deleted(service: Service, pair: tuple[User, User]) -> None:
    ann, bob = pair
    filled(service, ann, bob, 0, 12)
    # What another process has removed, and not deleted yet.
    service.system.store.removed[bob.id] = 5
    page = bob.page("?limit=4&page=2")
    assert [message["seq"] for message in page["messages"]] == [8, 7, 6]
    assert (page["meta"]["count"], page["meta"]["next"]) == (7, None)


def test_a_pinned_page_lasts_until_it_is_removed(service: Service, pair: tuple[User, User]) -> None:
    ann, bob = pair
    ann.send(bob)
    old = bob.page()["meta"]["cursor"]
    ann.send(bob)
    edge = bob.page()["meta"]["cursor"]
    remove(service)
    bob.get(f"{CHATS}?at={old}").problem(410, "cursor_expired")
    assert bob.page(f"?at={edge}")["meta"]["count"] == 0
    ann.send(bob, "later")
    assert texts(bob.page(f"?at={edge}")) == []


@pytest.mark.parametrize("changes", ["", "&changes=true"])
def test_a_cursor_from_below_the_edge_has_expired(
    service: Service, pair: tuple[User, User], changes: str
) -> None:
    ann, bob = pair
    empty = bob.poll(f"?since=0{changes}")["meta"]["cursor"]
    ann.send(bob, "1")
    old = bob.poll(f"?since={empty}{changes}")["meta"]["cursor"]
    ann.send(bob, "2")
    edge = bob.poll(f"?since={old}{changes}")["meta"]["cursor"]
    remove(service)
    for cursor in (empty, old):
        for wait in ("", "&wait=30"):
            bob.get(f"{CHATS}?since={cursor}{wait}{changes}").problem(410, "cursor_expired")
    # Of another history nothing is known, whatever was removed from this one.
    foreign = "a" * len(old.partition("-")[0]) + "-1"
    bob.get(f"{CHATS}?since={foreign}{changes}").problem(410, "cursor_epoch")
    # Nothing after this one is missing.
    assert bob.poll(f"?since={edge}{changes}")["messages"] == []
    held = bob.wait(f"?since={edge}&wait=30{changes}")
    ann.send(bob, "3")
    assert texts(held.response.json) == ["3"]
    # It proves its history by the time of a message that is gone.
    for _ in range(2):
        assert texts(bob.poll(f"?since={edge}{changes}")) == ["3"]
        service.system.store._inbox_cache.clear()
    another = re.sub(r"-[0-9a-f]+(?=[.]|$)", "-123", edge)
    bob.get(f"{CHATS}?since={another}{changes}").problem(410, "cursor_epoch")
    # The beginning is where the inbox begins now, and the number of a poll is the newest seq.
    begun = bob.poll(f"?since=0{changes}")
    assert texts(begun) == ["3"]
    assert (begun["meta"]["count"], begun["meta"]["more"]) == (3, False)


def stream_events(body: bytes) -> list[dict[str, Any]]:
    """The lines of a stream."""
    return [json.loads(line) for line in body.splitlines() if line.startswith(b"{")]


def test_a_stream_begins_at_the_edge_or_has_expired(
    service: Service, pair: tuple[User, User]
) -> None:
    ann, bob = pair
    filled(service, ann, bob, 3, 2)
    accept = {"Accept": "application/x-ndjson"}
    stream = bob.start_and_settle("GET", CHATS + "?since=0", headers=accept)
    received = stream.client.transport.value().partition(b"\r\n\r\n")[2]
    assert b'"seq":4' in received
    assert b'"seq":3' not in received
    stream.disconnect()
    epoch = bob.page()["meta"]["cursor"].partition("-")[0]
    expired = bob.request("GET", f"{CHATS}?since={epoch}-2", headers=accept)
    expired.problem(410, "cursor_expired")


def test_what_was_removed_was_not_delivered(service: Service, pair: tuple[User, User]) -> None:
    """A poll of the beginning proves nothing about what it did not return."""
    ann, bob = pair
    ann.get("/api/v1/conversations/")
    filled(service, ann, bob, 3, 0)
    bob.poll("?since=0")
    service.advance(FLUSH_SECONDS)
    [conversation] = [ann.get(f"{CHATS}?with={bob.id}").json["meta"]]
    assert conversation["peer_delivered"] == 0


def test_messages_are_removed_when_they_are_old(serve: Serve) -> None:
    service = serve(keep=int(2 * DAY * 1_000_000))
    ann, bob = service.new_user("ann"), service.new_user("bob")
    ann.send(bob, "1")
    service.advance(DAY)
    ann.send(bob, "2")
    service.advance(RETENTION_SECONDS)
    assert bob.page()["meta"]["count"] == 2
    service.advance(DAY)
    service.advance(RETENTION_SECONDS)
    assert texts(bob.page()) == ["2"]
    service.advance(DAY)
    service.advance(RETENTION_SECONDS)
    assert texts(bob.page()) == []
    ann.send(bob, "3")
    assert [message["seq"] for message in bob.page()["messages"]] == [3]
