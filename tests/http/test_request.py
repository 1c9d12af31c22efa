"""How answers are written: whole or in pieces, with which headers, by which producers."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import Any

import pytest
from klein import Klein, Response
from twisted.web.http_headers import InvalidHeaderName
from twisted.web.resource import EncodingResourceWrapper
from twisted.web.server import NOT_DONE_YET, GzipEncoderFactory

from chatd.http.request import Request
from chatd.http.response_head import StandardHeaders, canonical, header_block, one_line
from tests.http.raw_client import (
    NOW,
    Conversation,
    HalfClosing,
    Held,
    Leaf,
    brief,
    get,
    problem,
)


def one_request(
    *headers: str, version: str = "1.1", method: str = "GET"
) -> tuple[Conversation, Request]:
    """A conversation with a request that waits for its answer."""
    held = Held()
    conversation = Conversation(held)
    conversation.say(get("/", *headers, version=version, method=method))
    [request] = held.requests
    return conversation, request


class TestAWholeAnswer:
    def test_is_written_at_once(self) -> None:
        writes: list[bytes] = []

        class Counting(HalfClosing):
            def write(self, data: bytes) -> None:
                writes.append(data)

        def respond(request: Request) -> object:
            request.respond(201, header_block((b"X-A", b"b")), b"{}")
            return NOT_DONE_YET

        transport = Counting()  # type: ignore[no-untyped-call]
        conversation = Conversation(respond, transport=transport)
        conversation.say(get())
        assert writes == [
            b"HTTP/1.1 201 Created\r\n"
            b"Server: chatd\r\n"
            b"Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"
            b"X-A: b\r\n"
            b"Content-Length: 2\r\n"
            b"\r\n"
            b"{}"
        ]

    def test_carries_what_was_set_before(self) -> None:
        conversation, request = one_request()
        request.setHeader(b"x-request-id", b"1")
        request.setHeader("Content-Length", "9999")
        request.setHeader("Transfer-Encoding", "chunked")
        request.addCookie(b"k", b"v")  # type: ignore[no-untyped-call]
        request.respond(200, header_block((b"X-A", b"b")), b"body")
        answer = conversation.answer()
        assert answer.header("X-Request-Id") == "1"
        assert answer.header("X-A") == "b"
        assert answer.header("Set-Cookie") == "k=v"
        assert answer.header("Content-Length") == "4"
        assert answer.header("Transfer-Encoding") is None
        assert answer.header("Date") == "Tue, 15 Nov 1994 08:12:31 GMT"
        assert answer.body == b"body"

    def test_to_head_has_no_body(self) -> None:
        conversation, request = one_request(method="HEAD")
        request.respond(200, b"", b"body")
        assert conversation.answer("HEAD").header("Content-Length") == "4"
        assert conversation.transport.value().endswith(b"\r\n\r\n")

    @pytest.mark.parametrize("status", [204, 304])
    def test_without_content_has_no_body_and_no_length(self, status: int) -> None:
        conversation, request = one_request()
        request.respond(status, b"", b"body")
        assert conversation.answer().header("Content-Length") is None
        assert conversation.transport.value().endswith(b"\r\n\r\n")

    def test_ends_the_connection_if_it_says_so(self) -> None:
        conversation, request = one_request()
        request.setHeader(b"Connection", b"close")
        request.respond(200)
        assert conversation.answer().header("Connection") == "close"
        assert conversation.ended()

    def test_is_given_once(self) -> None:
        conversation, request = one_request()
        request.respond(200, b"", b"a")
        with pytest.raises(RuntimeError, match="was answered"):
            request.respond(200, b"", b"b")
        with pytest.raises(RuntimeError, match=r"after Request\.finish"):
            request.write(b"b")
        assert conversation.answer().body == b"a"

    def test_does_not_follow_a_part_of_another(self) -> None:
        conversation, request = one_request()
        request.write(b"a")
        with pytest.raises(RuntimeError, match="was answered"):
            request.respond(200, b"", b"b")
        request.finish()
        assert conversation.answer().body == b"a"

    def test_is_logged(self) -> None:
        conversation, request = one_request()
        request.respond(404, b"", b"none")
        assert conversation.logged == [request]
        assert (request.code, request.sentLength) == (404, 4)
        assert not request.disconnected


# RFC 9110 section 15, RFC 6585, and statuses that twisted.web or Python 3.11 name otherwise.
REASON_PHRASES = {
    200: "OK",
    304: "Not Modified",
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    426: "Upgrade Required",
    428: "Precondition Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    451: "Unavailable For Legal Reasons",
    503: "Service Unavailable",
    511: "Network Authentication Required",
    599: "Unknown Status",
}


@pytest.mark.parametrize(("status", "phrase"), REASON_PHRASES.items())
class TestReasonPhrases:
    def test_of_a_whole_response(self, status: int, phrase: str) -> None:
        conversation, request = one_request()
        request.respond(status)
        assert (conversation.answer().status, conversation.answer().reason) == (status, phrase)

    def test_of_a_response_in_pieces(self, status: int, phrase: str) -> None:
        conversation, request = one_request()
        request.setResponseCode(status)
        request.finish()
        assert (conversation.answer().status, conversation.answer().reason) == (status, phrase)

    def test_of_a_response_of_klein(self, status: int, phrase: str) -> None:
        app = Klein()

        @app.route("/")
        def root(request: object) -> Any:
            return Response(status, {}, b"")

        conversation = Conversation(resource=app.resource())
        conversation.say(get())
        assert (conversation.answer().status, conversation.answer().reason) == (status, phrase)


def test_a_reason_phrase_can_be_set() -> None:
    conversation, request = one_request()
    request.setResponseCode(429, b"Slow Down")
    request.finish()
    assert conversation.answer().reason == "Slow Down"


class TestAnAnswerInPieces:
    def test_comes_in_chunks(self) -> None:
        conversation, request = one_request()
        for piece in (b"one ", b"", b"two"):
            request.write(piece)
        request.finish()
        answer = conversation.answer()
        assert answer.header("Transfer-Encoding") == "chunked"
        assert answer.body == b"one two"
        assert request.sentLength == 7
        assert not conversation.ended()

    def test_ends_with_the_connection_in_http_1_0(self) -> None:
        conversation, request = one_request("Connection: keep-alive", version="1.0")
        request.write(b"one")
        request.finish()
        answer = conversation.answer()
        assert answer.header("Transfer-Encoding") is None
        assert answer.header("Connection") == "close"
        assert answer.body == b"one"
        assert conversation.ended()

    def test_has_the_length_that_was_set(self) -> None:
        conversation, request = one_request("Connection: keep-alive", version="1.0")
        request.setHeader(b"content-length", b"3")
        request.write(b"one")
        request.finish()
        assert conversation.answer().body == b"one"
        assert not conversation.ended()

    def test_is_cut_at_its_length(self, logged_failures: Any) -> None:
        conversation, request = one_request()
        request.setHeader(b"Content-Length", b"3")
        request.write(b"one two")
        request.finish()
        assert conversation.answer().body == b"one"
        assert conversation.ended()
        assert len(logged_failures.flush_messages()) <= 1

    def test_shorter_than_its_length_ends_the_connection(self, logged_failures: Any) -> None:
        conversation, request = one_request()
        request.setHeader(b"Content-Length", b"3")
        request.write(b"o")
        request.finish()
        assert conversation.transport.value().endswith(b"\r\n\r\no")
        assert conversation.ended()
        assert len(logged_failures.flush_messages()) <= 1

    @pytest.mark.parametrize("headers", [(), (("Content-Length", "3"),)])
    def test_to_head_is_only_the_head(self, headers: tuple[tuple[str, str], ...]) -> None:
        conversation, request = one_request(method="HEAD")
        for name, value in headers:
            request.setHeader(name, value)
        request.write(b"one")
        request.finish()
        assert conversation.transport.value().endswith(b"\r\n\r\n")
        assert conversation.answer("HEAD").status == 200
        assert request.sentLength == 0
        assert not conversation.ended()

    @pytest.mark.parametrize("status", [204, 304])
    def test_without_content_is_only_the_head(self, status: int) -> None:
        conversation, request = one_request()
        request.setResponseCode(status)
        request.setHeader(b"Content-Length", b"3")
        request.write(b"one")
        request.finish()
        assert conversation.answer().header("Content-Length") is None
        assert conversation.transport.value().endswith(b"\r\n\r\n")
        assert not conversation.ended()

    def test_may_be_empty(self) -> None:
        conversation, request = one_request()
        request.finish()
        assert conversation.answer().body == b""

    def test_is_bytes(self) -> None:
        conversation, request = one_request()
        with pytest.raises(TypeError):
            request.write("text")  # type: ignore[arg-type]
        request.finish()
        assert conversation.answer().status == 200

    def test_is_cut_off_if_it_fails_under_way(self, logged_failures: Any) -> None:
        def respond(request: Request) -> object:
            request.write(b"begun")
            raise ValueError

        conversation = Conversation(respond)
        conversation.say(get())
        assert conversation.transport.disconnected
        assert b"500" not in conversation.transport.value()
        assert len(logged_failures.flush(ValueError)) == 1

    def test_that_fails_after_its_end_is_whole(self, logged_failures: Any) -> None:
        def respond(request: Request) -> object:
            brief(request)
            raise ValueError

        conversation = Conversation(respond)
        conversation.say(get("/a") + get("/b"))
        assert [answer.body for answer in conversation.answers()] == [b"/a", b"/b"]
        assert len(logged_failures.flush(ValueError)) == 2

    def test_finished_twice_warns(self) -> None:
        conversation, request = one_request()
        request.finish()
        with pytest.warns(UserWarning, match="finish called twice"):
            request.finish()
        assert conversation.answer().status == 200


class TestHeaders:
    def test_of_every_answer_are_few(self) -> None:
        conversation = Conversation(lambda request: b"x")
        conversation.say(get())
        assert sorted(name for name, _ in conversation.answer().headers) == [
            "Content-Length",
            "Content-Type",
            "Date",
            "Server",
        ]

    def test_can_be_read_and_changed_before_they_are_sent(self) -> None:
        conversation, request = one_request()
        request.setHeader(b"etag", b"x")
        assert request.responseHeaders.getRawHeaders(b"ETag") == [b"x"]
        request.responseHeaders.addRawHeader(b"ETag", b"y")
        request.responseHeaders.removeHeader(b"Date")
        request.responseHeaders.setRawHeaders(b"Server", [b"other"])
        request.setHeader(b"X", b"z")
        request.finish()
        answer = conversation.answer()
        assert [value for name, value in answer.headers if name == "ETag"] == ["x", "y"]
        assert answer.header("Date") is None
        assert answer.header("Server") == "other"
        assert answer.header("X") == "z"

    def test_that_are_standard_can_be_set(self) -> None:
        conversation, request = one_request()
        request.setHeader(b"Server", b"other")
        request.finish()
        assert conversation.answer().header("Server") == "other"
        assert conversation.answer().header("Date") is not None

    def test_can_be_replaced(self) -> None:
        conversation, request = one_request()
        request.responseHeaders.setRawHeaders(b"X", [b"1"])
        request.responseHeaders = type(request.responseHeaders)()
        request.finish()
        assert conversation.answer().header("X") is None

    @pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
    @pytest.mark.parametrize("whole", [True, False])
    def test_cannot_start_another(self, end: str, whole: bool) -> None:
        conversation, request = one_request()
        value = f"a{end}Set-Cookie: b"
        request.setHeader("X-A", value)
        request.setHeader(b"X-B", value.encode())
        request.setResponseCode(200, f"OK{end}X-C: c".encode())
        if whole:
            request.respond(200)
        else:
            request.finish()
        answer = conversation.answer()
        assert answer.header("X-A") == answer.header("X-B") == "a Set-Cookie: b"
        assert answer.header("Set-Cookie") is None
        assert answer.header("X-C") is None

    @pytest.mark.parametrize("name", [b"a b", b"a:b", b"a\r\nb", b""])
    def test_have_names_that_are_tokens(self, name: bytes) -> None:
        _, request = one_request()
        with pytest.raises(InvalidHeaderName):
            request.setHeader(name, b"")
        with pytest.raises(InvalidHeaderName):
            header_block((name, b""))

    @pytest.mark.parametrize("value", [b"a\rb", b"a\nb", b"a\0b"])
    def test_in_blocks_have_values_of_one_line(self, value: bytes) -> None:
        with pytest.raises(ValueError, match="is no header value"):
            header_block((b"X", value))

    def test_in_blocks_have_canonical_names(self) -> None:
        block = header_block((b"content-type", b"a"), (b"ETAG", b"b"))
        assert block == b"Content-Type: a\r\nETag: b\r\n"
        assert canonical("www-authenticate") == b"WWW-Authenticate"
        assert one_line(b"a\r\nb\rc\nd") == b"a b c d"

    def test_that_are_standard_follow_a_clock_that_is_set_back(self) -> None:
        conversation = Conversation()
        standard = StandardHeaders(conversation.clock, lambda: NOW + len(asked))
        asked: list[int] = []
        conversation.clock.rightNow = 100.0
        first = standard.block()
        assert standard.block() is first
        asked.append(1)
        conversation.clock.rightNow = 50.0
        assert standard.block() != first


class TestProducers:
    def test_that_push_are_paused_while_there_is_no_room(self) -> None:
        calls: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                calls.append("pause")

            def resumeProducing(self) -> None:
                calls.append("resume")

            def stopProducing(self) -> None:
                calls.append("stop")

        conversation, request = one_request()
        request.registerProducer(Producer(), True)
        conversation.channel.pauseProducing()
        conversation.channel.resumeProducing()
        request.unregisterProducer()
        conversation.channel.pauseProducing()
        request.registerProducer(Producer(), True)
        with pytest.raises(ValueError, match="before previous one"):
            request.registerProducer(Producer(), True)
        request.unregisterProducer()
        request.finish()
        assert calls == ["pause", "resume", "pause"]

    def test_that_are_pulled_give_a_piece_a_turn(self) -> None:
        class Producer:
            left = 3

            def resumeProducing(self) -> None:
                request.write(b"x")
                self.left -= 1
                if self.left == 2:
                    conversation.channel.pauseProducing()
                if not self.left:
                    request.unregisterProducer()
                    request.finish()

            def stopProducing(self) -> None:
                raise NotImplementedError

        conversation, request = one_request()
        request.registerProducer(Producer(), False)
        conversation.clock.pump([0.0] * 3)
        assert request.sentLength == 1
        conversation.channel.resumeProducing()
        conversation.clock.pump([0.0] * 3)
        assert conversation.answer().body == b"xxx"
        conversation.leave()
        assert conversation.clock.getDelayedCalls() == []

    def test_that_fail_end_the_connection(self, logged_failures: Any) -> None:
        class Producer:
            stopped = False

            def resumeProducing(self) -> None:
                raise ValueError

            def stopProducing(self) -> None:
                self.stopped = True

        conversation, request = one_request()
        producer = Producer()
        request.registerProducer(producer, False)
        conversation.clock.advance(0)
        assert conversation.transport.disconnected
        conversation.leave()
        assert producer.stopped
        assert len(logged_failures.flush(ValueError)) == 1
        assert conversation.clock.getDelayedCalls() == []

    def test_that_are_left_over_are_dropped_and_told_of(self, logged_failures: Any) -> None:
        class Producer:
            def resumeProducing(self) -> None:
                raise NotImplementedError

            def stopProducing(self) -> None:
                raise NotImplementedError

        conversation, request = one_request()
        request.registerProducer(Producer(), False)
        request.finish()
        conversation.clock.advance(0)
        assert conversation.answer().status == 200
        assert len(logged_failures.flush(RuntimeError)) == 1


class TestWhatTwistedOffers:
    def test_files_are_served(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            # Importing it makes deprecated pages.
            warnings.simplefilter("ignore", DeprecationWarning)
            from twisted.web.static import File

        content = bytes(range(256)) * 1000
        (tmp_path / "file.bin").write_bytes(content)
        conversation = Conversation(resource=File(str(tmp_path)))
        conversation.say(
            get("/file.bin")
            + get("/file.bin", "Range: bytes=1-3")
            + get("/file.bin", method="HEAD")
        )
        conversation.clock.pump([0.0] * 20)
        whole, part, head = conversation.answers("GET", "GET", "HEAD")
        assert whole.body == content
        assert (part.status, part.body) == (206, b"\1\2\3")
        assert head.header("Content-Length") == str(len(content))
        conversation.say(get("/file.bin", f"If-Modified-Since: {whole.header('Last-Modified')}"))
        assert conversation.answers("GET", "GET", "HEAD", "GET")[3].status == 304

    def test_encoders_encode(self) -> None:
        root = EncodingResourceWrapper(Leaf(lambda request: b"hello" * 100), [GzipEncoderFactory()])
        conversation = Conversation(resource=root)
        conversation.say(get("/", "Accept-Encoding: gzip") + get("/"))
        encoded, plain = conversation.answers()
        assert encoded.header("Content-Encoding") == "gzip"
        assert gzip.decompress(encoded.body) == plain.body == b"hello" * 100

    def test_redirects_and_validators(self) -> None:
        conversation, request = one_request('If-None-Match: "a"')
        request.setLastModified(NOW)  # type: ignore[no-untyped-call]
        assert request.setETag(b'"a"')  # type: ignore[no-untyped-call]
        request.finish()
        answer = conversation.answer()
        assert (answer.status, answer.header("ETag")) == (304, '"a"')
        assert answer.header("Last-Modified") == "Tue, 15 Nov 1994 08:12:31 GMT"

    def test_a_resource_must_render_bytes(self, logged_failures: Any) -> None:
        conversation = Conversation(lambda request: {})
        conversation.say(get())
        assert conversation.answer().status == 500
        assert len(logged_failures.flush(TypeError)) == 1

    def test_a_request_can_close_its_connection(self) -> None:
        conversation, request = one_request()
        request.loseConnection()  # type: ignore[no-untyped-call]
        request.respond(200)
        assert conversation.transport.disconnecting
        conversation.leave()


def test_a_log_that_fails_harms_no_answer(logged_failures: Any) -> None:
    def log(request: Request) -> None:
        raise ValueError

    conversation = Conversation(brief)
    conversation.server.state.log = log
    conversation.say(get("/a") + get("/b"))
    assert len(conversation.answers()) == 2
    assert len(logged_failures.flush(ValueError)) == 2


def test_methods_that_a_resource_lacks_are_a_problem() -> None:
    from twisted.web.error import UnsupportedMethod

    def respond(request: Request) -> object:
        raise UnsupportedMethod([b"POST", b"GET"])

    conversation = Conversation(respond)
    conversation.say(get(method="DELETE"))
    answer = conversation.answer()
    assert (answer.status, answer.header("Allow")) == (405, "GET, POST")
    assert answer.body == problem(405, "method_not_allowed", "Allowed here: GET, POST.")
