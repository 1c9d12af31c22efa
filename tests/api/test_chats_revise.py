"""Editing and deleting messages (contract, Edit and delete)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import fail

from chatd.domain.rate_limits import Rates
from chatd.errors import StoreUnavailable
from tests.api.service import CHATS, USERS, Serve, Service, ServiceResponse, User, texts
from tests.doubles import ControlledBus, SteppedExecutor
from tests.test_metrics import value

KEY = {"Idempotency-Key": "key"}
MEMBERS = ["seq", "sent_by", "message", "sent_at", "received_by"]
NOW = "2026-01-01T00:00:00Z"


def edit(user: User, to: int, seq: int, text: str) -> ServiceResponse:
    body = {"user_id": to, "seq": seq, "message": text}
    return user.request("PATCH", CHATS, json_body=body)


def delete(user: User, to: int, seq: int) -> ServiceResponse:
    return user.request("DELETE", f"{CHATS}?user_id={to}&seq={seq}")


def attempts(user: User, to: int, seq: int) -> list[ServiceResponse]:
    """An edit and a deletion."""
    return [edit(user, to, seq, "new"), delete(user, to, seq)]


def everywhere(reader: User, peer: User) -> list[Any]:
    """The messages of a reader's inbox, in every way that it can be read."""
    pages: list[Any] = [
        reader.page()["messages"][::-1],
        reader.page("?page=1&limit=100")["messages"][::-1],
        reader.poll("?since=0&wait=30")["messages"],
        reader.get(CHATS + "?since=0", headers={"Prefer": "wait=1"}).json["messages"],
    ]
    for one, other in ((reader, peer), (peer, reader)):
        both = one.page(f"?with={other.id}")["messages"][::-1]
        pages.append([each for each in both if each["received_by"] == reader.id])
    stream = reader.start_and_settle(
        "GET", CHATS + "?since=0", headers={"Accept": "application/x-ndjson"}
    )
    head, _, body = stream.client.transport.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    lines = [line[line.index(b"{") :] for line in body.splitlines() if b'"message":{' in line]
    pages.append([json.loads(line)["message"] for line in lines])
    stream.disconnect()
    return pages


