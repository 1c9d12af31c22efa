"""Responses: whole or in pieces, their headers and reason phrases, and producers."""

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
    HalfClosing,
    Held,
    Leaf,
    RawClient,
    brief,
    get,
    problem,
)


def one_request(
    *headers: str, version: str = "1.1", method: str = "GET"
) -> tuple[RawClient, Request]:
    """A client and its request, which waits for a response."""
    held = Held()
    client = RawClient(held)
    client.send(get("/", *headers, version=version, method=method))
    [request] = held.requests
    return client, request


class TestRespond:
    def test_response_is_written_at_once(self) -> None:
        writes: list[bytes] = []

        class Counting(HalfClosing):
            def write(self, data: bytes) -> None:
                writes.append(data)

        def respond(request: Request) -> object:
            request.respond(201, header_block((b"X-A", b"b")), b"{}")
            return NOT_DONE_YET

        transport = Counting()  # type: ignore[no-untyped-call]
        client = RawClient(respond, transport=transport)
        client.send(get())
        assert writes == [
            b"HTTP/1.1 201 Created\r\n"
            b"Server: chatd\r\n"
            b"Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"
            b"X-Content-Type-Options: nosniff\r\n"
            b"X-A: b\r\n"
            b"Content-Length: 2\r\n"
            b"\r\n"
            b"{}"
        ]

    def test_headers_set_before_are_sent(self) -> None:
        client, request = one_request()
        request.setHeader(b"x-request-id", b"1")
        request.setHeader("Content-Length", "9999")
        request.setHeader("Transfer-Encoding", "chunked")
        request.addCookie(b"k", b"v")  # type: ignore[no-untyped-call]
        request.respond(200, header_block((b"X-A", b"b")), b"body")
        response = client.response()
        assert response.header("X-Request-Id") == "1"
        assert response.header("X-A") == "b"
        assert response.header("Set-Cookie") == "k=v"
        assert response.header("Content-Length") == "4"
        assert response.header("Transfer-Encoding") is None
        assert response.header("Date") == "Tue, 15 Nov 1994 08:12:31 GMT"
        assert response.body == b"body"

    def test_response_to_head_has_no_body(self) -> None:
        client, request = one_request(method="HEAD")
        request.respond(200, b"", b"body")
        assert client.response("HEAD").header("Content-Length") == "4"
        assert client.transport.value().endswith(b"\r\n\r\n")

    @pytest.mark.parametrize("status", [204, 304])
    def test_no_content_has_neither_body_nor_length(self, status: int) -> None:
        client, request = one_request()
        request.respond(status, b"", b"body")
        assert client.response().header("Content-Length") is None
        assert client.transport.value().endswith(b"\r\n\r\n")

    def test_connection_close_closes_the_connection(self) -> None:
        client, request = one_request()
        request.setHeader(b"Connection", b"close")
        request.respond(200)
        assert client.response().header("Connection") == "close"
        assert client.closed()

    def test_second_response_raises(self) -> None:
        client, request = one_request()
        request.respond(200, b"", b"a")
        with pytest.raises(RuntimeError, match="was answered"):
            request.respond(200, b"", b"b")
        with pytest.raises(RuntimeError, match=r"after Request\.finish"):
            request.write(b"b")
        assert client.response().body == b"a"

    def test_respond_after_write_raises(self) -> None:
        client, request = one_request()
        request.write(b"a")
        with pytest.raises(RuntimeError, match="was answered"):
            request.respond(200, b"", b"b")
        request.finish()
        assert client.response().body == b"a"

    def test_request_is_logged(self) -> None:
        client, request = one_request()
        request.respond(404, b"", b"none")
        assert client.logged == [request]
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
    def test_of_respond(self, status: int, phrase: str) -> None:
        client, request = one_request()
        request.respond(status)
        assert (client.response().status, client.response().reason) == (status, phrase)

    def test_of_write(self, status: int, phrase: str) -> None:
        client, request = one_request()
        request.setResponseCode(status)
        request.finish()
        assert (client.response().status, client.response().reason) == (status, phrase)

    def test_of_klein(self, status: int, phrase: str) -> None:
        app = Klein()

        @app.route("/")
        def root(request: object) -> Any:
            return Response(status, {}, b"")

        client = RawClient(resource=app.resource())
        client.send(get())
        assert (client.response().status, client.response().reason) == (status, phrase)


