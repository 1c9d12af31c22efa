"""Checks of conversations, receipts, and changes on the same cursor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from chatd.conformance.checks import SOON, NotSupported, check, expect, expect_equal
from chatd.conformance.server import Account, JSONResponse, Server
from chatd.conformance.stream_reader import MEDIA_TYPES, open_stream

CONVERSATIONS = "Conversations (version 1.1)"
RECEIPTS = "Receipts (version 1.1)"
CHANGES = "Changes on the same cursor (version 1.1)"

POSITION_SECONDS = 3.0
"""Delivered positions may be written once a second."""


async def conversations(account: Account, query: str = "") -> dict[str, Any]:
    """The list of conversations."""
    response = await account.request("GET", f"/conversations/{query}")
    if response.status == 404:
        raise NotSupported("GET /conversations/ is answered 404")
    expect_equal(response.status, 200, "the status of the list")
    found: dict[str, Any] = response.json
    return found


async def mark_read(account: Account, peer: Account, seq: int) -> JSONResponse:
    """Move a read position."""
    body = {"user_id": peer.id, "seq": seq}
    response = await account.request("PUT", "/conversations/read/", body=body)
    if response.status == 404 and response.code != "user_not_found":
        raise NotSupported("PUT /conversations/read/ is answered 404")
    return response


async def changes(account: Account, since: str, query: str = "") -> dict[str, Any]:
    """A poll with changes."""
    response = await account.get(f"?since={since}&changes=true{query}")
    expect_equal(response.status, 200, "the status of a poll with changes")
    found: dict[str, Any] = response.json
    if "changes" not in found:
        raise NotSupported("the response to changes=true has no changes")
    return found


async def deliver(account: Account) -> None:
    """Receive everything, and come back with the cursor."""
    cursor = (await account.get("?since=0")).json["meta"]["cursor"]
    await account.get(f"?since={cursor}")


@check(CONVERSATIONS, "the conversation with the newest message comes first, in parts")
async def listed(server: Server) -> None:
    ann, bob = await server.two_accounts()
    cat = await server.new_account()
    await conversations(ann)
    for sender, recipient in ((bob, ann), (ann, cat), (bob, ann)):
        last = (await sender.send(recipient)).json
        await server.pause(0.01)
    found = await conversations(ann)
    names = [each["username"] for each in found["conversations"]]
    expect_equal(names, [bob.name, cat.name], "conversations")
    first = found["conversations"][0]
    expect_equal(first["last_message"], last, "the last message")
    expect_equal((first["unread"], first["read"]), (2, 0), "unread and read")
    part = await conversations(ann, "?limit=1")
    rest = await conversations(ann, f"?limit=1&before={part['meta']['older']}")
    expect_equal(
        [each["user_id"] for each in (*part["conversations"], *rest["conversations"])],
        [bob.id, cat.id],
        "two parts",
    )
    expect_equal(rest["meta"]["older"], None, "older at the end")


@check(CONVERSATIONS, "read positions move forward only, and not past the end of the inbox")
async def read(server: Server) -> None:
    ann, bob = await server.two_accounts()
    for _ in range(3):
        await bob.send(ann)
    for seq, unread in ((2, 1), (1, 1), (3, 0)):
        expect_equal((await mark_read(ann, bob, seq)).status, 204, "the status")
        [found] = (await conversations(ann))["conversations"]
        expect_equal(found["unread"], unread, f"unread after {seq}")
    response = await mark_read(ann, bob, 4)
    expect_equal((response.status, response.code), (400, "invalid_body"), "past the end")


@check(CONVERSATIONS, "positions tell of the caller's messages only; read implies delivered")
async def positions(server: Server) -> None:
    ann, bob = await server.two_accounts()
    cat = await server.new_account()
    for sender in (ann, cat, cat):
        await sender.send(bob)
    await mark_read(bob, ann, 3)
    [found] = (await conversations(ann))["conversations"]
    expect_equal((found["peer_read"], found["peer_delivered"]), (1, 1), "ann's positions")
    [found] = (await conversations(cat))["conversations"]
    expect_equal(found["peer_read"], 0, "cat's position")
    meta = (await ann.get(f"?with={bob.id}")).json["meta"]
    expect_equal((meta["peer_read"], meta["peer_delivered"]), (1, 1), "meta of the conversation")


@check(CONVERSATIONS, "a cursor that comes back proves delivery, and nothing else does")
async def delivered(server: Server) -> None:
    ann, bob = await server.two_accounts()
    await ann.send(bob)
    await bob.get("?since=0")
    await server.pause(POSITION_SECONDS)
    [found] = (await conversations(ann))["conversations"]
    expect_equal(found["peer_delivered"], 0, "before the cursor came back")
    await deliver(bob)
    await server.pause(POSITION_SECONDS)
    [found] = (await conversations(ann))["conversations"]
    expect_equal(found["peer_delivered"], 1, "after it came back")


@check(RECEIPTS, "a send waits until its message is delivered or read")
async def receipts(server: Server) -> None:
    ann, bob = await server.two_accounts()
    body = {"user_id": bob.id, "message": "hai"}
    response = await ann.request("POST", "/chats/?wait_for=delivered", body=body)
    if "delivered" not in response.json:
        raise NotSupported("the response to wait_for=delivered does not tell it")
    expect_equal((response.status, response.json["delivered"]), (201, False), "without a wait")
    sending = {
        receipt: server.start(ann.request("POST", f"/chats/?wait_for={receipt}&wait=10", body=body))
        for receipt in ("delivered", "read")
    }
    await server.pause(0.5)
    expect(not any(each.called for each in sending.values()), "it did not wait")
    await deliver(bob)
    expect_equal((await sending["delivered"]).json["delivered"], True, "delivered")
    await mark_read(bob, ann, 3)
    expect_equal((await sending["read"]).json["read"], True, "read")


@check(RECEIPTS, "the send stands when the wait is over without a receipt")
async def no_receipt(server: Server) -> None:
    ann, bob = await server.two_accounts()
    body = {"user_id": bob.id, "message": "hai"}
    response = await ann.request("POST", "/chats/?wait_for=read&wait=1", body=body)
    if "read" not in response.json:
        raise NotSupported("the response to wait_for=read does not tell it")
    expect_equal((response.status, response.json["read"]), (201, False), "the response")
    expect_equal((await bob.get()).texts, ["hai"], "the inbox")


@check(CHANGES, "what one device sends and reads ends the wait of another")
async def devices(server: Server) -> None:
    ann, bob = await server.two_accounts()
    cursor = (await changes(ann, "now"))["meta"]["cursor"]
    acts: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: ann.send(bob),
        lambda: mark_read(bob, ann, 1),
    )
    for act in acts:
        held = server.start(ann.get(f"?since={cursor}&changes=true&wait=10"))
        await server.pause(0.5)
        expect(not held.called, "the poll was answered without a change")
        await act()
        response = await held
        expect(response.seconds < 0.5 + SOON, f"the response took {response.seconds:.1f} s")
        [change] = response.json["changes"]
        cursor = response.json["meta"]["cursor"]
    expect_equal(
        change, {"type": "peer", "user_id": bob.id, "delivered": 1, "read": 1}, "the change"
    )


@check(CHANGES, "polls that do not ask for changes are not ended by them")
async def unasked(server: Server) -> None:
    ann, bob = await server.two_accounts()
    cursor = (await changes(ann, "now"))["meta"]["cursor"]
    held = server.start(ann.get(f"?since={cursor}&wait=2"))
    await server.pause(0.5)
    await ann.send(bob)
    response = await held
    expect_equal(response.json["meta"]["timed_out"], True, "timed_out")
    expect("changes" not in response.json, "changes were told unasked")


@check(CHANGES, "since=0 begins with everything, a plain cursor and now with now")
async def beginnings(server: Server) -> None:
    ann, bob = await server.two_accounts()
    plain = await ann.cursor()
    sent = [(await ann.send(bob, f"{number}")).json for number in range(5)]
    for since in (plain, "now"):
        expect_equal((await changes(ann, since))["changes"], [], f"changes since {since}")
    found: list[Any] = []
    cursor, more = "0", True
    while more and len(found) < 10:
        part = await changes(ann, cursor, "&limit=2")
        expect(len(part["changes"]) <= 2, "more changes than the limit")
        found += part["changes"]
        cursor, more = part["meta"]["cursor"], part["meta"]["more"]
    expect_equal(
        [each["message"] for each in found if each["type"] == "sent"], sent, "what was sent"
    )


@check(CHANGES, "a change that is overtaken is told once")
async def overtaken(server: Server) -> None:
    ann, bob = await server.two_accounts()
    for _ in range(3):
        await bob.send(ann)
    cursor = (await changes(ann, "now"))["meta"]["cursor"]
    for seq in (1, 2, 3):
        await mark_read(ann, bob, seq)
    expect_equal(
        (await changes(ann, cursor))["changes"],
        [{"type": "read", "user_id": bob.id, "seq": 3}],
        "changes",
    )


@check(CHANGES, "a stream tells changes, with the cursor after each")
async def streamed(server: Server) -> None:
    ann, bob = await server.two_accounts()
    cursor = (await changes(ann, "now"))["meta"]["cursor"]
    for media_type in MEDIA_TYPES:
        stream = await open_stream(ann, media_type, f"?since={cursor}&changes=true")
        sent = (await ann.send(bob, media_type)).json
        [event] = await stream.events("change", 1, SOON)
        expect_equal(event.document, {"type": "sent", "message": sent}, "the change")
        cursor = event.cursor
        expect_equal((await changes(ann, cursor))["changes"], [], "changes after it")
        stream.close()