def test_an_edit_answers_with_the_message_and_everybody_reads_it(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    sent = [ann.send(bob, f"{number}") for number in range(3)]
    assert everywhere(bob, ann) == [sent] * 7
    service.advance(60)
    response = edit(ann, bob.id, 2, "new")
    assert response.status == 200
    assert response.header("Cache-Control") == "no-store"
    assert list(response.json) == [*MEMBERS, "edited_at"]
    assert response.json == {**sent[1], "message": "new", "edited_at": "2026-01-01T00:01:00Z"}
    assert everywhere(bob, ann) == [[sent[0], response.json, sent[2]]] * 7
    again = edit(ann, bob.id, 2, "newer").json
    assert everywhere(bob, ann) == [[sent[0], again, sent[2]]] * 7
    assert bob.page()["meta"]["count"] == 3


def test_a_deletion_leaves_an_empty_message_in_its_place(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    sent = [ann.send(bob, f"{number}") for number in range(3)]
    cursor = bob.page()["meta"]["cursor"]
    assert everywhere(bob, ann) == [sent] * 7
    response = delete(ann, bob.id, 2)
    assert (response.status, response.body) == (204, b"")
    deleted = {**sent[1], "message": "", "deleted_at": NOW}
    assert everywhere(bob, ann) == [[sent[0], deleted, sent[2]]] * 7
    assert list(bob.page()["messages"][1]) == [*MEMBERS, "deleted_at"]
    assert bob.page()["meta"]["cursor"] == cursor
    service.advance(60)
    assert delete(ann, bob.id, 2).status == 204
    assert everywhere(bob, ann) == [[sent[0], deleted, sent[2]]] * 7
    edit(ann, bob.id, 2, "back").problem(409, "message_deleted")
    assert ann.send(bob, "next")["seq"] == 4


def test_a_deleted_message_that_was_edited_shows_both_times(stock: Service) -> None:
    ann, bob = stock.new_user(), stock.new_user()
    ann.send(bob)
    edit(ann, bob.id, 1, "new")
    delete(ann, bob.id, 1)
    [message] = bob.page()["messages"]
    assert list(message) == [*MEMBERS, "edited_at", "deleted_at"]


def test_both_spellings_of_the_path_work(stock: Service) -> None:
    ann = stock.new_user()
    for seq, path in enumerate((CHATS, CHATS.rstrip("/")), 1):
        ann.send(ann, "old")
        body = {"user_id": ann.id, "seq": seq, "message": "new"}
        assert ann.request("PATCH", path, json_body=body).status == 200
        assert ann.request("DELETE", f"{path}?user_id={ann.id}&seq={seq}").status == 204


def test_a_message_that_one_has_nothing_to_do_with_is_not_found(service: Service) -> None:
    ann, bob, cat = (service.new_user() for _ in range(3))
    ann.send(bob)
    for user, to, seq in [
        (ann, bob.id, 2),
        (ann, bob.id, 2**53 - 1),
        (ann, ann.id, 1),
        (ann, 4711, 1),
        (cat, bob.id, 1),
        (bob, ann.id, 1),
    ]:
        for response in attempts(user, to, seq):
            response.problem(404, "message_not_found")
    for response in attempts(bob, bob.id, 1):
        response.problem(403, "not_the_sender")
    assert texts(bob.page()) == ["hai"]


def test_messages_in_the_inbox_of_a_deleted_account_are_not_found(stock: Service) -> None:
    ann, bob = stock.new_user(), stock.new_user()
    ann.send(bob)
    bob.request("DELETE", USERS)
    for response in attempts(ann, bob.id, 1):
        response.problem(404, "message_not_found")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"user_id": 1, "seq": 1}, 400, "invalid_body"),
        ({"user_id": 1, "message": "x"}, 400, "invalid_body"),
        ({"seq": 1, "message": "x"}, 400, "invalid_body"),
        ({"user_id": 1, "seq": 1, "message": "x", "colour": 1}, 400, "invalid_body"),
        ({"user_id": 1, "seq": 0, "message": "x"}, 400, "invalid_body"),
        ({"user_id": 1, "seq": 2**53, "message": "x"}, 400, "invalid_body"),
        ({"user_id": 1, "seq": True, "message": "x"}, 400, "invalid_body"),
        ({"user_id": 1, "seq": 1.0, "message": "x"}, 400, "invalid_body"),
        ({"user_id": 1, "seq": "1", "message": "x"}, 400, "invalid_body"),
        ({"user_id": 1, "seq": 1, "message": ""}, 400, "invalid_body"),
        ({"user_id": 1, "seq": 1, "message": " \u2003\n"}, 400, "invalid_body"),
        ({"user_id": 1, "seq": 1, "message": "a\0b"}, 400, "invalid_body"),
        ({"user_id": 1, "seq": 1, "message": "\ud800"}, 400, "invalid_body"),
        ({"user_id": 1, "seq": 1, "message": None}, 400, "invalid_body"),
        ({"user_id": 1, "seq": 1, "message": "x" * 16385}, 413, "message_too_large"),
        ({"user_id": 1, "seq": 1, "message": "é" * 8193}, 413, "message_too_large"),
    ],
)
def test_an_edit_obeys_the_rules_of_a_send(
    stock: Service, body: dict[str, Any], status: int, code: str
) -> None:
    ann = stock.new_user()
    ann.send(ann, "old")
    ann.request("PATCH", CHATS, json_body=body).problem(status, code)
    # Also for a message that does not exist.
    if "user_id" in body:
        ann.request("PATCH", CHATS, json_body={**body, "user_id": 99}).problem(status, code)
    assert texts(ann.page()) == ["old"]