def test_a_reason_phrase_can_be_set() -> None:
    client, request = one_request()
    request.setResponseCode(429, b"Slow Down")
    request.finish()
    assert client.response().reason == "Slow Down"


class TestWrite:
    def test_chunked(self) -> None:
        client, request = one_request()
        for piece in (b"one ", b"", b"two"):
            request.write(piece)
        request.finish()
        response = client.response()
        assert response.header("Transfer-Encoding") == "chunked"
        assert response.body == b"one two"
        assert request.sentLength == 7
        assert not client.closed()

    def test_http_1_0_without_length_closes_the_connection(self) -> None:
        client, request = one_request("Connection: keep-alive", version="1.0")
        request.write(b"one")
        request.finish()
        response = client.response()
        assert response.header("Transfer-Encoding") is None
        assert response.header("Connection") == "close"
        assert response.body == b"one"
        assert client.closed()

    def test_content_length(self) -> None:
        client, request = one_request("Connection: keep-alive", version="1.0")
        request.setHeader(b"content-length", b"3")
        request.write(b"one")
        request.finish()
        assert client.response().body == b"one"
        assert not client.closed()

    def test_excess_is_dropped_and_closes_the_connection(self, logged_failures: Any) -> None:
        client, request = one_request()
        request.setHeader(b"Content-Length", b"3")
        request.write(b"one two")
        request.finish()
        assert client.response().body == b"one"
        assert client.closed()
        assert len(logged_failures.flush_messages()) <= 1

    def test_missing_bytes_close_the_connection(self, logged_failures: Any) -> None:
        client, request = one_request()
        request.setHeader(b"Content-Length", b"3")
        request.write(b"o")
        request.finish()
        assert client.transport.value().endswith(b"\r\n\r\no")
        assert client.closed()
        assert len(logged_failures.flush_messages()) <= 1

    @pytest.mark.parametrize("headers", [(), (("Content-Length", "3"),)])
    def test_response_to_head_is_only_the_head(self, headers: tuple[tuple[str, str], ...]) -> None:
        client, request = one_request(method="HEAD")
        for name, value in headers:
            request.setHeader(name, value)
        request.write(b"one")
        request.finish()
        assert client.transport.value().endswith(b"\r\n\r\n")
        assert client.response("HEAD").status == 200
        assert request.sentLength == 0
        assert not client.closed()

    @pytest.mark.parametrize("status", [204, 304])
    def test_no_content_is_only_the_head(self, status: int) -> None:
        client, request = one_request()
        request.setResponseCode(status)
        request.setHeader(b"Content-Length", b"3")
        request.write(b"one")
        request.finish()
        assert client.response().header("Content-Length") is None
        assert client.transport.value().endswith(b"\r\n\r\n")
        assert not client.closed()

    def test_empty_body(self) -> None:
        client, request = one_request()
        request.finish()
        assert client.response().body == b""

    def test_body_must_be_bytes(self) -> None:
        client, request = one_request()
        with pytest.raises(TypeError):
            request.write("text")  # type: ignore[arg-type]
        request.finish()
        assert client.response().status == 200

    def test_error_after_the_head_aborts_the_connection(self, logged_failures: Any) -> None:
        def respond(request: Request) -> object:
            request.write(b"begun")
            raise ValueError

        client = RawClient(respond)
        client.send(get())
        assert client.transport.disconnected
        assert b"500" not in client.transport.value()
        assert len(logged_failures.flush(ValueError)) == 1

    def test_error_after_the_response_is_logged(self, logged_failures: Any) -> None:
        def respond(request: Request) -> object:
            brief(request)
            raise ValueError

        client = RawClient(respond)
        client.send(get("/a") + get("/b"))
        assert [response.body for response in client.responses()] == [b"/a", b"/b"]
        assert len(logged_failures.flush(ValueError)) == 2

    def test_second_finish_warns(self) -> None:
        client, request = one_request()
        request.finish()
        with pytest.warns(UserWarning, match="finish called twice"):
            request.finish()
        assert client.response().status == 200


