"""Rate limits and overload (contract, General: 429 or 503 with `Retry-After`)."""

from __future__ import annotations

from typing import Any

import pytest

from chatd.domain import passwords, send_batcher
from chatd.domain.rate_limits import Rates
from chatd.errors import StoreUnavailable
from chatd.model import InboxLimits
from chatd.rates import Rate
from tests.api.service import CHATS, TOKENS, USERS, Serve, Service, ServiceResponse, basic
from tests.doubles import SteppedExecutor
from tests.test_metrics import value

FEW = Rates(
    registration=Rate(2, 0.2),
    log_in=Rate(3, 0.5),
    failed_log_in=Rate(2, 0.1),
    send=Rate(2, 0.25),
)


def register(service: Service, name: str, **headers: Any) -> ServiceResponse:
    body = {"username": name, "email": "a@b", "password": "zzzzz"}
    return service.post(USERS, body, headers=headers)


def retry_after(response: ServiceResponse, status: int = 429, code: str = "rate_limited") -> int:
    """The `Retry-After` of a refusal, in seconds."""
    response.problem(status, code)
    value = response.header("Retry-After")
    assert value is not None
    assert value.isdigit()
    assert int(value) >= 1
    return int(value)


@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
def test_sends_are_limited_for_each_account(serve: Serve, front: str) -> None:
    service = serve(front, rates=FEW)
    ann, bob = service.new_user(), service.new_user()
    for _ in range(2):
        ann.send(bob)
    body = {"user_id": bob.id, "message": "x"}
    assert retry_after(ann.post(CHATS, body)) == 4
    bob.send(ann)
    service.advance(3)
    assert retry_after(ann.post(CHATS, body)) == 1
    service.advance(1)
    assert ann.post(CHATS, body).status == 201
    assert bob.page()["meta"]["count"] == 3


def test_an_invalid_send_does_not_count(serve: Serve) -> None:
    service = serve(rates=FEW)
    ann = service.new_user()
    for _ in range(5):
        assert ann.post(CHATS, {"user_id": ann.id, "message": " "}).status == 400
    assert ann.post(CHATS, {"user_id": ann.id, "message": "x"}).status == 201


@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
@pytest.mark.parametrize(
    "target", [CHATS, f"{CHATS}?since=0", f"{CHATS}?with=1", USERS, f"{CHATS}?limit=100"]
)
def test_reads_are_limited_for_each_account(serve: Serve, front: str, target: str) -> None:
    service = serve(front, rates=Rates(read=Rate(3, 0.25)))
    ann, bob = service.new_user(), service.new_user()
    bob.send(ann)
    statuses: list[int] = []
    while statuses[-1:] != [429]:
        response = ann.get(target)
        statuses.append(response.status)
    # A conversation takes two reads.
    assert statuses == [200] * (len(statuses) - 1) + [429]
    assert 2 <= len(statuses) <= 4
    assert retry_after(response) == 4
    assert bob.get(CHATS).status == 200
    service.advance(8)
    assert ann.get(target).status == 200


def test_large_answers_count_as_several_reads(serve: Serve) -> None:
    service = serve(rates=Rates(read=Rate(30, 1.0), send=Rate(200, 1.0)))
    ann = service.new_user()
    for _ in range(100):
        ann.send(ann)
    for target in (f"{CHATS}?limit=100", f"{CHATS}?since=0"):
        assert ann.get(target).status == 200
    # A page of ten messages counts as two.
    assert [ann.get(CHATS).status for _ in range(4)] == [200] * 4
    assert ann.get(CHATS).status == 429


def test_long_messages_count_as_several_reads(serve: Serve) -> None:
    service = serve(rates=Rates(read=Rate(30, 1.0)))
    ann = service.new_user()
    for _ in range(9):
        ann.send(ann, "x" * 16_384)
    assert [ann.get(CHATS).status for _ in range(3)] == [200] * 3
    assert ann.get(CHATS).status == 429


def test_reading_is_hardly_limited(serve: Serve) -> None:
    service = serve(rates=Rates())
    ann = service.new_user()
    for _ in range(300):
        assert ann.get(CHATS).status == 200


def test_registrations_are_limited_for_each_address(serve: Serve) -> None:
    service = serve(rates=FEW, trusted=["127.0.0.0/8"])
    here, there = {"X-Forwarded-For": "203.0.113.1"}, {"X-Forwarded-For": "203.0.113.2"}
    assert [register(service, name, **here).status for name in "ab"] == [201, 201]
    assert retry_after(register(service, "c", **here)) == 5
    assert register(service, "c", **there).status == 201
    service.advance(5)
    assert register(service, "d", **here).status == 201