def test_an_edit_has_the_size_limit_of_a_send(serve: Serve) -> None:
    service = serve(max_message_bytes=10)
    ann = service.new_user()
    ann.send(ann, "x" * 10)
    assert edit(ann, ann.id, 1, "y" * 10).status == 200
    edit(ann, ann.id, 1, "y" * 11).problem(413, "message_too_large")


@pytest.mark.parametrize(
    "query", ["", "?user_id=1", "?seq=1", "?user_id=1&seq=0", "?user_id=x&seq=1", "?user_id=1&seq="]
)
def test_a_deletion_needs_recipient_and_seq(stock: Service, query: str) -> None:
    ann = stock.new_user()
    ann.send(ann)
    ann.request("DELETE", CHATS + query).problem(400, "invalid_query")
    assert texts(ann.page()) == ["hai"]


def test_neither_works_without_credentials(stock: Service) -> None:
    body = {"user_id": 1, "seq": 1, "message": "x"}
    stock.request("PATCH", CHATS, json_body=body).problem(401, "unauthorized")
    stock.request("DELETE", CHATS + "?user_id=1&seq=1").problem(401, "unauthorized")


def test_an_edit_needs_json(stock: Service) -> None:
    ann = stock.new_user()
    response = ann.request("PATCH", CHATS, body=b"{}", headers={"Content-Type": "text/plain"})
    response.problem(415, "unsupported_media_type")


def test_the_same_text_changes_nothing(stock: Service) -> None:
    ann, bob = stock.new_user(), stock.new_user()
    sent = ann.send(bob, "same")
    assert edit(ann, bob.id, 1, "same").json == sent
    edited = edit(ann, bob.id, 1, "other").json
    stock.advance(60)
    assert edit(ann, bob.id, 1, "other").json == edited
    assert bob.page()["messages"] == [edited]


def test_it_can_be_too_late(serve: Serve) -> None:
    service = serve(edit_seconds=60)
    ann, bob = service.new_user(), service.new_user()
    for text in ("edited", "deleted", "old"):
        ann.send(bob, text)
    service.advance(60)
    assert edit(ann, bob.id, 1, "in time").status == 200
    assert delete(ann, bob.id, 2).status == 204
    service.advance(1)
    for response in (*attempts(ann, bob.id, 1), *attempts(ann, bob.id, 3)):
        response.problem(403, "too_late")
    edit(ann, bob.id, 3, "old").problem(403, "too_late")
    # What can be told without the time is told first.
    assert delete(ann, bob.id, 2).status == 204
    edit(ann, bob.id, 2, "x").problem(409, "message_deleted")
    edit(bob, bob.id, 3, "x").problem(403, "not_the_sender")
    edit(ann, bob.id, 4, "x").problem(404, "message_not_found")
    assert texts(bob.page()) == ["old", "", "in time"]