class TestHeaders:
    def test_standard_headers(self) -> None:
        client = RawClient(lambda request: b"x")
        client.send(get())
        assert sorted(name for name, _ in client.response().headers) == [
            "Content-Length",
            "Content-Type",
            "Date",
            "Server",
            "X-Content-Type-Options",
        ]
        assert client.response().header("X-Content-Type-Options") == "nosniff"

    def test_headers_can_be_changed_before_they_are_sent(self) -> None:
        client, request = one_request()
        request.setHeader(b"etag", b"x")
        assert request.responseHeaders.getRawHeaders(b"ETag") == [b"x"]
        request.responseHeaders.addRawHeader(b"ETag", b"y")
        request.responseHeaders.removeHeader(b"Date")
        request.responseHeaders.setRawHeaders(b"Server", [b"other"])
        request.setHeader(b"X", b"z")
        request.finish()
        response = client.response()
        assert [value for name, value in response.headers if name == "ETag"] == ["x", "y"]
        assert response.header("Date") is None
        assert response.header("Server") == "other"
        assert response.header("X") == "z"

    def test_standard_headers_can_be_set(self) -> None:
        client, request = one_request()
        request.setHeader(b"Server", b"other")
        request.finish()
        assert client.response().header("Server") == "other"
        assert client.response().header("Date") is not None

    def test_headers_can_be_replaced(self) -> None:
        client, request = one_request()
        request.responseHeaders.setRawHeaders(b"X", [b"1"])
        request.responseHeaders = type(request.responseHeaders)()
        request.finish()
        assert client.response().header("X") is None

    @pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
    @pytest.mark.parametrize("whole", [True, False])
    def test_line_breaks_become_spaces(self, end: str, whole: bool) -> None:
        client, request = one_request()
        value = f"a{end}Set-Cookie: b"
        request.setHeader("X-A", value)
        request.setHeader(b"X-B", value.encode())
        request.setResponseCode(200, f"OK{end}X-C: c".encode())
        if whole:
            request.respond(200)
        else:
            request.finish()
        response = client.response()
        assert response.header("X-A") == response.header("X-B") == "a Set-Cookie: b"
        assert response.header("Set-Cookie") is None
        assert response.header("X-C") is None

    @pytest.mark.parametrize("name", [b"a b", b"a:b", b"a\r\nb", b""])
    def test_names_must_be_tokens(self, name: bytes) -> None:
        _, request = one_request()
        with pytest.raises(InvalidHeaderName):
            request.setHeader(name, b"")
        with pytest.raises(InvalidHeaderName):
            header_block((name, b""))

    @pytest.mark.parametrize("value", [b"a\rb", b"a\nb", b"a\0b"])
    def test_header_block_rejects_line_breaks(self, value: bytes) -> None:
        with pytest.raises(ValueError, match="is no header value"):
            header_block((b"X", value))

    def test_header_block_has_canonical_names(self) -> None:
        block = header_block((b"content-type", b"a"), (b"ETAG", b"b"))
        assert block == b"Content-Type: a\r\nETag: b\r\n"
        assert canonical("www-authenticate") == b"WWW-Authenticate"
        assert one_line(b"a\r\nb\rc\nd") == b"a b c d"

    @pytest.mark.parametrize("jump", [-3600, 1, 86400])
    def test_the_date_follows_the_wall_clock(self, jump: int) -> None:
        client = RawClient()
        wall = NOW + 0.75
        standard = StandardHeaders(client.clock, lambda: wall)
        first = standard.block()
        wall += jump
        client.clock.advance(0.2)
        assert standard.block() is first
        # A second of the wall clock ends here.
        client.clock.advance(0.05)
        assert standard.block() != first