@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
def test_texts_are_limited_in_bytes_for_each_address(serve: Serve, front: str) -> None:
    rates = Rates(message_bytes=Rate(20_000, 100.0))
    service = serve(front, rates=rates, trusted=["127.0.0.0/8"])
    ann, bob = service.new_user(), service.new_user()
    here, there = {"X-Forwarded-For": "203.0.113.1"}, {"X-Forwarded-For": "203.0.113.2"}
    long = {"user_id": bob.id, "message": "é" * 8000}
    once = {**here, "Idempotency-Key": "key"}
    sent = ann.post(CHATS, long, headers=once)
    assert sent.status == 201
    edit = {**long, "seq": sent.json["seq"]}
    assert ann.request("PATCH", CHATS, json_body=edit, headers=here).status == 200
    # All accounts of the address, also for what was stored before.
    for refused in (
        bob.post(CHATS, {"user_id": ann.id, "message": "x"}, headers=here),
        ann.request("PATCH", CHATS, json_body=edit, headers=here),
        ann.post(CHATS + "?wait_for=read", long, headers=here),
        ann.post(CHATS, long, headers=once),
    ):
        assert retry_after(refused) == 121
    assert value(service.system.metrics, "chatd_refusals_total", bound="message_bytes") == 4
    assert bob.post(CHATS, long, headers=there).status == 201
    service.advance(121)
    again = ann.post(CHATS, long, headers=once)
    assert (again.status, again.json["seq"]) == (200, sent.json["seq"])
    assert again.header("Idempotency-Replayed") == "true"


@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
def test_to_delete_takes_no_bytes(serve: Serve, front: str) -> None:
    service = serve(front, rates=Rates(message_bytes=Rate(1, 0.001)))
    ann = service.new_user()
    seq = ann.send(ann)["seq"]
    ann.post(CHATS, {"user_id": ann.id, "message": "x"}).problem(429, "rate_limited")
    assert ann.request("DELETE", f"{CHATS}?user_id={ann.id}&seq={seq}").status == 204


def test_an_invalid_registration_does_not_count(serve: Serve) -> None:
    service = serve(rates=FEW)
    for _ in range(5):
        assert register(service, " ").status == 400
    assert register(service, "ann").status == 201


def test_an_ipv6_network_counts_as_one_address(serve: Serve) -> None:
    service = serve(rates=FEW, trusted=["127.0.0.0/8"])
    statuses = [
        register(service, f"u{n}", **{"X-Forwarded-For": f"2001:db8::{n}"}).status
        for n in (1, 2, 3)
    ]
    assert statuses == [201, 201, 429]
    assert register(service, "v", **{"X-Forwarded-For": "2001:db8:0:1::1"}).status == 201


def test_log_ins_are_limited_for_each_address(serve: Serve) -> None:
    service = serve(rates=FEW)
    ann = service.new_user("ann")
    body = {"username": "ann", "password": "password"}
    # `new_user` logs in from another address.
    assert [service.post(TOKENS, body).status for _ in range(3)] == [201, 201, 201]
    assert retry_after(service.post(TOKENS, body)) == 2
    retry_after(service.get(CHATS, auth=ann.basic))
    assert ann.get(CHATS).status == 200
    service.advance(2)
    assert service.get(CHATS, auth=ann.basic).status == 200
    # Its session is cached: it does not log in again.
    assert service.get(CHATS, auth=ann.basic).status == 200


def test_wrong_passwords_are_limited_for_each_name_and_address(serve: Serve) -> None:
    service = serve(rates=FEW, trusted=["127.0.0.0/8"])
    ann = service.new_user("ann")

    def wrong(address: int, name: str = "ann") -> ServiceResponse:
        headers = {"X-Forwarded-For": f"203.0.113.{address}"}
        return service.post(TOKENS, {"username": name, "password": "wrong"}, headers=headers)

    assert [wrong(1).status, wrong(1, "ANN").status] == [401, 401]
    assert retry_after(wrong(1)) == 10
    there = {"X-Forwarded-For": "203.0.113.1"}
    retry_after(service.get(CHATS, auth=basic("Ann", "wrong"), headers=there))
    # Guessing does not lock out the owner at another address.
    assert wrong(2).status == 401
    assert wrong(1, "nobody").status == 401
    assert ann.get(CHATS).status == 200
    service.advance(10)
    assert wrong(1).status == 401


def test_wrong_passwords_from_everywhere_are_limited_for_each_name(serve: Serve) -> None:
    rates = Rates(guessed_log_in=Rate(3, 0.1))
    service = serve(rates=rates, trusted=["127.0.0.0/8"])
    service.new_user("ann")

    def wrong(address: int) -> ServiceResponse:
        headers = {"X-Forwarded-For": f"203.0.113.{address}"}
        return service.post(TOKENS, {"username": "ann", "password": "wrong"}, headers=headers)

    assert [wrong(number).status for number in range(1, 4)] == [401] * 3
    assert retry_after(wrong(4)) == 10


