"""Checks of blocks, which servers of version 1 do not have."""

from __future__ import annotations

import secrets

from chatd.conformance.checks import check, expect_equal, require_support
from chatd.conformance.server import Account, JSONResponse, Server

BLOCKING = "Blocking (version 1.1)"


async def block(who: Account, user_id: int) -> JSONResponse:
    """Block an account."""
    return await who.request("PUT", "/blocks/", body={"user_id": user_id})


async def unblock(who: Account, user_id: int) -> JSONResponse:
    """Unblock an account."""
    return await who.request("DELETE", f"/blocks/?user_id={user_id}")


async def two_accounts(server: Server) -> tuple[Account, Account]:
    """Two accounts; raises `NotSupported` if nobody can be blocked."""
    ann, bob = await server.two_accounts()
    require_support(await ann.request("GET", "/blocks/"), "GET /blocks/")
    return ann, bob


@check(BLOCKING, "what a blocked account sends is refused until it is unblocked")
async def blocked(server: Server) -> None:
    ann, bob = await two_accounts(server)
    for _ in range(2):
        expect_equal((await block(bob, ann.id)).status, 204, "PUT /blocks/")
    response = await ann.send(bob)
    expect_equal((response.status, response.code), (403, "blocked"), "a send")
    expect_equal((await bob.send(ann)).status, 201, "a send of who has blocked the other")
    expect_equal((await bob.send(bob)).status, 201, "a send to oneself")
    for _ in range(2):
        expect_equal((await unblock(bob, ann.id)).status, 204, "DELETE /blocks/")
    expect_equal((await ann.send(bob)).json["seq"], 2, "the seq of the first message after it")


@check(BLOCKING, "a repeated send is answered although its sender was blocked since")
async def replays(server: Server) -> None:
    ann, bob = await two_accounts(server)
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first = await ann.send(bob, headers=key)
    expect_equal((await block(bob, ann.id)).status, 204, "PUT /blocks/")
    again = await ann.send(bob, headers=key)
    expect_equal((again.status, again.json), (200, first.json), "the repeated send")


@check(BLOCKING, "blocks are listed; neither oneself nor nobody can be blocked")
async def lists(server: Server) -> None:
    ann, bob = await two_accounts(server)
    await block(ann, bob.id)
    found = (await ann.request("GET", "/blocks/")).json
    expect_equal(found, {"blocks": [{"user_id": bob.id, "username": bob.name}]}, "GET /blocks/")
    expect_equal((await bob.request("GET", "/blocks/")).json, {"blocks": []}, "those of another")
    for user_id, expected in [
        (ann.id, (400, "invalid_body")),
        (2**53 - 1, (404, "user_not_found")),
    ]:
        response = await block(ann, user_id)
        expect_equal((response.status, response.code), expected, f"blocking {user_id}")
    expect_equal((await unblock(ann, 2**53 - 1)).status, 204, "unblocking nobody")
