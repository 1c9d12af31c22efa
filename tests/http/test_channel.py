"""What a channel makes of well-formed requests, and how it answers."""

from __future__ import annotations

from typing import Any

import pytest
from klein import Klein
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocol
from twisted.internet.testing import StringTransport
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from zope.interface.verify import verifyObject

from chatd.http.request import Request
from tests.http.raw_client import Conversation, brief, get, parse, post, post_chunks


class TestARequest:
    def test_reaches_the_resource_and_is_answered(self) -> None:
        conversation = Conversation()
        conversation.say(get("/chats/?page=1"))
        answer = conversation.answer()
        assert answer.status == 200
        assert b'"uri": "/chats/?page=1"' in answer.body
        assert not conversation.ended()

    @pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
    def test_may_come_in_pieces(self, step: int) -> None:
        conversation = Conversation()
        conversation.say(post(b'{"message":"hello"}'), step)
        assert rb"{\"message\":\"hello\"}" in conversation.answer().body

    @pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
    def test_may_have_a_body_in_chunks(self, step: int) -> None:
        conversation = Conversation()
        conversation.say(post_chunks(b"hello", b"\r\n\r\n", b" world") + get("/next"), step)
        first, second = conversation.answers()
        assert b'"body": "hello\\r\\n\\r\\n world"' in first.body
        assert b'"uri": "/next"' in second.body

    def test_loses_its_trailers_and_chunk_extensions(self) -> None:
        conversation = Conversation(lambda request: repr(request.requestHeaders).encode())
        conversation.say(
            get("/", "Transfer-Encoding: chunked", method="POST")
            + b"1;name=value\r\nx\r\n0\r\nX-Trailer: y\r\n\r\n"
        )
        assert b"Trailer" not in conversation.answer().body

    def test_may_follow_empty_lines(self) -> None:
        conversation = Conversation()
        conversation.say(b"\r\n\r\n" + get("/a") + b"\r\n" + get("/b"), 1)
        assert [answer.status for answer in conversation.answers()] == [200, 200]

    def test_may_have_any_method_that_is_registered(self) -> None:
        conversation = Conversation()
        for method in ("DELETE", "PATCH", "PUT", "OPTIONS", "TRACE", "PROPFIND", "QUERY"):
            conversation.say(get(method=method))
        assert [answer.status for answer in conversation.answers()] == [200] * 7

    def test_with_an_absolute_target_is_for_its_path_and_host(self) -> None:
        def respond(request: Any) -> bytes:
            hosts = request.requestHeaders.getRawHeaders(b"Host")
            return b"%b %b %r" % (request.uri, request.getRequestHostname(), hosts)

        conversation = Conversation(respond)
        conversation.say(get("http://other.example:81/a?b", "X: y"))
        assert conversation.answer().body == b"/a?b other.example [b'other.example:81']"

    def test_with_an_absolute_target_without_path_is_for_the_root(self) -> None:
        conversation = Conversation(lambda request: request.uri)
        conversation.say(get("http://other.example") + get("HTTPS://other.example?q"))
        assert [answer.body for answer in conversation.answers()] == [b"/", b"/?q"]

    def test_for_the_server_itself_is_answered_as_twisted_does(self) -> None:
        conversation = Conversation()
        conversation.say(get("*", method="OPTIONS"))
        answer = conversation.answer()
        assert answer.status == 200
        assert answer.header("Content-Length") == "0"

    def test_for_another_protocol_is_served_as_http_and_is_the_last(self) -> None:
        conversation = Conversation()
        upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
        conversation.say(post(b"body", *upgrade) + get("/not-a-request"))
        answer = conversation.answer()
        assert b'"body": "body"' in answer.body
        assert answer.header("Connection") == "close"
        assert conversation.ended()


