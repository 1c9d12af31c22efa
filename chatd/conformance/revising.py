"""Checks of editing and deleting messages, which servers of version 1 do not have."""

from __future__ import annotations

import secrets

from chatd.conformance.checks import SOON, check, expect, expect_equal, require_support
from chatd.conformance.server import Account, JSONResponse, Server
from chatd.conformance.stream_reader import MEDIA_TYPES, open_stream

EDITS = "Edit and delete (version 1.1)"

ERASE_SECONDS = 10.0
"""How long the deletion of two messages may take."""


async def edit(sender: Account, recipient: Account, seq: int, text: str = "new") -> JSONResponse:
    """Edit a message."""
    body = {"user_id": recipient.id, "seq": seq, "message": text}
    return await sender.request("PATCH", "/chats/", body=body)


async def delete(sender: Account, recipient: Account, seq: int) -> JSONResponse:
    """Delete a message."""
    return await sender.request("DELETE", f"/chats/?user_id={recipient.id}&seq={seq}")


async def two_accounts(server: Server) -> tuple[Account, Account]:
    """Two accounts; raises `NotSupported` if messages cannot be changed."""
    ann, bob = await server.two_accounts()
    require_support(await ann.request("PATCH", "/chats/", body={}), "PATCH /chats/")
    return ann, bob


@check(EDITS, "whoever reads a message after an edit gets the new text")
async def edited(server: Server) -> None:
    ann, bob = await two_accounts(server)
    sent = [(await ann.send(bob, f"{number}")).json for number in range(3)]
    response = await edit(ann, bob, 2)
    expect_equal(response.status, 200, "an edit")
    expect_equal(
        {**response.json, "edited_at": None},
        {**sent[1], "message": "new", "edited_at": None},
        "the edited message",
    )
    await expect_inbox(ann, bob, [sent[0], response.json, sent[2]])


@check(EDITS, "a deleted message keeps its place, without its text")
async def deleted(server: Server) -> None:
    ann, bob = await two_accounts(server)
    sent = [(await ann.send(bob, f"{number}")).json for number in range(3)]
    cursor = await bob.cursor()
    for _ in range(2):
        expect_equal((await delete(ann, bob, 2)).status, 204, "a deletion")
    found = (await bob.get("?since=0")).json["messages"]
    expect(found[1].get("deleted_at"), "the deleted message has no deleted_at")
    expect_equal(
        {**found[1], "deleted_at": None},
        {**sent[1], "message": "", "deleted_at": None},
        "the deleted message",
    )
    await expect_inbox(ann, bob, [sent[0], found[1], sent[2]])
    response = await edit(ann, bob, 2)
    expect_equal((response.status, response.code), (409, "message_deleted"), "an edit of it")
    expect_equal(await bob.cursor(), cursor, "the cursor")
    expect_equal((await ann.send(bob)).json["seq"], 4, "the next seq")


async def expect_inbox(sender: Account, reader: Account, messages: list[object]) -> None:
    """Check what a page, a poll, a conversation and streams contain."""
    for query, found in (
        ("", messages[::-1]),
        ("?since=0&wait=5", messages),
        (f"?with={sender.id}", messages[::-1]),
    ):
        expect_equal((await reader.get(query)).json["messages"], found, f"messages of {query!r}")
    for media_type in MEDIA_TYPES:
        stream = await open_stream(reader, media_type, "?since=0")
        events = await stream.messages(len(messages), SOON)
        expect_equal([each.document for each in events], messages, f"messages of {media_type}")
        stream.close()


@check(EDITS, "only the sender of a message can change it")
async def senders(server: Server) -> None:
    ann, bob = await two_accounts(server)
    cat = await server.new_account()
    await ann.send(bob)
    for who, to, seq, expected in [
        (ann, bob, 2, (404, "message_not_found")),
        (ann, ann, 1, (404, "message_not_found")),
        (cat, bob, 1, (404, "message_not_found")),
        (bob, bob, 1, (403, "not_the_sender")),
    ]:
        for response in (await edit(who, to, seq), await delete(who, to, seq)):
            expect_equal((response.status, response.code), expected, "the response")
    expect_equal((await bob.get()).texts, ["hai"], "the inbox")


@check(EDITS, "an edit obeys the rules of a send")
async def rules(server: Server) -> None:
    ann, _ = await two_accounts(server)
    await ann.send(ann)
    for text in ("", " \u2003\n", "a\0b"):
        response = await edit(ann, ann, 1, text)
        expect_equal((response.status, response.code), (400, "invalid_body"), f"the text {text!r}")
    for query in ("", f"?user_id={ann.id}", "?seq=1", f"?user_id={ann.id}&seq=x"):
        response = await ann.request("DELETE", f"/chats/{query}")
        expect_equal((response.status, response.code), (400, "invalid_query"), f"DELETE {query}")


@check(EDITS, "a repeated send is answered with the message as it is now")
async def replays(server: Server) -> None:
    ann, bob = await two_accounts(server)
    key = {"Idempotency-Key": secrets.token_hex(8)}
    await ann.send(bob, "old", headers=key)
    edited = (await edit(ann, bob, 1)).json
    expect_equal((await ann.send(bob, "old", headers=key)).json, edited, "after an edit")
    await delete(ann, bob, 1)
    replayed = (await ann.send(bob, "old", headers=key)).json
    expect_equal(replayed["message"], "", "the text after a deletion")
    expect(replayed.get("deleted_at"), "the deleted message has no deleted_at")


@check(EDITS, "a poll for messages is not answered because of a change")
async def not_woken(server: Server) -> None:
    ann, bob = await two_accounts(server)
    await ann.send(bob)
    held = server.start(bob.get(f"?since={await bob.cursor()}&wait=2"))
    await server.pause(0.5)
    expect_equal((await edit(ann, bob, 1)).json["message"], "new", "the edited text")
    expect_equal((await delete(ann, bob, 1)).status, 204, "a deletion")
    meta = (await held).json["meta"]
    expect_equal(meta["timed_out"], True, "timed_out")


@check(EDITS, "with erase=true an account is deleted with all that it has sent")
async def erased(server: Server) -> None:
    ann, bob = await two_accounts(server)
    cat = await server.new_account()
    sent = [(await each.send(bob, "hai")).json for each in (ann, cat, ann)]
    deletion = await ann.request("DELETE", "/users/?erase=true")
    expect(deletion.status in (202, 204), f"the status of the deletion: {deletion.status}")
    expect_equal((await ann.get()).status, 401, "the status of a request after it")
    started = server.reactor.seconds()
    while True:
        found = (await bob.get("?since=0")).json["messages"]
        # What is left after a 202 may take a while.
        if deletion.status == 204 or not any(each["message"] for each in found[::2]):
            break
        expect(server.reactor.seconds() < started + ERASE_SECONDS, "the texts are still there")
        await server.pause(0.5)
    for old, new in zip(sent, found, strict=True):
        expected = old
        if old["sent_by"] == ann.id:
            expect(new.get("deleted_at"), "an erased message has no deleted_at")
            expected = {**old, "message": "", "deleted_at": new["deleted_at"]}
        expect_equal(new, expected, f"message {new['seq']}")
