"""Checks of sending, pages and conversations."""

from __future__ import annotations

import secrets

from twisted.internet.defer import gatherResults

from chatd.conformance.checks import check, expect, expect_equal
from chatd.conformance.server import Server

SENDING, PAGES, CONVERSATIONS = "Sending", "Pages", "Conversations"


@check(SENDING, "a send is answered 201 with the seq, and the message is read as it was sent")
async def sent(server: Server) -> None:
    ann, bob = await server.two_accounts()
    text = 'naïve שלום \U0001f600 "\\ \n\t\x01 </script>'
    response = await ann.send(bob, text)
    expect_equal(response.status, 201, "a send")
    members = {"seq", "sent_by", "message", "sent_at", "received_by"}
    expect_equal(set(response.json), members, "members of a message")
    wanted = {"seq": 1, "sent_by": ann.id, "message": text, "received_by": bob.id}
    expect(wanted.items() <= response.json.items(), f"the message is {response.json}")
    expect_equal((await bob.get()).json["messages"], [response.json], "the inbox")


@check(SENDING, "seqs are 1, 2, 3 ... without gaps, despite concurrent sends")
async def dense(server: Server) -> None:
    ann, bob = await server.two_accounts()
    sends = [server.start(each.send(bob, f"{n}")) for n in range(20) for each in (ann, bob)]
    responses = await gatherResults(sends)
    expect_equal(sorted(each.json["seq"] for each in responses), [*range(1, 41)], "seqs")
    read = (await bob.get("?since=0")).json["messages"]
    expect_equal([each["seq"] for each in read], [*range(1, 41)], "seqs when read")
    by_seq = {each.json["seq"]: each.json["message"] for each in responses}
    expect(all(by_seq[each["seq"]] == each["message"] for each in read), "seqs were swapped")


@check(SENDING, "invalid messages are rejected and use no seq")
async def rejected(server: Server) -> None:
    ann, bob = await server.two_accounts()
    for user_id, text, status in [
        (bob.id, "", 400),
        (bob.id, " \u2003\n", 400),
        (bob.id, "a\0b", 400),
        (bob.id, 7, 400),
        (True, "x", 400),
        (1.0, "x", 400),
        (0, "x", 400),
        (2**53, "x", 400),
        (2**53 - 1, "x", 404),
    ]:
        response = await ann.request("POST", "/chats/", body={"user_id": user_id, "message": text})
        expect_equal(response.status, status, f"user_id {user_id!r}, message {text!r}")
    expect_equal((await ann.send(bob)).json["seq"], 1, "the place of the first message")


@check(SENDING, "a send repeated with its key is answered 200 with the first message")
async def idempotency(server: Server) -> None:
    ann, bob = await server.two_accounts()
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first = await ann.send(bob, "once", headers=key)
    again = await ann.send(bob, "once", headers=key)
    expect_equal((first.status, again.status), (201, 200), "statuses")
    expect_equal(again.header("Idempotency-Replayed"), "true", "Idempotency-Replayed")
    expect_equal(again.json, first.json, "the replayed message")
    other = await ann.send(bob, "different", headers=key)
    expect_equal((other.status, other.code), (422, "idempotency_key_reused"), "another body")
    expect_equal((await bob.send(ann, "x", headers=key)).status, 201, "the key of another sender")
    expect_equal((await bob.get()).json["meta"]["count"], 1, "messages stored")


@check(SENDING, "of concurrent sends with one key, one is answered 201 and the others 200")
async def concurrent_keys(server: Server) -> None:
    ann, bob = await server.two_accounts()
    key = {"Idempotency-Key": secrets.token_hex(8)}
    responses = await gatherResults(
        [server.start(ann.send(bob, "once", headers=key)) for _ in range(10)]
    )
    expect_equal(sorted(each.status for each in responses), [200] * 9 + [201], "statuses")
    expect_equal((await bob.get()).json["meta"]["count"], 1, "messages stored")


@check(SENDING, "a rejected send does not use its key")
async def rejected_keys(server: Server) -> None:
    ann, bob = await server.two_accounts()
    key = {"Idempotency-Key": secrets.token_hex(8)}
    body = {"user_id": 2**53 - 1, "message": "x"}
    expect_equal(
        (await ann.request("POST", "/chats/", body=body, headers=key)).status, 404, "refused"
    )
    expect_equal((await ann.send(bob, "x", headers=key)).status, 201, "the same key afterwards")