class TestTheRequestThatResourcesSee:
    def ask(self, data: bytes) -> Any:
        seen: list[Request] = []

        def respond(request: Request) -> object:
            seen.append(request)
            return brief(request)

        Conversation(respond).say(data)
        return seen[0]

    def test_is_a_request_of_twisted_web(self) -> None:
        assert verifyObject(IRequest, self.ask(get()))

    def test_has_method_target_and_version(self) -> None:
        request = self.ask(get("/a%20b/c?d=e&d=f&g=", method="PUT"))
        assert request.method == b"PUT"
        assert request.uri == b"/a%20b/c?d=e&d=f&g="
        assert request.path == b"/a%20b/c"
        assert request.query == b"d=e&d=f&g="
        assert request.args == {b"d": [b"e", b"f"], b"g": [b""]}
        assert request.clientproto == b"HTTP/1.1"
        assert request.prepath == []
        assert request.postpath == [b"a b", b"c"]

    def test_has_a_body_to_read_more_than_once(self) -> None:
        request = self.ask(post(b"abc"))
        assert request.body == b"abc"
        assert request.content.read() == b"abc"
        request.content.seek(0)
        assert request.content.read() == b"abc"

    def test_does_not_parse_forms(self) -> None:
        request = self.ask(post(b"a=b", "Content-Type: application/x-www-form-urlencoded"))
        assert request.args == {}

    def test_has_headers_whatever_their_case(self) -> None:
        request = self.ask(get("/", "ACCEPT:a", "accept: \t b ", "X-Empty:", "Cookie: k=v; l=w"))
        assert request.getHeader(b"Accept") == b"b"
        assert request.getHeader("aCCept") == "b"
        assert request.getHeader(b"x-empty") == b""
        assert request.getHeader(b"Absent") is None
        assert request.getHeader(b"mpty") is None
        assert request.requestHeaders.getRawHeaders(b"accept") == [b"a", b"b"]
        assert request.getHeader(b"Accept") == b"b"
        assert request.getAllHeaders()[b"x-empty"] == b""
        assert request.getCookie(b"l") == b"w"

    def test_keeps_what_is_set_on_it(self) -> None:
        request = self.ask(get("/a?b=c"))
        request.args = {}
        request.prepath, request.postpath = [b"a"], []
        request.requestHeaders.setRawHeaders(b"Host", [b"proxy.example"])
        assert (request.args, request.prepath, request.postpath) == ({}, [b"a"], [])
        assert request.getHeader(b"host") == b"proxy.example"

    def test_knows_both_ends_of_its_connection(self) -> None:
        client = IPv4Address("TCP", "192.0.2.1", 1)
        host = IPv4Address("TCP", "192.0.2.2", 2)
        ends: list[object] = []

        def respond(request: Request) -> bytes:
            ends.extend([request.getClientAddress(), request.getHost(), request.isSecure()])
            assert request.transport is transport
            assert request.channel is conversation.channel
            assert request.site is conversation.server.state.site
            return b""

        transport = StringTransport(host, client)
        conversation = Conversation(respond, transport=transport)
        conversation.say(get())
        assert ends == [client, host, False]


class TestAConnection:
    def test_is_a_protocol(self) -> None:
        assert verifyObject(IProtocol, Conversation().channel)

    def test_stays_open_for_the_next_request(self) -> None:
        conversation = Conversation()
        conversation.say(get("/a"))
        conversation.say(get("/b"))
        assert len(conversation.answers()) == 2
        assert not conversation.ended()

    @pytest.mark.parametrize(
        "headers",
        [
            ("Connection: close",),
            ("Connection: Close",),
            ("Connection: keep-alive, close",),
            ("Connection: close", "Connection: keep-alive"),
            ("Connection:x ,\tclose",),
        ],
    )
    def test_ends_when_the_client_says_so(self, headers: tuple[str, ...]) -> None:
        conversation = Conversation()
        conversation.say(get("/a", *headers) + get("/b"))
        answer = conversation.answer()
        assert b'"/a"' in answer.body
        assert answer.header("Connection") == "close"
        assert conversation.ended()

    def test_of_http_1_0_ends_after_one_answer(self) -> None:
        conversation = Conversation()
        conversation.say(get("/a", version="1.0") + get("/b", version="1.0"))
        answer = conversation.answer()
        assert answer.version == 10
        assert answer.header("Connection") == "close"
        assert conversation.ended()

    def test_of_http_1_0_stays_open_if_asked(self) -> None:
        conversation = Conversation()
        conversation.say(get("/a", "Connection: Keep-Alive", version="1.0") * 2)
        assert [answer.header("Connection") for answer in conversation.answers()] == [
            "keep-alive",
            "keep-alive",
        ]
        assert not conversation.ended()

    def test_of_http_1_0_needs_no_host(self) -> None:
        conversation = Conversation()
        conversation.say(b"GET / HTTP/1.0\r\n\r\n")
        assert conversation.answer().status == 200

    def test_closes_politely_if_there_was_more_to_read(self) -> None:
        conversation = Conversation()
        conversation.say(get("/", "Connection: close") + b"more")
        assert not conversation.transport.disconnecting
        assert conversation.ended()


