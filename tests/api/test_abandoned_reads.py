"""Reads whose client has gone, and reads of one account by the thousand, do not delay others."""

from __future__ import annotations

import pytest

from chatd.domain.fair_queue import MAX_PER_OWNER
from chatd.domain.rate_limits import Rates
from chatd.store.sqlite.store import SqliteStore
from tests.api.service import CHATS, USERS, Exchange, Serve, Service, User
from tests.doubles import SteppedExecutor
from tests.test_metrics import value

MAX_RUNNING = SqliteStore.parallel


def steps_until_answered(service: Service, exchange: Exchange) -> int:
    """How many calls the reader makes until the request is answered."""
    steps = 0
    while exchange.held:
        service.system.turn()
        assert service.system.reader.step()
        service.system.turn()
        steps += 1
    return steps


def pair(service: Service) -> tuple[User, User]:
    ann, bob = service.new_user("ann"), service.new_user("bob")
    ann.send(bob)
    bob.send(ann)
    # Known tokens are not looked up again.
    for user in (ann, bob):
        user.page()
    return ann, bob


@pytest.mark.parametrize("target", [f"{CHATS}?with=2", f"{USERS}?username=bob", f"{CHATS}?page=1"])
@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
def test_reads_whose_clients_have_gone_are_not_made(serve: Serve, front: str, target: str) -> None:
    service = serve(front, worker=SteppedExecutor, read_cached=False)
    ann, bob = pair(service)
    for _ in range(100):
        ann.start("GET", target).disconnect()
    assert steps_until_answered(service, bob.start("GET", target)) <= MAX_RUNNING + 2
    service.settle()


@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
def test_accounts_take_turns(serve: Serve, front: str) -> None:
    service = serve(front, worker=SteppedExecutor)
    ann, bob = pair(service)
    waiting = [ann.start("GET", f"{CHATS}?with=2") for _ in range(100)]
    assert steps_until_answered(service, bob.start("GET", f"{CHATS}?with=1")) <= MAX_RUNNING + 4
    service.settle()
    assert {exchange.response.status for exchange in waiting} == {200}


@pytest.mark.parametrize("front", ["twisted.web", "chatd"])
@pytest.mark.parametrize("target", [USERS, f"{CHATS}?limit=100"])
def test_networks_take_turns_however_many_accounts_they_have(
    serve: Serve, front: str, target: str
) -> None:
    service = serve(
        front,
        worker=SteppedExecutor,
        read_cached=False,
        rates=Rates(),
        trusted=["127.0.0.0/8"],
    )
    *many, bob = (service.new_user() for _ in range(41))
    here, there = ({"X-Forwarded-For": f"192.0.2.{number}"} for number in (1, 2))
    for ann in many:
        ann.get(CHATS, headers=here)
    bob.get(CHATS, headers=there)
    waiting = [ann.start("GET", target, headers=here) for ann in many]
    found = bob.start("GET", target, headers=there)
    assert steps_until_answered(service, found) <= MAX_RUNNING + 3
    service.settle()
    assert {each.response.status for each in waiting} == {200}


def test_more_of_one_account_is_an_overload(serve: Serve) -> None:
    service = serve("chatd", worker=SteppedExecutor)
    ann, bob = pair(service)
    started = [
        ann.start("GET", f"{USERS}?user_id=2") for _ in range(MAX_PER_OWNER + MAX_RUNNING - 1)
    ]
    refused = ann.get(f"{USERS}?user_id=2")
    refused.problem(503, "overloaded")
    assert refused.header("Retry-After") == "1"
    assert value(service.system.metrics, "chatd_refusals_total", bound="read_queue") == 1
    assert bob.get(f"{USERS}?user_id=1").status == 200
    assert {exchange.response.status for exchange in started} == {200}


@pytest.mark.parametrize("kind", ["edit", "deletion", "block"])
def test_sends_do_not_wait_behind_all_changes_of_another_account(serve: Serve, kind: str) -> None:
    service = serve("chatd", worker=SteppedExecutor)
    ann, bob = pair(service)
    body = {"user_id": bob.id}
    edit = {**body, "seq": 1, "message": "x"}
    waiting = [
        {
            "edit": lambda: ann.start("PATCH", CHATS, json_body=edit),
            "deletion": lambda: ann.start("DELETE", f"{CHATS}?user_id={bob.id}&seq=1"),
            "block": lambda: ann.start("PUT", "/api/v1/blocks/", json_body=body),
        }[kind]()
        for _ in range(100)
    ]
    sent = bob.start("POST", CHATS, json_body={"user_id": bob.id, "message": "hello"})
    writer = service.system.workers["writer"]
    steps = 0
    while sent.held:
        service.system.turn()
        assert writer.step()
        service.system.turn()
        steps += 1
    assert steps <= MAX_RUNNING + 2
    service.settle()
    assert {exchange.response.status for exchange in waiting} <= {200, 204}
