"""Checks of removing the oldest messages of an inbox, which servers of version 1 do not have."""

from __future__ import annotations

from chatd.conformance.checks import NotSupported, check, expect_equal, require_support
from chatd.conformance.server import Account, JSONResponse, Server

REMOVALS = "Make room in the inbox (version 1.1)"


async def remove(who: Account, up_to: object, more: str = "") -> JSONResponse:
    """Remove messages from the beginning of an inbox."""
    return await who.request("DELETE", f"/chats/?up_to={up_to}{more}")


async def two_accounts(server: Server) -> tuple[Account, Account]:
    """Two accounts, the second of which has five messages; raises `NotSupported` if none can be
    removed."""
    ann, bob = await server.two_accounts()
    for number in range(1, 6):
        await ann.send(bob, f"{number}")
    response = await remove(bob, 1)
    require_support(response, "DELETE /chats/")
    if response.status == 400:
        raise NotSupported("DELETE /chats/?up_to=1 is answered 400")
    expect_equal(response.status, 204, "DELETE /chats/?up_to=1")
    return ann, bob


@check(REMOVALS, "the oldest messages are removed, and numbers go on")
async def removed(server: Server) -> None:
    ann, bob = await two_accounts(server)
    for _ in range(2):
        expect_equal((await remove(bob, 3)).status, 204, "DELETE /chats/?up_to=3")
    page = await bob.get()
    expect_equal(page.texts, ["5", "4"], "the page")
    expect_equal(page.json["meta"]["count"], 2, "its count")
    expect_equal((await bob.get("?since=0")).texts, ["4", "5"], "the inbox from its beginning")
    for one, other in ((ann, bob), (bob, ann)):
        expect_equal((await one.get(f"?with={other.id}")).texts, ["5", "4"], "the conversation")
    expect_equal((await ann.send(bob)).json["seq"], 6, "the next seq")
    expect_equal((await remove(bob, 6)).status, 204, "the removal of everything")
    expect_equal((await bob.get()).texts, [], "an inbox without messages")


@check(REMOVALS, "a cursor from before is 410, one at the last removed message is valid")
async def cursors(server: Server) -> None:
    _, bob = await two_accounts(server)
    old = (await bob.get("?since=0&limit=1")).json["meta"]["cursor"]
    edge = (await bob.get(f"?since={old}&limit=1")).json["meta"]["cursor"]
    expect_equal((await remove(bob, 3)).status, 204, "DELETE /chats/?up_to=3")
    response = await bob.get(f"?since={old}")
    expect_equal((response.status, response.code), (410, "cursor_expired"), "the old cursor")
    expect_equal((await bob.get(f"?since={edge}")).texts, ["4", "5"], "messages after the edge")


@check(REMOVALS, "a removal past the end, or of one message of somebody, is 400")
async def refusals(server: Server) -> None:
    ann, bob = await two_accounts(server)
    for who, up_to, more in [
        (bob, 6, ""),
        (ann, 1, ""),
        (bob, 0, ""),
        (bob, "x", ""),
        (bob, 2, f"&user_id={bob.id}&seq=2"),
    ]:
        response = await remove(who, up_to, more)
        expect_equal((response.status, response.code), (400, "invalid_query"), f"up_to={up_to}")
    expect_equal((await bob.get()).json["meta"]["count"], 4, "the count of the inbox")
