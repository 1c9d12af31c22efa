"""What holds for any stream of bytes, and for any way in which it is cut into pieces."""

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
from tests.http.conversation import Answer, Conversation, echo, get, parse, post, post_chunks
from tests.http.test_channel_refusals import MALFORMED

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


def hear(pieces: list[bytes]) -> tuple[bytes, bool]:
    """What is answered to `pieces`, and whether the connection ended."""
    conversation = Conversation(echo, **SMALL)
    for piece in pieces:
        conversation.say(piece)
    # Ids are made up; an unacceptable head may be refused before the line with its own has come.
    answers = re.sub(rb"X-Request-ID: [^\r]*\r\n", b"", conversation.transport.value())
    return answers, conversation.ended()


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """`stream` in pieces."""
    ends = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[start:end] for start, end in itertools.pairwise(ends)]


@settings(max_examples=examples(100, deep=500))
@given(streams, st.lists(st.integers(0, 100_000), max_size=12))
def test_how_a_stream_is_cut_does_not_change_its_answers(stream: bytes, places: list[int]) -> None:
    whole = hear([stream])
    assert hear(cut(stream, places)) == whole
    assert hear([stream[at : at + 1] for at in range(len(stream))]) == whole


@settings(max_examples=examples(100, deep=500))
@given(st.data())
def test_any_bytes_are_answered_or_awaited(data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        stream = data.draw(st.binary(max_size=300))
    else:
        stream = mutate(data.draw(streams), data.draw(st.randoms(use_true_random=False)))
    listen(stream, data.draw(st.lists(st.integers(0, 100_000), max_size=6)))


def test_mutated_requests_are_answered_or_awaited() -> None:
    source = random.Random(20261122)
    seeds = [*MALFORMED.values(), get("/a?b"), post(b"hello"), post_chunks(b"a", b"b")]
    for _ in range(examples(1500, deep=10_000)):
        stream = b"".join(source.choices(seeds, k=source.randint(1, 3)))
        listen(mutate(stream, source), [source.randrange(1000) for _ in range(2)])


def mutate(stream: bytes, source: random.Random) -> bytes:
    """`stream` with some octets changed, dropped, doubled, or put elsewhere."""
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


def listen(stream: bytes, places: list[int]) -> None:
    """Say `stream` and hold what is heard to what may be heard.

    Every answer is well-formed, there is one for each request and at most one refusal, which is the
    last; and whatever was not answered yet is ended by its deadline.
    """
    requests: list[Request] = []

    def respond(request: Request) -> bytes:
        requests.append(request)
        return b"%d" % len(request.body)

    conversation = Conversation(respond, **SMALL)
    for piece in cut(stream, places):
        conversation.say(piece)
    for _ in range(int(HTTPLimits().idle_seconds) + 3):
        conversation.clock.advance(1.0)
    assert conversation.ended()
    methods = [request.method.decode() for request in requests]
    answers: list[Answer] = parse(conversation.transport.value(), *methods)
    assert len(requests) <= len(answers) <= len(requests) + 1
    assert all(answer.status == 200 for answer in answers[: len(requests)])
    for refused in answers[len(requests) :]:
        assert refused.status in (400, 408, 413, 414, 417, 431, 501, 505)
        assert refused.header("Connection") == "close"
    assert conversation.logged == requests
