"""The incremental parser of requests, without a connection. Its errors: test_channel_errors.py."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from httptools import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from chatd.http import request_body
from chatd.http.errors import HTTPError
from chatd.http.head import CHUNKED
from chatd.http.limits import HTTPLimits
from chatd.http.received import SMALL_BYTES
from chatd.http.request_reader import RequestReader
from tests.examples import examples
from tests.http.raw_client import get, post, post_chunks


def reader(data: bytes = b"", **limits: Any) -> RequestReader:
    """A reader that has been fed `data`."""
    reader = RequestReader(HTTPLimits(**limits))
    reader.feed(data)
    return reader


def test_head_without_a_body() -> None:
    requests = reader(get("/a") + get("/b"))
    heads = [requests.read_head(), requests.read_head()]
    assert [head and head.target for head in heads] == [b"/a", b"/b"]
    assert requests.buffer == b""
    assert requests.head is None


def test_repeated_header_lines_are_parsed_once() -> None:
    requests = reader(get("/a", "X: y") + get("/b", "X: y") + get("/c", "X: z"))
    first, second, third = (requests.read_head() for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.headers is second.headers is not third.headers


def test_large_header_lines_are_not_kept() -> None:
    data = get("/", "X: " + "x" * SMALL_BYTES)
    requests = reader(data + data + get("/"))
    first, second = requests.read_head(), requests.read_head()
    assert first is not None
    assert second is not None
    assert first.headers.block == second.headers.block
    assert second.headers not in gc.get_referents(requests)
    third = requests.read_head()
    assert third is not None
    assert third.headers in gc.get_referents(requests)


@pytest.mark.parametrize("data", [post(b"hello"), post_chunks(b"he", b"llo")])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_body_in_pieces(data: bytes, step: int) -> None:
    requests = reader()
    body = None
    for start in range(0, len(data), step):
        requests.feed(data[start : start + step])
        if requests.head is None:
            requests.read_head()
        if requests.head is not None and requests.buffer:
            body = requests.read_body()
    assert body == b"hello"
    assert requests.head is None


def test_what_follows_a_body_stays_in_the_buffer() -> None:
    requests = reader(post(b"hello") + get("/next"))
    head = requests.read_head()
    assert head is not None
    assert head is requests.head
    assert head.length == 5
    assert requests.read_body() == b"hello"
    assert requests.buffer == get("/next")


def test_length_of_a_chunked_body_is_unknown() -> None:
    head = reader(post_chunks(b"hello")).read_head()
    assert head is not None
    assert head.length == CHUNKED


def test_line_ends_in_a_chunk_are_parsed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[bytes] = []

    class Parser(HttpRequestParser):
        def feed_data(self, data: Any) -> None:
            fed.append(data)
            super().feed_data(data)

    text = b"\r\n" * 20_000
    requests = reader(post_chunks(text, b"end", trailers="A: b\r\n") + get("/next"))
    requests.read_head()
    monkeypatch.setattr(request_body, "HttpRequestParser", Parser)
    assert requests.read_body() == text + b"end"
    assert requests.buffer == get("/next")
    # The head that takes it to the body, the chunks, and the trailers.
    assert len(fed) == 3


def test_small_chunks_are_decoded_some_at_a_time() -> None:
    chunks = [b"ab"] * (2 * request_body._MAX_CHUNKS + 1)
    requests = reader(post_chunks(*chunks) + get("/next"))
    requests.read_head()
    for _ in range(2):
        before = requests.size
        assert requests.read_body() is None
        # What is decoded takes no more memory than what it came in.
        assert requests.buffer.endswith(get("/next"))
        assert requests.size < before
    assert requests.read_body() == b"".join(chunks)
    assert requests.buffer == get("/next")


def test_incomplete_head_is_parsed_as_far_as_it_has_arrived() -> None:
    requests = reader(b"GET / HTTP/1.1\r\nHo")
    assert requests.read_head() is None
    assert requests.parsed == 18
    requests.feed(b"st: a\r\n\r\n")
    assert requests.read_head() is not None
    assert requests.parsed == 0


def test_rejected_head_is_kept_for_the_error_response() -> None:
    requests = reader(b"HEAD / HTTP/1.1\r\nX-Request-ID: a\r\n\r\nnext")
    with pytest.raises(HTTPError):
        requests.read_head()
    assert requests.rejected() == (True, b"HEAD / HTTP/1.1\r\nX-Request-ID: a\r\n\r\n")
    requests.clear()
    assert requests.rejected() == (False, b"")


def test_rejected_body_leaves_the_header_lines() -> None:
    requests = reader(post_chunks(b"hello").replace(b"5\r\n", b"x\r\n"))
    requests.read_head()
    with pytest.raises(HTTPError):
        requests.read_body()
    is_head, lines = requests.rejected()
    assert not is_head
    assert lines.startswith(b"\r\nHost: ")


def test_backlog_is_counted_in_requests_and_bytes() -> None:
    limits = HTTPLimits(pipelined=2, pipelined_bytes=100)
    assert not reader(b"\r\n\r\n" * 2).has_backlog(limits)
    assert reader(b"\r\n\r\n" * 3).has_backlog(limits)
    assert not reader(b"x" * 100).has_backlog(limits)
    assert reader(b"x" * 101).has_backlog(limits)


def test_a_length_that_differs_is_read_without_parsing_the_other_lines() -> None:
    lines = ("X: y", "content-length:  5", "Y: 5")
    requests = reader(get("/a", *lines, method="POST") + b"hello")
    first = requests.read_head()
    assert first is not None
    first.headers.memo = memo = object()
    assert requests.read_body() == b"hello"
    other = get("/a", "X: y", "content-length:  11", "Y: 5", method="POST")
    requests.feed(other + b"hello world" + get("/b", "X: y", "content-length:  x1", "Y: 5"))
    second = requests.read_head()
    assert second is not None
    assert second.headers.memo is memo
    assert (second.length, second.headers.block) == (11, other[other.index(b"\r\n") :])
    assert second.headers.values(b"content-length") == (b"11",)
    assert requests.read_body() == b"hello world"
    with pytest.raises(HTTPError):
        requests.read_head()


@pytest.mark.parametrize(
    ("lines", "again"),
    [
        (("Idempotency-Key: a1", "X: y"), ("Idempotency-Key: b22", "X: y")),
        (("Content-Length: 5", "Idempotency-Key: a"), ("Content-Length: 1", "Idempotency-Key: b")),
        (("idempotency-key:a", "X: y", "Content-Length: 5"),) * 2,
    ],
)
def test_keys_that_differ_are_read_without_parsing_the_other_lines(
    lines: tuple[str, ...], again: tuple[str, ...]
) -> None:
    requests = reader(get("/a", *lines))
    first = requests.read_head()
    assert first is not None
    first.headers.memo = memo = object()
    requests.head = None
    requests.feed(get("/a", *again))
    second = requests.read_head()
    assert second is not None
    assert second.headers.memo is memo
    assert second.headers.pairs() == reader(get("/a", *again)).read_head().headers.pairs()  # type: ignore[union-attr]


@pytest.mark.parametrize("value", ["", "a b", "x" * 256, "\xe9"])
def test_other_keys_are_parsed(value: str) -> None:
    requests = reader(get("/a", "Idempotency-Key: a"))
    first = requests.read_head()
    assert first is not None
    first.headers.memo = object()
    requests.feed(get("/a", f"Idempotency-Key: {value}"))
    second = requests.read_head()
    assert second is not None
    assert second.headers.memo is None
    assert second.headers.values(b"idempotency-key") == (value.encode("latin-1"),)


@pytest.mark.parametrize("length", [b"5", b"0" * 5000 + b"5", b"0" * 5000 + b"5  ", b"05 "])
def test_a_length_may_have_zeros_before_it(length: bytes) -> None:
    requests = reader(post(b"hello").replace(b": 5\r\n", b": %b\r\n" % length))
    requests.read_head()
    assert requests.read_body() == b"hello"
    requests.feed(get("/", "Content-Length: " + "0" * 5000))
    head = requests.read_head()
    assert head is not None
    assert head.length == 0


LINES = st.sampled_from(
    [
        *("Idempotency-Key: a", "Idempotency-Key: b2", "idempotency-key:  c", "Idempotency-Key:"),
        *("Idempotency-Key: a b", "Idempotency-Key: \xe9", "X-Idempotency-Key: a"),
        *("Content-Length: 0", "Content-Length: 5", "Content-Length: 12", "content-length:007"),
        *("Content-Length: 99", "Content-Length: +5", "Content-Length: 5 5", "Content-Length:"),
        *("Content-Length: 1x", "Content-Length: 99999999999", "X-Content-Length: 5", "X: y"),
        *("Transfer-Encoding: chunked", "Expect: 100-continue", "Connection: keep-alive"),
        *("Connection: close", "Upgrade: h2c", "Connection: upgrade", "Host: other", "X : y"),
    ]
)
HEADS = st.tuples(
    st.sampled_from(
        [
            *("GET / HTTP/1.1", "POST /a?b=c HTTP/1.1", "GET /%41 HTTP/1.1", "GET / HTTP/1.0"),
            *("GET /a#b HTTP/1.1", "GET  / HTTP/1.1", "CONNECT / HTTP/1.1", "GET * HTTP/1.1"),
            *(
                "GET http://host/ HTTP/1.1",
                "OPTIONS * HTTP/1.1",
                'PUT /"<> HTTP/1.1',
                "get / HTTP/1.1",
            ),
            *("GET /\xe9 HTTP/1.1", "GET / HTTP/2.0", "DELETE /" + "x" * 120 + " HTTP/1.1"),
        ]
    ),
    st.lists(LINES, max_size=3),
).map(lambda each: "\r\n".join([each[0], "Host: chat.example", *each[1], "", ""]).encode("latin-1"))


def read(requests: RequestReader, raw: bytes) -> object:
    """What is made of a head."""
    requests.feed(raw)
    try:
        head = requests.read_head()
    except HTTPError as error:
        return error.status, error.code, str(error)
    assert head is not None
    requests.head = None
    headers = head.headers
    return (
        *(head.method, head.target, head.version, head.length),
        *(head.keep_alive, head.expects_continue),
        *(headers.block, headers.host, headers.close, headers.coding, headers.pairs()),
        *(headers.values(b"content-length"), headers.values(b"idempotency-key")),
    )


@settings(max_examples=examples(150, deep=5000))
@given(st.lists(HEADS, min_size=2, max_size=6))
def test_a_head_is_read_alike_after_any_other(heads: list[bytes]) -> None:
    requests = reader(body_bytes=50, uri_bytes=100)
    for raw in heads:
        found = read(requests, raw)
        assert found == read(reader(body_bytes=50, uri_bytes=100), raw)
        # A connection ends with an error, or with a request that closes it.
        if isinstance(found[0], int) or not found[4]:  # type: ignore[index]
            requests = reader(body_bytes=50, uri_bytes=100)
