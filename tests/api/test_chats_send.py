"""Sends (contract, `POST /chats/`)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.service import CHATS, USERS, Exchange, Serve, Service, ServiceResponse, User, texts
from tests.doubles import SteppedExecutor

KEY = "Idempotency-Key"


@pytest.fixture
def service(either: Service) -> Service:
    """These calls take the fast path, or not."""
    return either


def send(sender: User, to: int, text: str = "hai", key: str | None = None) -> ServiceResponse:
    headers = {} if key is None else {KEY: key}
    return sender.post(CHATS, {"user_id": to, "message": text}, headers=headers)


def test_a_send_answers_with_the_message(service: Service) -> None:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    response = send(bob, ann.id)
    assert response.status == 201
    assert list(response.json) == ["seq", "sent_by", "message", "sent_at", "received_by"]
    assert response.json == {
        "seq": 1,
        "sent_by": bob.id,
        "message": "hai",
        "sent_at": "2026-01-01T00:00:00Z",
        "received_by": ann.id,
    }
    assert ann.page()["messages"] == [response.json]


def test_seqs_are_dense_in_each_inbox(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    seqs = [(to.id, send(sender, to.id).json["seq"]) for sender in (ann, bob) for to in (ann, bob)]
    assert seqs == [(ann.id, 1), (bob.id, 1), (ann.id, 2), (bob.id, 2)]


def test_users_may_write_to_themselves(service: Service) -> None:
    ann = service.new_user()
    ann.send(ann, "a note")
    assert texts(ann.page()) == ["a note"]


def test_nothing_is_acknowledged_before_it_is_durable(serve: Serve) -> None:
    service = serve(worker=SteppedExecutor)
    ann = service.new_user()
    sent = ann.start("POST", CHATS, json_body={"user_id": ann.id, "message": "x"})
    steps = 0
    while sent.held:
        for worker in (service.system.hashing, service.system.reader, service.system.writer):
            if worker.pending and worker is service.system.writer:
                worker.work()
                service.system.turn()
                assert sent.held, "answered between the commit and its news"
                worker.deliver()
            elif worker.pending or worker.done:
                worker.step()
        service.system.turn()
        steps += 1
        assert steps < 20
    assert sent.response.status == 201


@pytest.mark.parametrize(
    "to", [0, -1, True, False, None, 1.0, 1.5, "1", [], {}, 2**53, 2**63, 2**64, 10**30, -(2**63)]
)
def test_the_recipient_is_an_integer_within_range(stock: Service, to: Any) -> None:
    response = stock.new_user().post(CHATS, {"user_id": to, "message": "x"})
    assert "user_id" in response.problem(400, "invalid_body")["detail"]


@pytest.mark.parametrize(
    "text", ["1.0", "1e0", "10e-1", "-0", "01", "+1", "0x1", "1_0", "Infinity"]
)
def test_an_integer_is_written_as_one(stock: Service, text: str) -> None:
    body = f'{{"user_id": {text}, "message": "x"}}'.encode()
    response = stock.new_user().request(
        "POST", CHATS, body=body, headers={"Content-Type": "application/json"}
    )
    response.problem(400, "invalid_body")


@pytest.mark.parametrize("to", [2, 2**31, 2**32, 2**53 - 1])
def test_an_unknown_recipient_is_404(service: Service, to: int) -> None:
    send(service.new_user(), to).problem(404, "user_not_found")


@pytest.mark.parametrize("value", [None, 1, True, [], {}, ["x"], 1.5])
def test_a_message_is_a_text(stock: Service, value: Any) -> None:
    ann = stock.new_user()
    response = ann.post(CHATS, {"user_id": 1, "message": value})
    assert "message" in response.problem(400, "invalid_body")["detail"]


@pytest.mark.parametrize("body", [{"user_id": 1}, {"message": "x"}, {}])
def test_both_members_are_required(stock: Service, body: Any) -> None:
    stock.new_user().post(CHATS, body).problem(400, "invalid_body")


WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""All 25 characters of White_Space (Unicode Character Database, PropList)."""