class TestExpect:
    def test_is_answered_before_the_body_comes(self) -> None:
        conversation = Conversation()
        data = post(b"hello", "Expect: 100-Continue")
        conversation.say(data[:-5])
        assert conversation.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
        conversation.say(data[-5:])
        assert b"hello" in conversation.answer().body

    def test_is_answered_for_chunks(self) -> None:
        conversation = Conversation()
        conversation.say(
            get("/", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST")
        )
        assert conversation.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"

    def test_is_not_answered_without_a_body(self) -> None:
        conversation = Conversation()
        conversation.say(get("/", "Expect: 100-continue"))
        assert conversation.transport.value().startswith(b"HTTP/1.1 200")

    def test_means_nothing_in_http_1_0(self) -> None:
        conversation = Conversation()
        head = get("/", "Expect: 100-continue", "Content-Length: 1", version="1.0", method="POST")
        conversation.say(head)
        assert conversation.transport.value() == b""
        conversation.say(b"x")
        assert conversation.answer().status == 200

    def test_is_refused_for_a_body_that_is_too_large(self) -> None:
        conversation = Conversation(body_bytes=10)
        head = get("/", "Content-Length: 11", "Expect: 100-continue", method="POST")
        conversation.say(head)
        assert conversation.answer().code == "body_too_large"
        assert conversation.ended()

    def test_of_anything_else_is_refused(self) -> None:
        conversation = Conversation()
        conversation.say(get("/", "Expect: magic", method="POST"))
        assert conversation.answer().status == 417
        assert conversation.answer().code == "expectation_failed"

    def test_is_answered_after_the_request_before_it(self) -> None:
        conversation = Conversation()
        conversation.say(get("/a"))
        conversation.say(get("/b", "Content-Length: 1", "Expect: 100-continue", method="POST"))
        assert conversation.transport.value().endswith(b"HTTP/1.1 100 Continue\r\n\r\n")


class TestResources:
    def test_are_found_in_a_tree(self) -> None:
        class Page(Resource):
            def render_GET(self, request: Request) -> bytes:
                return b"page " + b"/".join(request.prepath)

        root = Resource()
        branch = Resource()
        page = Page()  # type: ignore[no-untyped-call]
        root.putChild(b"a", branch)
        branch.putChild(b"b", page)
        conversation = Conversation(resource=root)
        conversation.say(get("/a/b") + get("/a/b", method="HEAD"))
        found, head = conversation.answers("GET", "HEAD")
        assert (found.status, found.body) == (200, b"page a/b")
        assert head.header("Content-Length") == "8"

    def test_say_which_methods_they_allow(self) -> None:
        class Page(Resource):
            isLeaf = True

            def render_GET(self, request: Request) -> bytes:
                raise NotImplementedError

        conversation = Conversation(resource=Page())  # type: ignore[no-untyped-call]
        conversation.say(get(method="POST"))
        answer = conversation.answer()
        assert answer.status == 405
        assert answer.header("Allow") == "GET, HEAD"

    def test_may_be_klein_applications(self) -> None:
        app = Klein()

        @app.route("/greet/<name>", methods=["GET", "HEAD"])
        async def greet(request: Request, name: str) -> str:
            request.setHeader(b"Content-Type", b"text/plain")
            return f"hello {name} {request.args[b'n'][0].decode()}"

        @app.route("/take", methods=["POST"])
        def take(request: Request) -> bytes:
            return request.content.read()

        conversation = Conversation(resource=app.resource())
        conversation.say(get("/greet/ann?n=1") + post(b"abc", target="/take") + get("/none"))
        conversation.say(get("/greet/bob?n=2", method="HEAD"))
        greeted, taken, none, head = conversation.answers("GET", "POST", "GET", "HEAD")
        assert greeted.body == b"hello ann 1"
        assert taken.body == b"abc"
        assert none.status == 404
        assert (head.status, head.body) == (200, b"")

    def test_that_are_klein_applications_are_told_of_clients_that_leave(self) -> None:
        from twisted.internet.defer import CancelledError, Deferred

        app = Klein()
        ended: list[BaseException] = []

        @app.route("/poll")
        async def poll(request: Request) -> bytes:
            try:
                await Deferred()
            except CancelledError as error:
                ended.append(error)
                raise
            raise NotImplementedError

        conversation = Conversation(resource=app.resource())
        conversation.say(get("/poll"))
        conversation.leave()
        assert len(ended) == 1


def test_date_is_made_once_a_second() -> None:
    conversation = Conversation(brief)
    conversation.say(get())
    conversation.clock.advance(0.9)
    conversation.say(get())
    conversation.clock.advance(0.1)
    conversation.say(get())
    dates = [answer.header("Date") for answer in parse(conversation.transport.value())]
    assert dates == [
        "Tue, 15 Nov 1994 08:12:31 GMT",
        "Tue, 15 Nov 1994 08:12:31 GMT",
        "Tue, 15 Nov 1994 08:12:32 GMT",
    ]