class TestProducers:
    def test_push_producer_is_paused_while_the_buffer_is_full(self) -> None:
        calls: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                calls.append("pause")

            def resumeProducing(self) -> None:
                calls.append("resume")

            def stopProducing(self) -> None:
                calls.append("stop")

        client, request = one_request()
        request.registerProducer(Producer(), True)
        client.channel.pauseProducing()
        client.channel.resumeProducing()
        request.unregisterProducer()
        client.channel.pauseProducing()
        request.registerProducer(Producer(), True)
        with pytest.raises(ValueError, match="before previous one"):
            request.registerProducer(Producer(), True)
        request.unregisterProducer()
        request.finish()
        assert calls == ["pause", "resume", "pause"]

    def test_pull_producer_is_asked_once_an_iteration(self) -> None:
        class Producer:
            left = 3

            def resumeProducing(self) -> None:
                request.write(b"x")
                self.left -= 1
                if self.left == 2:
                    client.channel.pauseProducing()
                if not self.left:
                    request.unregisterProducer()
                    request.finish()

            def stopProducing(self) -> None:
                raise NotImplementedError

        client, request = one_request()
        request.registerProducer(Producer(), False)
        client.clock.pump([0.0] * 3)
        assert request.sentLength == 1
        client.channel.resumeProducing()
        client.clock.pump([0.0] * 3)
        assert client.response().body == b"xxx"
        client.disconnect()
        assert client.clock.getDelayedCalls() == []

    def test_error_in_a_pull_producer_aborts_the_connection(self, logged_failures: Any) -> None:
        class Producer:
            stopped = False

            def resumeProducing(self) -> None:
                raise ValueError

            def stopProducing(self) -> None:
                self.stopped = True

        client, request = one_request()
        producer = Producer()
        request.registerProducer(producer, False)
        client.clock.advance(0)
        assert client.transport.disconnected
        client.disconnect()
        assert producer.stopped
        assert len(logged_failures.flush(ValueError)) == 1
        assert client.clock.getDelayedCalls() == []

    def test_producer_left_registered_is_logged(self, logged_failures: Any) -> None:
        class Producer:
            def resumeProducing(self) -> None:
                raise NotImplementedError

            def stopProducing(self) -> None:
                raise NotImplementedError

        client, request = one_request()
        request.registerProducer(Producer(), False)
        request.finish()
        client.clock.advance(0)
        assert client.response().status == 200
        assert len(logged_failures.flush(RuntimeError)) == 1


class TestTwistedFeatures:
    def test_static_file(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            # Importing it makes deprecated pages.
            warnings.simplefilter("ignore", DeprecationWarning)
            from twisted.web.static import File

        content = bytes(range(256)) * 1000
        (tmp_path / "file.bin").write_bytes(content)
        client = RawClient(resource=File(str(tmp_path)))
        client.send(
            get("/file.bin")
            + get("/file.bin", "Range: bytes=1-3")
            + get("/file.bin", method="HEAD")
        )
        client.clock.pump([0.0] * 20)
        whole, part, head = client.responses("GET", "GET", "HEAD")
        assert whole.body == content
        assert (part.status, part.body) == (206, b"\1\2\3")
        assert head.header("Content-Length") == str(len(content))
        client.send(get("/file.bin", f"If-Modified-Since: {whole.header('Last-Modified')}"))
        assert client.responses("GET", "GET", "HEAD", "GET")[3].status == 304

    def test_gzip_encoder(self) -> None:
        root = EncodingResourceWrapper(Leaf(lambda request: b"hello" * 100), [GzipEncoderFactory()])
        client = RawClient(resource=root)
        client.send(get("/", "Accept-Encoding: gzip") + get("/"))
        encoded, plain = client.responses()
        assert encoded.header("Content-Encoding") == "gzip"
        assert gzip.decompress(encoded.body) == plain.body == b"hello" * 100

    def test_validators(self) -> None:
        client, request = one_request('If-None-Match: "a"')
        request.setLastModified(NOW)  # type: ignore[no-untyped-call]
        assert request.setETag(b'"a"')  # type: ignore[no-untyped-call]
        request.finish()
        response = client.response()
        assert (response.status, response.header("ETag")) == (304, '"a"')
        assert response.header("Last-Modified") == "Tue, 15 Nov 1994 08:12:31 GMT"

    def test_resource_must_render_bytes(self, logged_failures: Any) -> None:
        client = RawClient(lambda request: {})
        client.send(get())
        assert client.response().status == 500
        assert len(logged_failures.flush(TypeError)) == 1

    def test_lose_connection(self) -> None:
        client, request = one_request()
        request.loseConnection()  # type: ignore[no-untyped-call]
        request.respond(200)
        assert client.transport.disconnecting
        client.disconnect()


def test_error_in_the_log_function_is_logged(logged_failures: Any) -> None:
    def log(request: Request) -> None:
        raise ValueError

    client = RawClient(brief)
    client.server.state.log = log
    client.send(get("/a") + get("/b"))
    assert len(client.responses()) == 2
    assert len(logged_failures.flush(ValueError)) == 2


def test_unsupported_method_gets_405_with_a_problem_document() -> None:
    from twisted.web.error import UnsupportedMethod

    def respond(request: Request) -> object:
        raise UnsupportedMethod([b"POST", b"GET"])

    client = RawClient(respond)
    client.send(get(method="DELETE"))
    response = client.response()
    assert (response.status, response.header("Allow")) == (405, "GET, POST")
    assert response.body == problem(405, "method_not_allowed", "Allowed here: GET, POST.")