def test_the_defaults_are_above_what_a_person_does(serve: Serve) -> None:
    service = serve(rates=Rates())
    ann = service.new_user()
    assert [ann.post(CHATS, {"user_id": 1, "message": "x"}).status for _ in range(200)] == [
        201
    ] * 200
    assert retry_after(ann.post(CHATS, {"user_id": 1, "message": "x"})) == 1
    assert [register(service, f"u{n}").status for n in range(50)] == [201] * 50
    assert retry_after(register(service, "more")) == 5


def test_without_limits_nothing_is_refused(serve: Serve) -> None:
    service = serve(rates=None)
    ann = service.new_user("ann")
    for _ in range(60):
        service.post(TOKENS, {"username": "ann", "password": "wrong"}).problem(401, "unauthorized")
    for _ in range(250):
        ann.send(ann)


@pytest.mark.parametrize(
    ("module", "name", "target"),
    [(send_batcher, "MAX_QUEUED", "send"), (passwords, "MAX_PENDING", "log in")],
)
@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
def test_a_full_queue_is_an_overload(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    front: str,
    module: Any,
    name: str,
    target: str,
) -> None:
    monkeypatch.setattr(module, name, 2)
    service = serve(front, worker=SteppedExecutor)
    users = [service.new_user() for _ in range(12)]
    started = []
    for ann in users:
        if target == "send":
            body = {"user_id": ann.id, "message": "x"}
            started.append(ann.start("POST", CHATS, json_body=body))
        else:
            body = {"username": ann.name, "password": "password"}
            started.append(ann.start("POST", TOKENS, json_body=body))
    # Slow threads: all requests are accepted before the first one is answered.
    for worker in (service.system.reader, service.system.writer):
        for _ in users:
            service.system.turn()
            worker.step()
    service.settle()
    responses = [exchange.response for exchange in started]
    refused = [response for response in responses if response.status == 503]
    assert refused
    for response in refused:
        retry_after(response, 503, "overloaded")
    assert all(response.status in (200, 201) for response in responses if response not in refused)
    assert users[0].get(CHATS).status == 200


@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
def test_an_unavailable_store_is_503_with_retry_after(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, front: str
) -> None:
    service = serve(front)
    ann = service.new_user()

    def cannot(*_: object) -> Any:
        from twisted.internet.defer import fail

        return fail(StoreUnavailable("the disk is full", 7))

    monkeypatch.setattr(service.system.chats._sends, "_run", cannot)
    body = {"user_id": ann.id, "message": "x"}
    response = ann.post(CHATS, body, headers={"Idempotency-Key": "key"})
    assert retry_after(response, 503, "store_unavailable") == 7
    monkeypatch.undo()
    assert ann.post(CHATS, body, headers={"Idempotency-Key": "key"}).status == 201
    assert ann.page()["meta"]["count"] == 1


@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
def test_nothing_is_stored_on_a_disk_that_is_nearly_full(serve: Serve, front: str) -> None:
    free = [1 << 30]
    service = serve(front, free_bytes=lambda: free[0])
    ann = service.new_user()
    seq = ann.send(ann)["seq"]
    free[0] = 1 << 20
    service.advance(1)
    for refused in (
        ann.post(CHATS, {"user_id": ann.id, "message": "x"}),
        ann.request("PATCH", CHATS, json_body={"user_id": ann.id, "seq": seq, "message": "longer"}),
        register(service, "newcomer"),
    ):
        assert retry_after(refused, 507, "insufficient_storage") == 60
    assert value(service.system.metrics, "chatd_refusals_total", bound="free_disk") == 3
    assert ann.page()["meta"]["count"] == 1
    free[0] = 1 << 30
    service.advance(1)
    ann.send(ann)


@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
def test_a_full_inbox_is_told_to_its_senders(serve: Serve, front: str) -> None:
    service = serve(front, limits=InboxLimits(2))
    ann, bob = service.new_user(), service.new_user()
    for _ in range(2):
        ann.send(bob)
    refused = ann.post(CHATS, {"user_id": bob.id, "message": "x"})
    refused.problem(507, "inbox_full")
    assert value(service.system.metrics, "chatd_refusals_total", bound="inbox_messages") == 1
    bob.send(ann)
    assert bob.page()["meta"]["count"] == 2


@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
def test_an_inbox_without_room_is_told_to_its_senders(serve: Serve, front: str) -> None:
    service = serve(front, limits=InboxLimits(bytes=10))
    ann, bob = service.new_user(), service.new_user()
    sent = ann.send(bob, "12345678")
    body = {"user_id": bob.id, "message": "123"}
    ann.post(CHATS, body).problem(507, "inbox_storage_full")
    edit = {"user_id": bob.id, "seq": sent["seq"], "message": "12345678901"}
    ann.request("PATCH", CHATS, json_body=edit).problem(507, "inbox_storage_full")
    assert value(service.system.metrics, "chatd_refusals_total", bound="inbox_bytes") == 2
    assert ann.request("PATCH", CHATS, json_body={**edit, "message": "1"}).status == 200
    assert ann.post(CHATS, body).status == 201
