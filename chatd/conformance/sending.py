"""Promises about sending, pages and conversations."""

from __future__ import annotations

import secrets

from twisted.internet.defer import gatherResults

from chatd.conformance.checks import expect, expect_equal, promise
from chatd.conformance.server import Service

SENDING, PAGES, CONVERSATIONS = "Sending", "Pages", "Conversations"


@promise(SENDING, "a message is answered 201 with its place, and read as it was sent")
async def sent(service: Service) -> None:
    ann, bob = await service.two()
    text = 'naïve שלום \U0001f600 "\\ \n\t\x01 </script>'
    reply = await ann.send(bob, text)
    expect_equal(reply.status, 201, "a send")
    members = {"seq", "sent_by", "message", "sent_at", "received_by"}
    expect_equal(set(reply.json), members, "members of a message")
    wanted = {"seq": 1, "sent_by": ann.id, "message": text, "received_by": bob.id}
    expect(wanted.items() <= reply.json.items(), f"the message is {reply.json}")
    expect_equal((await bob.get()).json["messages"], [reply.json], "the inbox")


@promise(SENDING, "places are 1, 2, 3 ... without gaps, however many send at once")
async def dense(service: Service) -> None:
    ann, bob = await service.two()
    sends = [service.start(each.send(bob, f"{n}")) for n in range(20) for each in (ann, bob)]
    replies = await gatherResults(sends)
    expect_equal(sorted(each.json["seq"] for each in replies), [*range(1, 41)], "places")
    read = (await bob.get("?since=0")).json["messages"]
    expect_equal([each["seq"] for each in read], [*range(1, 41)], "places when read")
    by_seq = {each.json["seq"]: each.json["message"] for each in replies}
    expect(all(by_seq[each["seq"]] == each["message"] for each in read), "places were swapped")


@promise(SENDING, "what is no message is refused, and uses no place up")
async def refused(service: Service) -> None:
    ann, bob = await service.two()
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
        reply = await ann.ask("POST", "/chats/", body={"user_id": user_id, "message": text})
        expect_equal(reply.status, status, f"user_id {user_id!r}, message {text!r}")
    expect_equal((await ann.send(bob)).json["seq"], 1, "the place of the first message")


@promise(SENDING, "a key makes a send safe to repeat: 201, then 200 with the first message")
async def idempotency(service: Service) -> None:
    ann, bob = await service.two()
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


@promise(SENDING, "many sends with one key at once: one 201, the others 200")
async def concurrent_keys(service: Service) -> None:
    ann, bob = await service.two()
    key = {"Idempotency-Key": secrets.token_hex(8)}
    replies = await gatherResults(
        [service.start(ann.send(bob, "once", headers=key)) for _ in range(10)]
    )
    expect_equal(sorted(each.status for each in replies), [200] * 9 + [201], "statuses")
    expect_equal((await bob.get()).json["meta"]["count"], 1, "messages stored")


@promise(SENDING, "a refused send uses no key up")
async def refused_keys(service: Service) -> None:
    ann, bob = await service.two()
    key = {"Idempotency-Key": secrets.token_hex(8)}
    body = {"user_id": 2**53 - 1, "message": "x"}
    expect_equal((await ann.ask("POST", "/chats/", body=body, headers=key)).status, 404, "refused")
    expect_equal((await ann.send(bob, "x", headers=key)).status, 201, "the same key afterwards")


@promise(SENDING, "a client that goes away changes nothing: the send is whole or not at all")
async def gone_sender(service: Service) -> None:
    ann, bob = await service.two()
    keys = [{"Idempotency-Key": secrets.token_hex(8)} for _ in range(20)]
    for number, key in enumerate(keys):
        leaving = service.start(ann.send(bob, f"{number}", headers=key))
        await service.pause(0.0005 * number)
        leaving.addErrback(lambda _: None)
        leaving.cancel()
    for number, key in enumerate(keys):
        reply = await ann.send(bob, f"{number}", headers=key)
        expect(reply.status in (200, 201), f"the repeated send is answered {reply.status}")
    read = await bob.get("?since=0")
    expect_equal(sorted(read.texts, key=int), [f"{n}" for n in range(20)], "messages stored")
    expect_equal(read.seqs, [*range(1, 21)], "places")


@promise(PAGES, "pages are those of the seed: ten, newest first, with next and previous")
async def pages(service: Service) -> None:
    ann, bob = await service.two()
    empty = await bob.get()
    expect_equal((empty.status, empty.json["messages"]), (200, []), "page 1 of an empty inbox")
    for number in range(13):
        await ann.send(bob, f"{number}")
    first, second = await bob.get(), await bob.get("?page=2")
    expect_equal(first.seqs, [*range(13, 3, -1)], "places of page 1")
    expect_equal(second.seqs, [3, 2, 1], "places of page 2")
    meta = {"count": 13, "next": 2, "current_page": "1", "previous": None}
    expect(meta.items() <= first.json["meta"].items(), f"meta of page 1: {first.json['meta']}")
    meta = {"count": 13, "next": None, "current_page": "2", "previous": 1}
    expect(meta.items() <= second.json["meta"].items(), f"meta of page 2: {second.json['meta']}")
    beyond = await bob.get("?page=3")
    expect_equal((beyond.status, beyond.code), (404, "page_not_found"), "page 3")
    expect_equal((await bob.get("?page=0")).code, "invalid_query", "page 0")


@promise(PAGES, "linked pages are pinned: they do not drift while messages arrive")
async def pinned(service: Service) -> None:
    ann, bob = await service.two()
    for number in range(15):
        await ann.send(bob, f"{number}")
    first = await bob.get("?limit=5")
    link = first.header("Link")
    expect('rel="next"' in link, f"the Link of page 1 is {link!r}")
    target = link.partition("<")[2].partition(">")[0]
    await ann.send(bob, "arrived meanwhile")
    found = await bob.ask("GET", target.partition("/api/v1")[2])
    expect_equal(found.seqs, [10, 9, 8, 7, 6], "places of the next page")


@promise(PAGES, "the cursor of a page continues exactly there")
async def page_cursor(service: Service) -> None:
    ann, bob = await service.two()
    await ann.send(bob, "before")
    cursor = (await bob.get()).json["meta"]["cursor"]
    await ann.send(bob, "after")
    expect_equal((await bob.get(f"?since={cursor}")).texts, ["after"], "messages since the page")


@promise(CONVERSATIONS, "a conversation has both directions, newest first, to its beginning")
async def conversation(service: Service) -> None:
    ann, bob = await service.two()
    for number in range(7):
        await (ann if number % 2 else bob).send(bob if number % 2 else ann, f"{number}")
    found = await ann.get(f"?with={bob.id}&limit=3")
    texts = found.texts
    await bob.send(ann, "arrived meanwhile")
    while (older := found.json["meta"]["older"]) is not None:
        found = await ann.get(f"?with={bob.id}&limit=3&before={older}")
        texts += found.texts
    expect_equal(texts, [f"{n}" for n in range(6, -1, -1)], "the conversation")
    reply = await ann.get("?with=9007199254740991")
    expect_equal((reply.status, reply.code), (404, "user_not_found"), "with nobody")
    reply = await ann.get(f"?with={bob.id}&since=0")
    expect_equal((reply.status, reply.code), (400, "invalid_query"), "with and since together")