@pytest.mark.parametrize("text", ["", *WHITE_SPACE, WHITE_SPACE, " " * 16385])
def test_a_message_of_white_space_is_refused(stock: Service, text: str) -> None:
    response = send(stock.new_user(), 1, text)
    assert "message" in response.problem(400, "invalid_body")["detail"]


@pytest.mark.parametrize(
    "text",
    [
        *("x", " x ", "\x1c", "\x1f", "\u200b", "\ufeff", "\u2800", "\u180e", "\x7f", "\x01"),
        *("\u202e", "🙂", "\U0010ffff", "\ufffe", "\uffff", "e\u0301", "é", "<script>", "\\", '"'),
        *("\u2028x", "a\r\nb", "</script>", "null", "\ud7ff", "\ue000", "'; DROP TABLE message;--"),
    ],
)
def test_any_other_text_arrives_unchanged(stock: Service, text: str) -> None:
    ann = stock.new_user()
    assert send(ann, ann.id, text).json["message"] == text
    assert texts(ann.page()) == [text]
    assert texts(ann.poll("?since=0")) == [text]


def test_u_0000_is_refused(service: Service) -> None:
    ann = service.new_user()
    for text in ("\0", "a\0b", " \0 "):
        send(ann, ann.id, text).problem(400, "invalid_body")


@pytest.mark.parametrize(
    "escapes", [r"\ud800", r"\udc00", r"\udc00\ud800", r"a\ud83d", r"\ud83d\u0041", r"\udbff\udbff"]
)
def test_a_lone_surrogate_is_refused(stock: Service, escapes: str) -> None:
    body = f'{{"user_id": 1, "message": "{escapes}"}}'.encode()
    response = stock.new_user().request(
        "POST", CHATS, body=body, headers={"Content-Type": "application/json"}
    )
    response.problem(400, "invalid_body")


def test_a_surrogate_pair_is_a_character(stock: Service) -> None:
    ann = stock.new_user()
    body = rb'{"user_id": 1, "message": "\ud83d\ude42"}'
    response = ann.request("POST", CHATS, body=body, headers={"Content-Type": "application/json"})
    assert response.json["message"] == "🙂"


@pytest.mark.parametrize("character", ["x", "é", "€", "🙂"])
def test_a_message_has_up_to_16_kib_of_utf_8(service: Service, character: str) -> None:
    ann = service.new_user()
    most = 16384 // len(character.encode())
    assert send(ann, ann.id, character * most).status == 201
    send(ann, ann.id, character * (most + 1)).problem(413, "message_too_large")


def test_the_largest_message_is_configured(serve: Serve) -> None:
    service = serve(max_message_bytes=3)
    ann = service.new_user()
    assert send(ann, ann.id, "€").status == 201
    send(ann, ann.id, "abcd").problem(413, "message_too_large")


def test_sending_needs_a_user(service: Service) -> None:
    service.new_user()
    service.post(CHATS, {"user_id": 1, "message": "x"}).problem(401, "unauthorized")


def test_the_order_is_that_of_commit(service: Service) -> None:
    ann, bob, cat = service.new_user(), service.new_user(), service.new_user()
    started = [
        sender.start("POST", CHATS, json_body={"user_id": ann.id, "message": str(number)})
        for number, sender in enumerate([bob, cat, bob, ann, cat])
    ]
    service.settle()
    by_seq = sorted(started, key=lambda each: int(each.response.json["seq"]))
    assert [each.response.json["seq"] for each in by_seq] == [1, 2, 3, 4, 5]
    sent = [each.response.json["message"] for each in by_seq]
    assert texts(ann.poll("?since=0")) == sent


