"""Checks of the long poll and of the operational endpoints."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from chatd.client import ChatClient
from chatd.conformance.checks import SOON, check, expect, expect_equal
from chatd.conformance.server import Server

POLL, OPERATIONS = "Long poll", "Operations"


@check(POLL, "a held poll is answered as soon as there is a message")
async def wakes(server: Server) -> None:
    ann, bob = await server.two_accounts()
    held = server.start(bob.get(f"?since={await bob.cursor()}&wait=20"))
    await server.pause(1)
    expect(not held.called, "the poll was answered without a message")
    await ann.send(bob)
    response = await held
    expect_equal(response.texts, ["hai"], "messages")
    expect(response.seconds < 1 + SOON, f"the response took {response.seconds:.1f} s")
    meta = response.json["meta"]
    expect_equal((meta["timed_out"], meta["more"], meta["count"]), (False, False, 1), "meta")


@check(POLL, "a poll is answered at once if there are messages already")
async def at_once(server: Server) -> None:
    ann, bob = await server.two_accounts()
    await ann.send(bob)
    response = await bob.get("?since=0&wait=20")
    expect_equal(response.texts, ["hai"], "messages")
    expect(response.seconds < SOON, f"the response took {response.seconds:.1f} s")


@check(POLL, "a poll that times out is answered 200 without messages")
async def times_out(server: Server) -> None:
    ann = await server.new_account()
    response = await ann.get("?since=now&wait=1.5")
    meta = response.json["meta"]
    expect_equal(
        (response.status, response.texts, meta["timed_out"]), (200, [], True), "the response"
    )
    expect(1.4 <= response.seconds < 1.5 + SOON, f"the response took {response.seconds:.1f} s")
    expect(1400 <= meta["waited"] < 1500 + 1000 * SOON, f"waited is {meta['waited']}")


@check(POLL, "reading does not consume: the same cursor returns the same messages, or more")
async def not_consumed(server: Server) -> None:
    ann, bob = await server.two_accounts()
    cursor = await bob.cursor()
    for number in range(3):
        await ann.send(bob, f"{number}")
        for _ in range(2):
            found = (await bob.get(f"?since={cursor}&wait=1")).seqs
            expect_equal(found, [*range(1, number + 2)], "seqs")


@check(POLL, "messages come oldest first, at most `limit`; `more` tells if there are more")
async def slices(server: Server) -> None:
    ann, bob = await server.two_accounts()
    for number in range(7):
        await ann.send(bob, f"{number}")
    seqs: list[int] = []
    cursor, more = "0", True
    while more and len(seqs) < 20:
        response = await bob.get(f"?since={cursor}&limit=3")
        seqs += response.seqs
        cursor, more = response.json["meta"]["cursor"], response.json["meta"]["more"]
    expect_equal(seqs, [*range(1, 8)], "seqs")


@check(POLL, "a wait over 55 seconds is reduced and reported; a malformed one is rejected")
async def waits(server: Server) -> None:
    ann = await server.new_account()
    await ann.send(ann)
    response = await ann.get("?since=0&wait=300")
    expect_equal(response.json["meta"].get("wait_applied"), 55, "wait_applied")
    for wait in ("-1", "x", "", "1e3", "nan", "inf"):
        response = await ann.get(f"?since=0&wait={wait}")
        expect_equal((response.status, response.code), (400, "invalid_query"), f"wait={wait}")


@check(POLL, "Prefer: wait works like the parameter, is acknowledged, and has less priority")
async def prefer(server: Server) -> None:
    ann = await server.new_account()
    response = await ann.request("GET", "/chats/?since=now", headers={"Prefer": "wait=1"})
    expect(0.9 <= response.seconds < 1 + SOON, f"Prefer: wait=1 took {response.seconds:.1f} s")
    expect_equal(response.header("Preference-Applied"), "wait=1", "Preference-Applied")
    response = await ann.request("GET", "/chats/?since=now&wait=0", headers={"Prefer": "wait=9"})
    expect(response.seconds < SOON, "Prefer has priority over the parameter")


@check(POLL, "a malformed cursor is 400, one past the end or of another message is 410")
async def cursors(server: Server) -> None:
    ann = await server.new_account()
    for cursor in ("x", "-1", "1", "NOW", "0.0"):
        response = await ann.get(f"?since={cursor}")
        expect_equal((response.status, response.code), (400, "invalid_cursor"), f"since={cursor}")
    await ann.send(ann)
    longer = await ann.cursor()
    bob = await server.new_account()
    response = await bob.get(f"?since={longer}")
    expect_equal((response.status, response.code), (410, "cursor_epoch"), "past the end")
    await server.pause(0.01)
    await ann.send(bob)
    for query in (f"?since={longer}", f"?since={longer}&wait=2", f"?at={longer}"):
        response = await bob.get(query)
        expect_equal((response.status, response.code), (410, "cursor_epoch"), "another message")


@check(POLL, "several polls of one user are all answered")
async def several(server: Server) -> None:
    ann, bob = await server.two_accounts()
    held = [server.start(bob.get("?since=0&wait=20")) for _ in range(5)]
    await server.pause(0.7)
    await ann.send(bob)
    responses = await gatherResults(held)
    expect_equal([response.texts for response in responses], [["hai"]] * 5, "messages")


@check(POLL, "a ninth held poll of a user ends the oldest early, as superseded")
async def superseded(server: Server) -> None:
    ann = await server.new_account()
    held = []
    for _ in range(9):
        held.append(server.start(ann.get("?since=now&wait=20")))
        await server.pause(0.2)
    await server.pause(0.5)
    expect_equal([poll.called for poll in held], [True] + [False] * 8, "answered polls")
    response = await held[0]
    expect_equal(response.status, 200, "the status of the oldest")
    expect_equal(response.json["meta"].get("superseded"), True, "superseded")


@check(POLL, "no message is lost or repeated when polls are aborted")
async def exactly_once(server: Server) -> None:
    ann, bob = await server.two_accounts()

    async def abort_polls() -> None:
        for number in range(30):
            poll = server.start(bob.get("?since=0&wait=20"))
            poll.addErrback(lambda _: None)
            await server.pause(0.01 * (number % 4))
            poll.cancel()

    aborting = server.start(abort_polls())
    seen = []
    client = ChatClient(server.url, bob.token, reactor=server.reactor)
    async with client:
        follow = client.follow("0", transport="poll")
        for number in range(30):
            await ann.send(bob, f"{number}")
            if number % 3 == 0:
                seen.append((await follow.__anext__()).text)
        while len(seen) < 30:
            seen.append((await follow.__anext__()).text)
    await aborting
    expect_equal(seen, [f"{n}" for n in range(30)], "messages followed")


@check(OPERATIONS, "health endpoints and the API description are served")
async def operations(server: Server) -> None:
    for path in ("//healthz", "//readyz", "/openapi.json", "/docs/"):
        expect_equal((await server.request("GET", path)).status, 200, path)
    document = (await server.request("GET", "/openapi.json")).json
    expect(str(document.get("openapi", "")).startswith("3.1"), "the description is not OpenAPI 3.1")
