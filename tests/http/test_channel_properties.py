"""Properties that hold for any stream of bytes, however it is split."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chatd.http.limits import HTTPLimits
from chatd.http.request import Request
from tests.examples import examples
from tests.http.raw_client import RawClient, RawResponse, echo, get, parse, post, post_chunks
from tests.http.test_channel_errors import MALFORMED

SMALL: dict[str, Any] = {"head_bytes": 400, "uri_bytes": 100, "headers": 10, "body_bytes": 60}

words = st.text("abcdefghij-_", min_size=1, max_size=30)
targets = words.map(lambda word: f"/{word}?{word}")
headers = st.lists(
    st.sampled_from(["Accept: a", "X-Y:", "Cookie: a=b", "Connection: keep-alive", "X: \t z "]),
    max_size=4,
)
bodies = st.binary(max_size=70).map(lambda body: body.hex().encode()[: len(body)])

good = st.one_of(
    st.builds(lambda target, lines: get(target, *lines), targets, headers),
    st.builds(lambda body, lines: post(body, *lines), bodies, headers),
    st.builds(lambda chunks: post_chunks(*[c for c in chunks if c]), st.lists(bodies, max_size=3)),
    st.builds(lambda chunks: post_chunks(*chunks, trailers="A: b\r\n"), st.just([b"\r\n\r\n"])),
    st.builds(lambda body: post(body, "Expect: 100-continue"), bodies),
    st.just(get("/", version="1.0", method="GET") + b""),
    st.just(get("/", "Connection: close")),
    st.just(get("/", "Connection: upgrade", "Upgrade: x") + b"\0\1garbage"),
    st.just(b"\r\n"),
)
bad = st.one_of(
    st.sampled_from(list(MALFORMED.values())),
    st.just(get("/" + "x" * 150)),
    st.just(get("/" + "x" * 1000)),
    st.just(get("/", "X: " + "x" * 400)),
    st.just(get("/", *["X:"] * 12)),
    st.just(get("/", "Expect: magic")),
    st.just(get(version="3.0")),
    st.just(get("a:1", method="CONNECT")),
    st.just(get("/")[:-2]),
    st.just(post(b"hello")[:-2]),
    st.just(b"\r"),
)
streams = st.tuples(st.lists(good, max_size=6), st.one_of(st.just(b""), bad)).map(
    lambda parts: b"".join(parts[0]) + parts[1]
)


def exchange(pieces: list[bytes]) -> tuple[bytes, bool]:
    """The responses to `pieces`, and whether the connection was closed."""
    client = RawClient(echo, **SMALL)
    for piece in pieces:
        client.send(piece)
    # Generated ids differ, and a bad head may be refused before its X-Request-ID has arrived.
    responses = re.sub(rb"X-Request-ID: [^\r]*\r\n", b"", client.transport.value())
    return responses, client.closed()


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """`stream` in pieces."""
    ends = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[start:end] for start, end in itertools.pairwise(ends)]


@settings(max_examples=examples(30, deep=500))
@given(streams, st.lists(st.integers(0, 100_000), max_size=12))
def test_splitting_a_stream_does_not_change_the_responses(stream: bytes, places: list[int]) -> None:
    expected = exchange([stream])
    assert exchange(cut(stream, places)) == expected
    assert exchange([stream[at : at + 1] for at in range(len(stream))]) == expected


@settings(max_examples=examples(30, deep=500))
@given(st.data())
def test_any_bytes_are_answered_or_time_out(data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        stream = data.draw(st.binary(max_size=300))
    else:
        stream = mutate(data.draw(streams), data.draw(st.randoms(use_true_random=False)))
    check(stream, data.draw(st.lists(st.integers(0, 100_000), max_size=6)))


def test_mutated_requests_are_answered_or_time_out() -> None:
    source = random.Random(20261122)
    seeds = [*MALFORMED.values(), get("/a?b"), post(b"hello"), post_chunks(b"a", b"b")]
    for _ in range(examples(1000, deep=10_000)):
        stream = b"".join(source.choices(seeds, k=source.randint(1, 3)))
        check(mutate(stream, source), [source.randrange(1000) for _ in range(2)])


def mutate(stream: bytes, source: random.Random) -> bytes:
    """`stream` with some octets changed, removed, repeated or inserted."""
    octets = bytearray(stream)
    for _ in range(source.randint(1, 4)):
        if not octets:
            break
        at = source.randrange(len(octets))
        kind = source.randrange(5)
        if kind == 0:
            octets[at] = source.randrange(256)
        elif kind == 1:
            del octets[at : at + source.randint(1, 5)]
        elif kind == 2:
            octets[at:at] = octets[at : at + source.randint(1, 40)]
        elif kind == 3:
            octets[at:at] = source.choice([b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\r\n\r\n"])
        else:
            octets.insert(at, source.randrange(256))
    return bytes(octets)


def check(stream: bytes, places: list[int]) -> None:
    """Send `stream` and check the responses.

    Every response is well-formed, there is one for each request and at most one error response,
    which is the last; and the connection of an incomplete request times out.
    """
    requests: list[Request] = []

    def respond(request: Request) -> bytes:
        requests.append(request)
        return b"%d" % len(request.body)

    client = RawClient(respond, **SMALL)
    for piece in cut(stream, places):
        client.send(piece)
    for _ in range(int(HTTPLimits().idle_seconds) + 3):
        client.clock.advance(1.0)
    assert client.closed()
    methods = [request.method.decode() for request in requests]
    responses: list[RawResponse] = parse(client.transport.value(), *methods)
    assert len(requests) <= len(responses) <= len(requests) + 1
    assert all(response.status == 200 for response in responses[: len(requests)])
    for refused in responses[len(requests) :]:
        assert refused.status in (400, 408, 413, 414, 417, 431, 501, 505)
        assert refused.header("Connection") == "close"
    assert client.logged == requests