def test_a_key_sends_once(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    first = send(bob, ann.id, "once", "key-1")
    service.advance(3600)
    again = send(bob, ann.id, "once", "key-1")
    assert (first.status, again.status) == (201, 200)
    assert first.header("Idempotency-Replayed") is None
    assert again.header("Idempotency-Replayed") == "true"
    assert again.json == first.json
    assert texts(ann.page()) == ["once"]


def test_a_key_is_remembered_for_a_day(service: Service) -> None:
    ann = service.new_user()
    first = send(ann, ann.id, "once", "key")
    service.advance(24 * 3600)
    assert send(ann, ann.id, "once", "key").json == first.json
    assert texts(ann.page()) == ["once"]


def test_a_key_is_bound_to_its_body(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    send(bob, ann.id, "once", "key")
    send(bob, ann.id, "other", "key").problem(422, "idempotency_key_reused")
    send(bob, bob.id, "once", "key").problem(422, "idempotency_key_reused")
    assert texts(ann.page()) == ["once"]
    assert texts(bob.page()) == []


def test_a_key_belongs_to_its_sender(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    assert send(ann, ann.id, "x", "key").status == 201
    assert send(bob, ann.id, "x", "key").status == 201
    assert send(bob, ann.id, "x", "KEY").status == 201


def test_one_body_written_in_two_ways_is_the_same(service: Service) -> None:
    ann = service.new_user()
    headers: dict[str, Any] = {KEY: "key", "Content-Type": "application/json"}
    statuses = [
        ann.request("POST", CHATS, body=body, headers=headers).status
        for body in [
            b'{"user_id":1,"message":"hai"}',
            b' { "message" : "h\\u0061i", "user_id" : 1 } ',
        ]
    ]
    assert statuses == [201, 200]


def test_of_concurrent_sends_with_a_key_one_is_the_first(service: Service) -> None:
    ann = service.new_user()
    started: list[Exchange] = []
    for _ in range(5):
        started.append(
            ann.start(
                "POST", CHATS, json_body={"user_id": ann.id, "message": "x"}, headers={KEY: "k"}
            )
        )
    service.settle()
    assert sorted(each.response.status for each in started) == [200, 200, 200, 200, 201]
    assert len({each.response.body for each in started}) == 1
    assert ann.page()["meta"]["count"] == 1


def test_of_concurrent_sends_with_a_key_and_other_bodies_one_is_taken(service: Service) -> None:
    ann = service.new_user()
    started = [
        ann.start("POST", CHATS, json_body={"user_id": ann.id, "message": text}, headers={KEY: "k"})
        for text in "abc"
    ]
    service.settle()
    assert sorted(each.response.status for each in started) == [201, 422, 422]
    assert ann.page()["meta"]["count"] == 1


def test_a_refused_send_does_not_use_its_key(service: Service) -> None:
    ann = service.new_user()
    send(ann, 99, "x", "key").problem(404, "user_not_found")
    send(ann, ann.id, " ", "key").problem(400, "invalid_body")
    send(ann, ann.id, "x" * 16385, "key").problem(413, "message_too_large")
    assert send(ann, ann.id, "x", "key").status == 201


def test_a_replay_survives_its_recipient(service: Service) -> None:
    ann, bob = service.new_user(), service.new_user()
    first = send(bob, ann.id, "x", "key")
    ann.request("DELETE", USERS)
    again = send(bob, ann.id, "x", "key")
    assert (again.status, again.json) == (200, first.json)


@pytest.mark.parametrize("key", ["!", "~", "k" * 255, "a,b", '"quoted"', "a:b;c"])
def test_a_key_is_visible_ascii(service: Service, key: str) -> None:
    ann = service.new_user()
    assert [send(ann, ann.id, "x", key).status for _ in range(2)] == [201, 200]


@pytest.mark.parametrize(
    "key", ["", "a b", "k" * 256, "é", b"\xff", b"a\tb", ["a", "b"], ["a", "a"]]
)
def test_any_other_key_is_refused(service: Service, key: Any) -> None:
    ann = service.new_user()
    response = ann.post(CHATS, {"user_id": 1, "message": "x"}, headers={KEY: key})
    response.problem(400, "invalid_header")
    assert ann.page()["meta"]["count"] == 0


def test_bytes_of_a_message_are_compact_utf_8(service: Service) -> None:
    ann = service.new_user()
    response = send(ann, ann.id, "é🙂\n\x7f")
    assert json.loads(response.body)["message"] == "é🙂\n\x7f"
    assert "é🙂".encode() in response.body
    assert b" " not in response.body
