"""Requests that cannot be read, and the error responses to them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.raw_client import Held, RawClient, brief, get, post, post_chunks, problem

MALFORMED = {
    "a bare LF after the request line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "a bare LF after a header": b"GET / HTTP/1.1\r\nHost: a\n\r\n",
    "a bare LF at the end": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "a bare LF before the request line": b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a bare CR before the request line": b"\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a bare CR in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "whitespace before the first header": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "whitespace before a colon": b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    "a control character in a value": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
    "an empty header name": b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "a header name that is no token": b"GET / HTTP/1.1\r\nHost: a\r\nX\xff: b\r\n\r\n",
    "a header without colon": b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "two spaces before the target": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces after the target": b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space after the version": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "no version": b"GET /\r\nHost: a\r\n\r\n",
    "a version in lower case": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target without slash": b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with a fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target that is not ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target of another scheme": b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target with user information": b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target without host": b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
    "* for another method": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "RTSP": b"DESCRIBE / RTSP/1.0\r\nHost: a\r\n\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "an empty Host": b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "a Host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a Host with two names": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "a Host with user information": b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "a Host with a bad port": b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "two lengths": post(b"a", "Content-Length: 2"),
    "the same length twice": post(b"a", "Content-Length: 1"),
    "a list of lengths": get("/", "Content-Length: 1, 1", method="POST"),
    "a signed length": get("/", "Content-Length: +1", method="POST"),
    "a negative length": get("/", "Content-Length: -1", method="POST"),
    "a hexadecimal length": get("/", "Content-Length: 0x1", method="POST"),
    "an empty length": get("/", "Content-Length:", method="POST"),
    "a length beyond 64 bits": get("/", "Content-Length: 99999999999999999999", method="POST"),
    "length and chunks": post(b"0\r\n\r\n", "Transfer-Encoding: chunked"),
    "chunks and length": get("/", "Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n",
    "chunks in HTTP/1.0": get("/", "Transfer-Encoding: chunked", version="1.0") + b"0\r\n\r\n",
    "chunked twice": get("/", "Transfer-Encoding: chunked, chunked"),
    "no transfer coding": get("/", "Transfer-Encoding:"),
    "a chunk size that is no number": get("/", "Transfer-Encoding: chunked") + b"x\r\n",
    "a negative chunk size": get("/", "Transfer-Encoding: chunked") + b"-1\r\n",
    "whitespace in a chunk size": get("/", "Transfer-Encoding: chunked") + b"1 \r\n",
    "a chunk size beyond 64 bits": get("/", "Transfer-Encoding: chunked") + b"f" * 17 + b"\r\n",
    "a chunk longer than its size": get("/", "Transfer-Encoding: chunked") + b"1\r\nab\r\n",
    "a bare LF after a chunk size": get("/", "Transfer-Encoding: chunked") + b"1\na\r\n0\r\n\r\n",
    "a bad trailer": get("/", "Transfer-Encoding: chunked") + b"0\r\nX Y: z\r\n\r\n",
}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_two_hosts_are_refused(version: str) -> None:
    client = RawClient()
    client.send(f"GET / HTTP/{version}\r\nHost: a\r\nhost: a\r\n\r\n".encode())
    assert (client.response().status, client.response().code) == (400, "invalid_header")
    assert client.closed()


VERSIONS = ["0.9", "1.2", "2.0", "3.0"]


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "in bytes"])
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_request_gets_400_and_closes_the_connection(data: bytes, step: int) -> None:
    client = RawClient(brief)
    client.send(get("/before") + data + get("/after"), step)
    before, refused = client.responses()
    assert before.body == b"/before"
    assert (refused.status, refused.code) == (400, "bad_request")
    assert refused.header("Connection") == "close"
    assert client.closed()


@pytest.mark.parametrize("version", VERSIONS)
def test_other_versions_get_505(version: str) -> None:
    client = RawClient(brief)
    client.send(get(version=version))
    assert client.response().status == 505
    assert client.response().code == "version_not_supported"


def test_http_2_preface_gets_505() -> None:
    client = RawClient(brief)
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    assert client.response().status == 505
    assert client.closed()


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "identity", "xchunked", "chunked;a=b"])
def test_other_transfer_codings_get_501(coding: str) -> None:
    client = RawClient(brief)
    client.send(get("/", f"Transfer-Encoding: {coding}", method="POST") + b"0\r\n\r\n")
    refused = client.response()
    assert (refused.status, refused.code) in [(501, "not_implemented"), (400, "bad_request")]
    assert client.closed()


def test_repeated_transfer_encoding_is_refused() -> None:
    client = RawClient(brief)
    client.send(get("/", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"))
    assert client.response().status in (400, 501)


def test_connect_gets_501_and_opens_no_tunnel() -> None:
    client = RawClient(brief)
    client.send(get("chat.example:80", method="CONNECT") + get("/tunnelled"))
    assert (client.response().status, client.response().code) == (501, "not_implemented")
    assert client.closed()


class TestHeadLimits:
    def test_head_at_the_limit(self) -> None:
        head = get("/", "X: " + "x" * 100)
        client = RawClient(brief, head_bytes=len(head))
        client.send(head)
        assert client.response().status == 200

    @pytest.mark.parametrize("step", [0, 1])
    def test_head_over_the_limit_gets_431(self, step: int) -> None:
        head = get("/", "X: " + "x" * 100)
        client = RawClient(brief, head_bytes=len(head) - 1)
        client.send(head, step)
        assert (client.response().status, client.response().code) == (431, "head_too_large")
        assert client.closed()

    @pytest.mark.parametrize("step", [0, 1, 64])
    def test_endless_head_gets_431_at_the_limit(self, step: int) -> None:
        client = RawClient(brief, head_bytes=200)
        client.send(get("/", "X: " + "x" * 1000)[:201], step)
        assert client.response().code == "head_too_large"

    def test_number_of_headers_at_the_limit(self) -> None:
        client = RawClient(brief, headers=100)
        client.send(get("/", *["X:"] * 99))
        assert client.response().status == 200

    def test_too_many_headers_get_431(self) -> None:
        client = RawClient(brief, headers=100)
        client.send(get("/", *["X:"] * 100))
        assert client.response().code == "head_too_large"

    def test_target_at_the_limit(self) -> None:
        client = RawClient(brief, uri_bytes=500)
        client.send(get("/" + "x" * 499))
        assert client.response().status == 200

    @pytest.mark.parametrize("size", [501, 5000])
    @pytest.mark.parametrize("step", [0, 1])
    def test_target_over_the_limit_gets_414(self, size: int, step: int) -> None:
        client = RawClient(brief, uri_bytes=500, head_bytes=2000)
        client.send(get("/" + "x" * (size - 1)), step)
        assert (client.response().status, client.response().code) == (414, "uri_too_long")

    def test_each_head_is_counted_separately(self) -> None:
        head = get("/", "X: " + "x" * 100)
        client = RawClient(brief, head_bytes=len(head), headers=2)
        client.send(head * 10, 50)
        assert len(client.responses()) == 10


class TestBodyLimits:
    def test_body_at_the_limit(self) -> None:
        client = RawClient(body_bytes=10)
        client.send(post(b"x" * 10) + post_chunks(b"x" * 5, b"y" * 5))
        assert [response.status for response in client.responses()] == [200, 200]

    def test_content_length_over_the_limit_gets_413_at_once(self) -> None:
        client = RawClient(body_bytes=10)
        client.send(get("/", "Content-Length: 11", method="POST"))
        assert (client.response().status, client.response().code) == (413, "body_too_large")
        assert client.closed()

    @pytest.mark.parametrize("step", [0, 1])
    def test_chunked_body_over_the_limit_gets_413(self, step: int) -> None:
        client = RawClient(body_bytes=10)
        client.send(post_chunks(b"x" * 5, b"y" * 6) + get("/after"), step)
        assert client.response().code == "body_too_large"
        assert client.closed()

    @pytest.mark.parametrize("step", [0, 1])
    @pytest.mark.parametrize(
        "sizes", [b"b\r\n", b"fFfFfF\r\n", b"000000b;name=value\r\n", b"5\r\nhello\r\n6\r\n"]
    )
    def test_a_chunk_that_says_it_is_over_the_limit_gets_413_at_once(
        self, sizes: bytes, step: int
    ) -> None:
        client = RawClient(body_bytes=10)
        client.send(get("/", "Transfer-Encoding: chunked", method="POST") + sizes, step)
        assert client.response().code == "body_too_large"

    @pytest.mark.parametrize("step", [0, 1])
    def test_a_size_with_too_many_digits_is_refused(self, step: int) -> None:
        head = get("/", "Transfer-Encoding: chunked", method="POST")
        client = RawClient(body_bytes=10)
        client.send(head + b"0" * 60 + b"3\r\nabc\r\n0\r\n\r\n", step)
        assert client.response().status == 200
        client = RawClient(body_bytes=10)
        client.send(head + b"0" * 80 + b"3\r\nabc\r\n0\r\n\r\n", step)
        assert (client.response().status, client.response().code) == (400, "bad_request")

    def test_chunks_of_one_byte(self) -> None:
        client = RawClient(body_bytes=10)
        client.send(post_chunks(*[b"x"] * 10))
        assert client.response().status == 200

    def test_trailers_are_limited(self) -> None:
        client = RawClient(body_bytes=10, head_bytes=100)
        client.send(
            get("/", "Transfer-Encoding: chunked", method="POST") + b"0\r\n" + b"X: y\r\n" * 40
        )
        assert client.response().code == "body_too_large"


class TestErrorResponse:
    def test_body_is_a_problem_document(self) -> None:
        client = RawClient()
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        response = client.response()
        assert response.body == problem(400, "bad_request", "The Host header is missing.")
        assert response.header("Content-Length") == str(len(response.body))
        assert response.header("Server") == "chatd"

    def test_response_to_head_has_no_body(self) -> None:
        client = RawClient()
        client.send(b"HEAD / HTTP/1.1\r\n\r\n")
        response = client.response("HEAD")
        assert response.status == 400
        assert int(response.header("Content-Length") or 0) > 0

    def test_no_body_if_the_document_cannot_be_rendered(self, logged_failures: Any) -> None:
        client = RawClient()

        def broken(status: int, code: str, detail: str) -> bytes:
            raise ValueError(code)

        client.server.state.site.problem = broken
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        assert (client.response().status, client.response().body) == (400, b"")
        assert len(logged_failures.flush(ValueError)) == 1

    def test_earlier_responses_come_first(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get("/a") + get("/b") + b"garbage")
        assert client.responses() == []
        held.requests[0].respond(200, b"", b"a")
        assert [response.body for response in client.responses()] == [b"a"]
        held.requests[1].respond(200, b"", b"b")
        assert [response.status for response in client.responses()] == [200, 200, 400]

    def test_only_the_sending_side_is_closed_at_first(self) -> None:
        client = RawClient(linger_seconds=2.0)
        client.send(b"garbage")
        assert client.closed()
        assert not client.transport.disconnecting
        client.send(b"more garbage" * 100)
        assert len(client.responses()) == 1
        assert not client.transport.disconnecting
        client.clock.pump([1.0] * 3)
        assert client.transport.disconnecting

    def test_discarded_input_is_limited(self) -> None:
        client = RawClient(linger_bytes=1000)
        client.send(b"garbage")
        client.send(b"x" * 1000)
        assert not client.transport.disconnecting
        client.send(b"x")
        assert client.transport.disconnecting

    def test_nothing_is_left_when_the_client_closes(self) -> None:
        client = RawClient()
        client.send(b"garbage")
        client.disconnect()
        assert client.server.connections == 0
        assert client.clock.getDelayedCalls() == []
