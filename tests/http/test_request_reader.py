"""The incremental parser of requests, without a connection. Its errors: test_channel_errors.py."""

from __future__ import annotations

import pytest

from chatd.http.errors import HTTPError
from chatd.http.head import CHUNKED
from chatd.http.limits import HTTPLimits
from chatd.http.request_reader import RequestReader
from tests.http.raw_client import get, post, post_chunks


def reader(data: bytes = b"", **limits: int) -> RequestReader:
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
