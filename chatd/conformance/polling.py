"""Promises about the long poll."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from chatd.client import ChatClient
from chatd.conformance.checks import expect, expect_equal, promise
from chatd.conformance.server import Service

POLL, OPERATIONS = "Long poll", "Operations"

SOON = 2.0
"""Seconds within which something counts as being done at once, also on a busy machine."""


@promise(POLL, "a held poll is answered as soon as there is a message")
async def wakes(service: Service) -> None:
    ann, bob = await service.two()
    held = service.start(bob.get(f"?since={await bob.cursor()}&wait=20"))
    await service.pause(1)
    expect(not held.called, "the poll was answered without a message")
    await ann.send(bob)
    reply = await held
    expect_equal(reply.texts, ["hai"], "messages")
    expect(reply.seconds < 1 + SOON, f"the answer took {reply.seconds:.1f} s")
    meta = reply.json["meta"]
    expect_equal((meta["timed_out"], meta["more"], meta["count"]), (False, False, 1), "meta")


@promise(POLL, "there is no wait where there are messages already")
async def at_once(service: Service) -> None:
    ann, bob = await service.two()
    await ann.send(bob)
    reply = await bob.get("?since=0&wait=20")
    expect_equal(reply.texts, ["hai"], "messages")
    expect(reply.seconds < SOON, f"the answer took {reply.seconds:.1f} s")


@promise(POLL, "when the wait is over the answer is 200 and empty")
async def times_out(service: Service) -> None:
    ann = await service.person()
    reply = await ann.get("?since=now&wait=1.5")
    meta = reply.json["meta"]
    expect_equal((reply.status, reply.texts, meta["timed_out"]), (200, [], True), "the answer")
    expect(1.4 <= reply.seconds < 1.5 + SOON, f"the answer took {reply.seconds:.1f} s")
    expect(1400 <= meta["waited"] < 1500 + 1000 * SOON, f"waited is {meta['waited']}")


@promise(POLL, "reading never consumes: the same cursor gives the same, or more")
async def not_consumed(service: Service) -> None:
    ann, bob = await service.two()
    cursor = await bob.cursor()
    for number in range(3):
        await ann.send(bob, f"{number}")
        for _ in range(2):
            found = (await bob.get(f"?since={cursor}&wait=1")).seqs
            expect_equal(found, [*range(1, number + 2)], "places")


@promise(POLL, "oldest first, at most limit, and more says that there is more")
async def slices(service: Service) -> None:
    ann, bob = await service.two()
    for number in range(7):
        await ann.send(bob, f"{number}")
    seqs: list[int] = []
    cursor, more = "0", True
    while more and len(seqs) < 20:
        reply = await bob.get(f"?since={cursor}&limit=3")
        seqs += reply.seqs
        cursor, more = reply.json["meta"]["cursor"], reply.json["meta"]["more"]
    expect_equal(seqs, [*range(1, 8)], "places")


@promise(POLL, "a wait over 55 seconds is lowered and said; no number is refused")
async def waits(service: Service) -> None:
    ann = await service.person()
    await ann.send(ann)
    reply = await ann.get("?since=0&wait=300")
    expect_equal(reply.json["meta"].get("wait_applied"), 55, "wait_applied")
    for wait in ("-1", "x", "", "1e3", "nan", "inf"):
        reply = await ann.get(f"?since=0&wait={wait}")
        expect_equal((reply.status, reply.code), (400, "invalid_query"), f"wait={wait}")


@promise(POLL, "Prefer: wait does the same and is acknowledged; the parameter wins")
async def prefer(service: Service) -> None:
    ann = await service.person()
    reply = await ann.ask("GET", "/chats/?since=now", headers={"Prefer": "wait=1"})
    expect(0.9 <= reply.seconds < 1 + SOON, f"Prefer: wait=1 took {reply.seconds:.1f} s")
    expect_equal(reply.header("Preference-Applied"), "wait=1", "Preference-Applied")
    reply = await ann.ask("GET", "/chats/?since=now&wait=0", headers={"Prefer": "wait=9"})
    expect(reply.seconds < SOON, "the parameter does not win")


@promise(POLL, "cursors: malformed is 400, another history or past the end is 410")
async def cursors(service: Service) -> None:
    ann = await service.person()
    for cursor in ("x", "-1", "1", "NOW", "0.0"):
        reply = await ann.get(f"?since={cursor}")
        expect_equal((reply.status, reply.code), (400, "invalid_cursor"), f"since={cursor}")
    await ann.send(ann)
    longer = await ann.cursor()
    bob = await service.person()
    reply = await bob.get(f"?since={longer}")
    expect_equal((reply.status, reply.code), (410, "cursor_epoch"), "past the end")


@promise(POLL, "several polls of one user are all answered")
async def several(service: Service) -> None:
    ann, bob = await service.two()
    held = [service.start(bob.get("?since=0&wait=20")) for _ in range(5)]
    await service.pause(0.7)
    await ann.send(bob)
    replies = await gatherResults(held)
    expect_equal([reply.texts for reply in replies], [["hai"]] * 5, "messages")


@promise(POLL, "beyond eight held polls of one user the oldest is answered early, superseded")
async def superseded(service: Service) -> None:
    ann = await service.person()
    held = []
    for _ in range(9):
        held.append(service.start(ann.get("?since=now&wait=20")))
        await service.pause(0.2)
    await service.pause(0.5)
    expect_equal([poll.called for poll in held], [True] + [False] * 8, "answered polls")
    reply = await held[0]
    expect_equal(reply.status, 200, "the status of the oldest")
    expect_equal(reply.json["meta"].get("superseded"), True, "superseded")


@promise(POLL, "never lost, never twice: polls that break off leave no trace")
async def exactly_once(service: Service) -> None:
    ann, bob = await service.two()

    async def leave() -> None:
        for number in range(30):
            poll = service.start(bob.get("?since=0&wait=20"))
            poll.addErrback(lambda _: None)
            await service.pause(0.01 * (number % 4))
            poll.cancel()

    leaving = service.start(leave())
    seen = []
    client = ChatClient(service.url, bob.token, reactor=service.reactor)
    async with client:
        follow = client.follow("0")
        for number in range(30):
            await ann.send(bob, f"{number}")
            if number % 3 == 0:
                seen.append((await follow.__anext__()).text)
        while len(seen) < 30:
            seen.append((await follow.__anext__()).text)
    await leaving
    expect_equal(seen, [f"{n}" for n in range(30)], "messages followed")


@promise(OPERATIONS, "the process tells its health, and the API describes itself")
async def operations(service: Service) -> None:
    for path in ("//healthz", "//readyz", "/openapi.json", "/docs/"):
        expect_equal((await service.ask("GET", path)).status, 200, path)
    document = (await service.ask("GET", "/openapi.json")).json
    expect(str(document.get("openapi", "")).startswith("3.1"), "the description is not OpenAPI 3.1")