@check(SENDING, "a send whose client disconnects is stored completely or not at all")
async def disconnected_sender(server: Server) -> None:
    ann, bob = await server.two_accounts()
    keys = [{"Idempotency-Key": secrets.token_hex(8)} for _ in range(20)]
    for number, key in enumerate(keys):
        leaving = server.start(ann.send(bob, f"{number}", headers=key))
        await server.pause(0.0005 * number)
        leaving.addErrback(lambda _: None)
        leaving.cancel()
    for number, key in enumerate(keys):
        response = await ann.send(bob, f"{number}", headers=key)
        expect(response.status in (200, 201), f"the repeated send is answered {response.status}")
    read = await bob.get("?since=0")
    expect_equal(sorted(read.texts, key=int), [f"{n}" for n in range(20)], "messages stored")
    expect_equal(read.seqs, [*range(1, 21)], "seqs")


@check(PAGES, "pages have ten messages, newest first, with next and previous")
async def pages(server: Server) -> None:
    ann, bob = await server.two_accounts()
    empty = await bob.get()
    expect_equal((empty.status, empty.json["messages"]), (200, []), "page 1 of an empty inbox")
    for number in range(13):
        await ann.send(bob, f"{number}")
    first, second = await bob.get(), await bob.get("?page=2")
    expect_equal(first.seqs, [*range(13, 3, -1)], "seqs of page 1")
    expect_equal(second.seqs, [3, 2, 1], "seqs of page 2")
    meta = {"count": 13, "next": 2, "current_page": "1", "previous": None}
    expect(meta.items() <= first.json["meta"].items(), f"meta of page 1: {first.json['meta']}")
    meta = {"count": 13, "next": None, "current_page": "2", "previous": 1}
    expect(meta.items() <= second.json["meta"].items(), f"meta of page 2: {second.json['meta']}")
    beyond = await bob.get("?page=3")
    expect_equal((beyond.status, beyond.code), (404, "page_not_found"), "page 3")
    expect_equal((await bob.get("?page=0")).code, "invalid_query", "page 0")


@check(PAGES, "linked pages are pinned: they do not shift when messages arrive")
async def pinned(server: Server) -> None:
    ann, bob = await server.two_accounts()
    for number in range(15):
        await ann.send(bob, f"{number}")
    first = await bob.get("?limit=5")
    link = first.header("Link")
    expect('rel="next"' in link, f"the Link of page 1 is {link!r}")
    target = link.partition("<")[2].partition(">")[0]
    await ann.send(bob, "arrived meanwhile")
    found = await bob.request("GET", target.partition("/api/v1")[2])
    expect_equal(found.seqs, [10, 9, 8, 7, 6], "seqs of the next page")


@check(PAGES, "large messages are on pages of ten, and on larger ones as `meta.limit` says")
async def large_pages(server: Server) -> None:
    ann, bob = await server.two_accounts()
    count = 24
    for _ in range(count):
        response = await ann.send(bob, "\x01" * 16 * 1024)
        expect_equal(response.status, 201, "a send of 16 KiB")
    ten = await bob.get("?limit=10")
    expect_equal(ten.seqs, [*range(count, count - 10, -1)], "seqs of a page of ten")
    seqs: list[int] = []
    page: int | None = 1
    limit = count
    while page is not None and len(seqs) <= count:
        found = await bob.get(f"?page={page}&limit={limit}")
        expect_equal(found.status, 200, f"page {page} with limit {limit}")
        limit = found.json["meta"].get("limit", limit)
        expect(0 < len(found.seqs) <= limit, f"{len(found.seqs)} messages with limit {limit}")
        seqs += found.seqs
        page = found.json["meta"]["next"]
    expect_equal(seqs, [*range(count, 0, -1)], "seqs of all pages")


@check(PAGES, "the cursor of a page continues where the page ends")
async def page_cursor(server: Server) -> None:
    ann, bob = await server.two_accounts()
    await ann.send(bob, "before")
    cursor = (await bob.get()).json["meta"]["cursor"]
    await ann.send(bob, "after")
    expect_equal((await bob.get(f"?since={cursor}")).texts, ["after"], "messages since the page")


@check(CONVERSATIONS, "a conversation has both directions, newest first, back to its beginning")
async def conversation(server: Server) -> None:
    ann, bob = await server.two_accounts()
    for number in range(7):
        await (ann if number % 2 else bob).send(bob if number % 2 else ann, f"{number}")
    found = await ann.get(f"?with={bob.id}&limit=3")
    texts = found.texts
    await bob.send(ann, "arrived meanwhile")
    while (older := found.json["meta"]["older"]) is not None:
        found = await ann.get(f"?with={bob.id}&limit=3&before={older}")
        texts += found.texts
    expect_equal(texts, [f"{n}" for n in range(6, -1, -1)], "the conversation")
    response = await ann.get("?with=9007199254740991")
    expect_equal((response.status, response.code), (404, "user_not_found"), "with nobody")
    response = await ann.get(f"?with={bob.id}&since=0")
    expect_equal(
        (response.status, response.code), (400, "invalid_query"), "with and since together"
    )
