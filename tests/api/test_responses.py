"""Real responses decode as the types that their calls declare."""

from __future__ import annotations

from typing import Any

import msgspec

from chatd.api.api import API
from chatd.api.problems import Problem
from tests.api.service import CHATS, TOKENS, USERS, Serve, ServiceResponse


def declared(name: str, status: int) -> Any:
    """The type of the body of a call's response."""
    [call] = [each for each in API.calls if each.name == name]
    types = call.responses[status].types
    return types[0] if len(types) == 1 else types


def check(response: ServiceResponse, kind: Any) -> None:
    msgspec.json.decode(response.body, type=kind)


def test_every_response_is_of_the_declared_type(serve: Serve) -> None:
    stock = serve(directory=True)
    ann, bob = stock.new_user("ann"), stock.new_user("bob")
    account = {"username": "cat", "email": "c@c", "password": "zzzzz"}
    log_in = {"username": ann.name, "password": "password"}
    message = {"user_id": ann.id, "message": "x"}
    key = {"Idempotency-Key": "key"}
    page, poll, conversation = declared("get_chats", 200)
    check(stock.post(USERS, account), declared("register", 201))
    user, users = declared("get_user", 200)
    check(ann.get(USERS), user)
    check(ann.get(USERS + "?prefix=a"), users)
    change = {"current_password": "password", "email": "new@example.org"}
    check(ann.request("PATCH", USERS, json_body=change), declared("change_user", 200))
    check(stock.post(TOKENS, log_in), declared("log_in", 201))
    limits = {"label": "phone", "expires_in": 60, "scopes": ["read"]}
    check(stock.post(TOKENS, {**log_in, **limits}), declared("log_in", 201))
    check(ann.get(TOKENS), declared("get_tokens", 200))
    check(bob.post(CHATS, message, headers=key), declared("send", 201))
    check(bob.post(CHATS, message, headers=key), declared("send", 200))
    check(ann.get(CHATS), page)
    check(ann.get(f"{CHATS}?since=0"), poll)
    check(ann.get(f"{CHATS}?since=0&wait=99"), poll)
    check(ann.get(f"{CHATS}?with={bob.id}"), conversation)
    check(ann.get("/healthz"), declared("healthz", 200))
    check(ann.get("/readyz"), declared("readyz", 200))
    check(ann.get("/nothing"), Problem)
