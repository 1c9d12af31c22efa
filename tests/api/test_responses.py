"""Real responses decode as the types that their calls declare."""

from __future__ import annotations

from typing import Any

import msgspec

from chatd.api.api import API
from chatd.api.problems import Problem
from tests.api.service import CHATS, TOKENS, USERS, Service, ServiceResponse


def declared(name: str, status: int) -> Any:
    """The type of the body of a call's response."""
    [call] = [each for each in API.calls if each.name == name]
    types = call.responses[status].types
    return types[0] if len(types) == 1 else types


def check(response: ServiceResponse, kind: Any) -> None:
    msgspec.json.decode(response.body, type=kind)


def test_every_response_is_of_the_declared_type(stock: Service) -> None:
    ann, bob = stock.new_user("ann"), stock.new_user("bob")
    account = {"username": "cat", "email": "c@c", "password": "zzzzz"}
    log_in = {"username": ann.name, "password": "password"}
    message = {"user_id": ann.id, "message": "x"}
    key = {"Idempotency-Key": "key"}
    page, poll, conversation = declared("get_chats", 200)
    check(stock.post(USERS, account), declared("register", 201))
    check(ann.get(USERS), declared("get_user", 200))
    check(stock.post(TOKENS, log_in), declared("log_in", 201))
    check(bob.post(CHATS, message, headers=key), declared("send", 201))
    check(bob.post(CHATS, message, headers=key), declared("send", 200))
    check(ann.get(CHATS), page)
    check(ann.get(f"{CHATS}?since=0"), poll)
    check(ann.get(f"{CHATS}?since=0&wait=99"), poll)
    check(ann.get(f"{CHATS}?with={bob.id}"), conversation)
    check(ann.get("/healthz"), declared("healthz", 200))
    check(ann.get("/readyz"), declared("readyz", 200))
    check(ann.get("/nothing"), Problem)
