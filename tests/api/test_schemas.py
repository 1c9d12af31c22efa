"""The shapes that are described are those of the answers; a conversation's is looked at there."""

from __future__ import annotations

import msgspec

from chatd.api import fields
from tests.api.service import CHATS, Service


def test_every_answer_has_the_shape_that_is_described(stock: Service) -> None:
    ann, bob = stock.join("ann"), stock.join("bob")
    bob.send(ann)
    for target, shape in [
        ("/api/v1/users/", fields.User),
        (CHATS, fields.Page),
        (f"{CHATS}?since=0", fields.Poll),
        (f"{CHATS}?since=0&wait=99", fields.Poll),
        ("/healthz", fields.Health),
        ("/readyz", fields.Readiness),
    ]:
        msgspec.json.decode(ann.get(target).body, type=shape)
    body = {"username": ann.name, "password": "password"}
    msgspec.json.decode(stock.post("/api/v1/tokens/", body).body, type=fields.Token)
    msgspec.json.decode(ann.get("/nothing").body, type=fields.Problem)
