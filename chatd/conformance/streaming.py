"""Checks of streams."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from chatd.conformance.checks import SOON, check, expect, expect_equal
from chatd.conformance.server import Server
from chatd.conformance.stream_reader import (
    JSON_LINES,
    KEEP_ALIVE,
    MEDIA_TYPES,
    OPENING,
    SERVER_SENT_EVENTS,
    open_stream,
)

STREAMS = "Streams"

KEEP_ALIVE_SECONDS = 17.0
"""A keep-alive is due every 15 seconds."""


@check(STREAMS, "a stream begins at once, and is not cached")
async def begins(server: Server) -> None:
    ann = await server.new_account()
    await ann.send(ann)
    for media_type, name in ((SERVER_SENT_EVENTS, OPENING), (JSON_LINES, KEEP_ALIVE)):
        stream = await open_stream(ann, media_type)
        expect("no-store" in stream.header("Cache-Control"), "no Cache-Control: no-store")
        event = await stream.next(SOON)
        expect_equal(event and event.name, name, f"the beginning of {media_type}")
        if event is not None and name == OPENING:
            expect_equal(event.cursor, await ann.cursor(), "the first id")


@check(STREAMS, "messages are written as they are sent, in order, with the cursor after each")
async def writes(server: Server) -> None:
    ann, bob = await server.two_accounts()
    sent = [(await ann.send(bob, "before")).json]
    streams = [await open_stream(bob, each, "?since=0") for each in MEDIA_TYPES]
    found = [await stream.messages(1, SOON) for stream in streams]
    for text in ('naïve שלום \U0001f600 "\\ \n\r\t\u2028 data: x', "data: y\n\n"):
        sent.append((await ann.send(bob, text)).json)
        for events, stream in zip(found, streams, strict=True):
            events.extend(await stream.messages(1, SOON))
    for events in found:
        expect_equal([event.document for event in events], sent, "messages")
        for number, event in enumerate(events, 1):
            seqs = (await bob.get(f"?since={event.cursor}")).seqs
            expect_equal(seqs, [*range(number + 1, 4)], f"seqs since message {number}")


@check(STREAMS, "without since a stream is from now; Last-Event-ID has priority over since")
async def positions(server: Server) -> None:
    ann = await server.new_account()
    for text in "ab":
        await ann.send(ann, text)
    last = {"Last-Event-ID": (await ann.get("?since=0&limit=1")).json["meta"]["cursor"]}
    for media_type in MEDIA_TYPES:
        fresh = [await open_stream(ann, media_type, query) for query in ("", "?since=now")]
        for query in ("", "?since=0", "?since=now"):
            stream = await open_stream(ann, media_type, query, last)
            [event] = await stream.messages(1, SOON)
            expect_equal(event.document["message"], "b", f"resumed with {query!r}")
            stream.close()
        sent = await ann.send(ann, "after")
        for stream in fresh:
            [event] = await stream.messages(1, SOON)
            expect_equal(event.document, sent.json, "the first message from now")
            stream.close()


@check(STREAMS, "a silent stream has a keep-alive every 15 seconds")
async def keep_alives(server: Server) -> None:
    ann = await server.new_account()
    streams = [await open_stream(ann, media_type) for media_type in MEDIA_TYPES]
    for stream in streams:
        await stream.next(SOON)
    for stream in streams:
        event = await stream.next(KEEP_ALIVE_SECONDS)
        expect_equal(event and event.name, KEEP_ALIVE, "the first event")


@check(STREAMS, "only Accept with the name of its type is answered with a stream")
async def negotiated(server: Server) -> None:
    ann = await server.new_account()
    await ann.send(ann)
    for accept in ("*/*", "text/*, application/*", "application/json, text/event-stream;q=0.5"):
        response = await ann.request("GET", "/chats/", headers={"Accept": accept})
        expect_equal((response.status, response.texts), (200, ["hai"]), f"Accept: {accept}")


@check(STREAMS, "an error before the stream begins is a problem document")
async def refused(server: Server) -> None:
    ann, bob = await server.two_accounts()
    await bob.send(bob)
    longer = await bob.cursor()
    for media_type in MEDIA_TYPES:
        for query, fields, status, code in [
            ("?since=x", {}, 400, "invalid_cursor"),
            ("", {"Last-Event-ID": "x"}, 400, "invalid_cursor"),
            ("?page=1", {}, 400, "invalid_query"),
            (f"?with={ann.id}", {}, 400, "invalid_query"),
            (f"?since={longer}", {}, 410, "cursor_epoch"),
            ("", {"Authorization": "Bearer wrong"}, 401, "unauthorized"),
        ]:
            headers = {"Authorization": f"Bearer {ann.token}", "Accept": media_type, **fields}
            response = await server.request("GET", f"/chats/{query}", headers=headers)
            expect_equal(
                (response.status, response.code), (status, code), f"{query!r} with {fields}"
            )


@check(STREAMS, "logging out or deleting the account ends streams with the error")
async def revoked(server: Server) -> None:
    ann = await server.new_account()
    streams = [await open_stream(ann, each) for each in MEDIA_TYPES]
    basic = [await open_stream(ann, each, "", server.basic_auth(ann)) for each in MEDIA_TYPES]
    expect_equal((await ann.request("DELETE", "/tokens/")).status, 204, "DELETE /tokens/")
    for stream in streams:
        event = await stream.last(SOON)
        outcome = (event.name, event.document.get("status"), event.document.get("code"))
        expect_equal(outcome, ("error", 401, "unauthorized"), "the end of a revoked token's stream")
    response = await server.request("DELETE", "/users/", headers=server.basic_auth(ann))
    expect_equal(response.status, 204, "DELETE /users/")
    for stream in basic:
        event = await stream.last(SOON)
        outcome = (event.name, event.document.get("status"), event.document.get("code"))
        expect_equal(outcome, ("error", 401, "unauthorized"), "the end of a deleted user's stream")


@check(STREAMS, "a ninth stream of a user ends the oldest, as superseded")
async def superseded(server: Server) -> None:
    ann = await server.new_account()
    streams = [await open_stream(ann, each) for each in MEDIA_TYPES for _ in range(5)]
    oldest, others = streams[:2], streams[2:]
    for stream in oldest:
        event = await stream.last(SOON)
        outcome = (event.name, event.document)
        expect_equal(outcome, ("superseded", {"superseded": True}), "the end of the oldest")
    sent = await ann.send(ann)
    for stream in others:
        [event] = await stream.messages(1, SOON)
        expect_equal(event.document, sent.json, "the message in the others")


@check(STREAMS, "no message is lost or repeated when streams are cut")
async def exactly_once(server: Server) -> None:
    ann = await server.new_account()
    count = 60

    async def send() -> None:
        for number in range(count):
            await ann.send(ann, f"{number}")

    sending = server.start(send())
    seen: list[str] = []
    cursor = "0"
    for number in range(30):
        query, headers = f"?since={cursor}", {}
        if number % 4 > 1 and seen:
            query, headers = "", {"Last-Event-ID": cursor}
        stream = await open_stream(ann, MEDIA_TYPES[number % 2], query, headers)
        for event in await stream.messages(1 + number % 3):
            seen.append(event.document["message"])
            cursor = event.cursor
        stream.close()
    await sending
    expect_equal(seen, [f"{number}" for number in range(count)], "messages")
    expect_equal((await ann.get(f"?since={cursor}")).texts, [], "messages after the last cursor")


@check(STREAMS, "a client that reads nothing for a while receives everything then")
async def slow(server: Server) -> None:
    ann = await server.new_account()
    streams = [await open_stream(ann, media_type) for media_type in MEDIA_TYPES]
    for stream in streams:
        await stream.next(SOON)
        stream.pause()
    count = 150
    text = "x" * 16_000
    sends = [server.start(ann.send(ann, f"{number} {text}")) for number in range(count)]
    sent = {each.json["seq"]: each.json for each in await gatherResults(sends)}
    for stream in streams:
        stream.resume()
        events = await stream.messages(count)
        seqs = [event.document["seq"] for event in events]
        expect_equal(seqs, [*range(1, count + 1)], "seqs")
        expect(all(event.document == sent[event.document["seq"]] for event in events), "texts")
