"""What a channel does not take for a request, and what it answers then."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.raw_client import Conversation, Held, brief, get, post, post_chunks, problem

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
    "two Hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n",
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

VERSIONS = ["0.9", "1.2", "2.0", "3.0"]


@pytest.mark.parametrize("step", [0, 1], ids=["whole", "in bytes"])
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests_are_answered_400_and_are_the_last(data: bytes, step: int) -> None:
    conversation = Conversation(brief)
    conversation.say(get("/before") + data + get("/after"), step)
    before, refused = conversation.answers()
    assert before.body == b"/before"
    assert (refused.status, refused.code) == (400, "bad_request")
    assert refused.header("Connection") == "close"
    assert conversation.ended()


@pytest.mark.parametrize("version", VERSIONS)
def test_other_versions_are_answered_505(version: str) -> None:
    conversation = Conversation(brief)
    conversation.say(get(version=version))
    assert conversation.answer().status == 505
    assert conversation.answer().code == "version_not_supported"


def test_the_preface_of_http_2_is_answered_505() -> None:
    conversation = Conversation(brief)
    conversation.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
    assert conversation.answer().status == 505
    assert conversation.ended()


@pytest.mark.parametrize("coding", ["gzip", "gzip, chunked", "identity", "xchunked", "chunked;a=b"])
def test_other_transfer_codings_are_answered_501(coding: str) -> None:
    conversation = Conversation(brief)
    conversation.say(get("/", f"Transfer-Encoding: {coding}", method="POST") + b"0\r\n\r\n")
    refused = conversation.answer()
    assert (refused.status, refused.code) in [(501, "not_implemented"), (400, "bad_request")]
    assert conversation.ended()


def test_two_transfer_codings_are_refused() -> None:
    conversation = Conversation(brief)
    conversation.say(get("/", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"))
    assert conversation.answer().status in (400, 501)


def test_connect_is_answered_501_and_opens_no_tunnel() -> None:
    conversation = Conversation(brief)
    conversation.say(get("chat.example:80", method="CONNECT") + get("/tunnelled"))
    assert (conversation.answer().status, conversation.answer().code) == (501, "not_implemented")
    assert conversation.ended()


class TestHeads:
    def test_may_have_as_many_bytes_as_the_limit(self) -> None:
        head = get("/", "X: " + "x" * 100)
        conversation = Conversation(brief, head_bytes=len(head))
        conversation.say(head)
        assert conversation.answer().status == 200

    @pytest.mark.parametrize("step", [0, 1])
    def test_of_more_bytes_are_answered_431(self, step: int) -> None:
        head = get("/", "X: " + "x" * 100)
        conversation = Conversation(brief, head_bytes=len(head) - 1)
        conversation.say(head, step)
        assert (conversation.answer().status, conversation.answer().code) == (431, "head_too_large")
        assert conversation.ended()

    @pytest.mark.parametrize("step", [0, 1, 64])
    def test_without_end_are_answered_431_once_they_pass_the_limit(self, step: int) -> None:
        conversation = Conversation(brief, head_bytes=200)
        conversation.say(get("/", "X: " + "x" * 1000)[:201], step)
        assert conversation.answer().code == "head_too_large"

    def test_may_have_as_many_headers_as_the_limit(self) -> None:
        conversation = Conversation(brief, headers=100)
        conversation.say(get("/", *["X:"] * 99))
        assert conversation.answer().status == 200

    def test_of_more_headers_are_answered_431(self) -> None:
        conversation = Conversation(brief, headers=100)
        conversation.say(get("/", *["X:"] * 100))
        assert conversation.answer().code == "head_too_large"

    def test_may_have_as_long_a_target_as_the_limit(self) -> None:
        conversation = Conversation(brief, uri_bytes=500)
        conversation.say(get("/" + "x" * 499))
        assert conversation.answer().status == 200

    @pytest.mark.parametrize("size", [501, 5000])
    @pytest.mark.parametrize("step", [0, 1])
    def test_with_a_longer_target_are_answered_414(self, size: int, step: int) -> None:
        conversation = Conversation(brief, uri_bytes=500, head_bytes=2000)
        conversation.say(get("/" + "x" * (size - 1)), step)
        assert (conversation.answer().status, conversation.answer().code) == (414, "uri_too_long")

    def test_are_counted_one_by_one(self) -> None:
        head = get("/", "X: " + "x" * 100)
        conversation = Conversation(brief, head_bytes=len(head), headers=2)
        conversation.say(head * 10, 50)
        assert len(conversation.answers()) == 10


class TestBodies:
    def test_may_have_as_many_bytes_as_the_limit(self) -> None:
        conversation = Conversation(body_bytes=10)
        conversation.say(post(b"x" * 10) + post_chunks(b"x" * 5, b"y" * 5))
        assert [answer.status for answer in conversation.answers()] == [200, 200]

    def test_of_more_bytes_are_answered_413_before_they_come(self) -> None:
        conversation = Conversation(body_bytes=10)
        conversation.say(get("/", "Content-Length: 11", method="POST"))
        assert (conversation.answer().status, conversation.answer().code) == (413, "body_too_large")
        assert conversation.ended()

    @pytest.mark.parametrize("step", [0, 1])
    def test_in_chunks_of_more_bytes_are_answered_413(self, step: int) -> None:
        conversation = Conversation(body_bytes=10)
        conversation.say(post_chunks(b"x" * 5, b"y" * 6) + get("/after"), step)
        assert conversation.answer().code == "body_too_large"
        assert conversation.ended()

    def test_in_one_chunk_of_more_bytes_are_not_kept(self) -> None:
        conversation = Conversation(body_bytes=10)
        conversation.say(get("/", "Transfer-Encoding: chunked", method="POST") + b"ffffff\r\n")
        conversation.say(b"x" * 11)
        assert conversation.answer().code == "body_too_large"

    def test_may_come_byte_by_byte_in_chunks(self) -> None:
        conversation = Conversation(body_bytes=10)
        conversation.say(post_chunks(*[b"x"] * 10))
        assert conversation.answer().status == 200

    def test_may_not_be_all_trailers(self) -> None:
        conversation = Conversation(body_bytes=10, head_bytes=100)
        conversation.say(
            get("/", "Transfer-Encoding: chunked", method="POST") + b"0\r\n" + b"X: y\r\n" * 40
        )
        assert conversation.answer().code == "body_too_large"


class TestARefusal:
    def test_says_what_was_wrong_as_a_problem(self) -> None:
        conversation = Conversation()
        conversation.say(b"GET / HTTP/1.1\r\n\r\n")
        answer = conversation.answer()
        assert answer.body == problem(400, "bad_request", "The Host header is missing.")
        assert answer.header("Content-Length") == str(len(answer.body))
        assert answer.header("Server") == "chatd"

    def test_of_a_head_request_has_no_body(self) -> None:
        conversation = Conversation()
        conversation.say(b"HEAD / HTTP/1.1\r\n\r\n")
        answer = conversation.answer("HEAD")
        assert answer.status == 400
        assert int(answer.header("Content-Length") or 0) > 0

    def test_comes_without_a_document_if_none_can_be_made(self, logged_failures: Any) -> None:
        conversation = Conversation()

        def broken(status: int, code: str, detail: str) -> bytes:
            raise ValueError(code)

        conversation.server.state.site.problem = broken
        conversation.say(b"GET / HTTP/1.1\r\n\r\n")
        assert (conversation.answer().status, conversation.answer().body) == (400, b"")
        assert len(logged_failures.flush(ValueError)) == 1

    def test_waits_for_the_answers_before_it(self) -> None:
        held = Held()
        conversation = Conversation(held)
        conversation.say(get("/a") + get("/b") + b"garbage")
        assert conversation.answers() == []
        held.requests[0].respond(200, b"", b"a")
        assert [answer.body for answer in conversation.answers()] == [b"a"]
        held.requests[1].respond(200, b"", b"b")
        assert [answer.status for answer in conversation.answers()] == [200, 200, 400]

    def test_closes_only_the_sending_side_until_the_client_has_read_it(self) -> None:
        conversation = Conversation(linger_seconds=2.0)
        conversation.say(b"garbage")
        assert conversation.ended()
        assert not conversation.transport.disconnecting
        conversation.say(b"more garbage" * 100)
        assert len(conversation.answers()) == 1
        assert not conversation.transport.disconnecting
        conversation.clock.pump([1.0] * 3)
        assert conversation.transport.disconnecting

    def test_does_not_read_more_than_some_of_what_still_comes(self) -> None:
        conversation = Conversation(linger_bytes=1000)
        conversation.say(b"garbage")
        conversation.say(b"x" * 1000)
        assert not conversation.transport.disconnecting
        conversation.say(b"x")
        assert conversation.transport.disconnecting

    def test_leaves_nothing_behind_when_the_client_closes(self) -> None:
        conversation = Conversation()
        conversation.say(b"garbage")
        conversation.leave()
        assert conversation.server.connections == 0
        assert conversation.clock.getDelayedCalls() == []


class TestAFullServer:
    def test_says_so_to_whoever_comes_next(self) -> None:
        first = Conversation(brief)
        first.server.max_connections = 1
        second = Conversation(server=first.server)
        second.say(get("/a", "X-Request-ID: mine"))
        answer = second.answer()
        assert (answer.status, answer.code) == (503, "overloaded")
        assert answer.header("Retry-After") == "1"
        assert answer.header("X-Request-ID") == "mine"
        first.say(get("/b"))
        assert first.answer().body == b"/b"