def test_a_replayed_send_shows_the_message_as_it_is_now(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()

    def send() -> ServiceResponse:
        return ann.post(CHATS, {"user_id": bob.id, "message": "old"}, headers=KEY)

    sent = send().json
    edited = edit(ann, bob.id, 1, "new").json
    replayed = send()
    assert (replayed.status, replayed.header("Idempotency-Replayed")) == (200, "true")
    assert replayed.json == edited
    delete(ann, bob.id, 1)
    assert send().json == {**sent, "message": "", "edited_at": NOW, "deleted_at": NOW}
    body = {"user_id": bob.id, "message": "new"}
    ann.post(CHATS, body, headers=KEY).problem(422, "idempotency_key_reused")


def test_edits_and_deletions_count_as_sends(serve: Serve) -> None:
    service = serve(rates=Rates())
    ann = service.new_user()
    ann.send(ann, "x")
    refused = None
    for number in range(201):
        refused = edit(ann, ann.id, 1, f"{number}") if number % 2 else delete(ann, ann.id, 99)
        if refused.status == 429:
            break
    assert refused is not None
    refused.problem(429, "rate_limited")
    assert refused.header("Retry-After") == "1"


def test_polls_and_streams_are_not_woken(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    ann.send(bob, "old")
    cursor = bob.page()["meta"]["cursor"]
    held = [bob.wait(f"?since={cursor}&wait=30"), ann.wait()]
    stream = bob.start_and_settle(
        "GET", f"{CHATS}?since={cursor}", headers={"Accept": "text/event-stream"}
    )
    before = stream.client.transport.value()
    edit(ann, bob.id, 1, "new")
    delete(ann, bob.id, 1)
    assert all(exchange.held for exchange in held)
    assert stream.client.transport.value() == before
    ann.send(bob, "next")
    assert [(each["seq"], each["message"]) for each in held[0].response.json["messages"]] == [
        (2, "next")
    ]
    assert b'"message":"next"' in stream.client.transport.value()
    stream.disconnect()
    held[1].disconnect()


def test_a_held_poll_never_gets_a_text_that_was_changed_before_it_was_answered(
    service: Service,
) -> None:
    ann, bob = service.new_user(), service.new_user()
    service.system.bus.hold = True
    held = bob.wait("?since=0&wait=30")
    ann.send(bob, "old")
    edit(ann, bob.id, 1, "new")
    service.system.bus.release()
    service.settle()
    assert texts(held.response.json) == ["new"]


def test_a_slow_reader_gets_the_text_as_it_is_when_it_reads(serve: Serve) -> None:
    service = serve("chatd")
    ann, bob = service.new_user(), service.new_user()
    stream = bob.start_and_settle(
        "GET", CHATS + "?since=0", headers={"Accept": "application/x-ndjson"}
    )
    transport: Any = stream.client.transport
    transport.producer.pauseProducing()
    for number in range(60):
        ann.send(bob, f"{number}")
    assert b"cursor" not in transport.value()
    assert delete(ann, bob.id, 60).status == 204
    edit(ann, bob.id, 59, "new")
    transport.producer.resumeProducing()
    service.settle()
    last, end = [json.loads(line) for line in transport.value().split(b"\n") if b"cursor" in line][
        -2:
    ]
    assert last["message"]["message"] == "new"
    assert (end["message"]["message"], end["message"]["deleted_at"]) == ("", NOW)
    stream.disconnect()


def test_a_client_that_disconnects_changes_nothing(serve: Serve) -> None:
    bus = ControlledBus()
    service = serve("chatd", worker=SteppedExecutor, bus=bus)
    ann, bob = service.new_user(), service.new_user()
    ann.send(bob, "old")
    body = {"user_id": bob.id, "seq": 1, "message": "new"}
    exchange = ann.start("PATCH", CHATS, json_body=body)
    service.system.turn()
    exchange.disconnect()
    service.settle()
    assert texts(bob.page()) == ["new"]
    assert value(service.system.metrics, "chatd_changed_messages_total") == 1


@pytest.mark.parametrize("change", [edit, delete], ids=lambda each: each.__name__)
def test_an_unavailable_store_is_503_and_the_change_is_announced(
    stock: Service, monkeypatch: pytest.MonkeyPatch, change: Callable[..., ServiceResponse]
) -> None:
    ann = stock.new_user()

    def revise() -> ServiceResponse:
        return change(ann, ann.id, 1, *(["new"] if change is edit else []))

    ann.send(ann)
    monkeypatch.setattr(
        stock.system.store, "revise", lambda _: fail(StoreUnavailable("the disk is full", 7))
    )
    response = revise()
    response.problem(503, "store_unavailable")
    assert response.header("Retry-After") == "7"
    # It may have happened.
    assert value(stock.system.metrics, "chatd_changed_messages_total") == 1
    monkeypatch.undo()
    assert revise().status < 300
    assert value(stock.system.metrics, "chatd_changed_messages_total") == 2
    edit(ann, ann.id, 2, "x").problem(404, "message_not_found")
    assert value(stock.system.metrics, "chatd_changed_messages_total") == 2
