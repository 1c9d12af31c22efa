"""Valid requests on a connection: parsing, keep-alive, Expect, and the resources they reach."""

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
from chatd.http.request_headers import MAX_OPTIONS
from tests.http.raw_client import Held, RawClient, brief, get, parse, post, post_chunks


class TestParsing:
    def test_request_reaches_the_resource(self) -> None:
        client = RawClient()
        client.send(get("/chats/?page=1"))
        response = client.response()
        assert response.status == 200
        assert b'"uri": "/chats/?page=1"' in response.body
        assert not client.closed()

    @pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
    def test_request_in_pieces(self, step: int) -> None:
        client = RawClient()
        client.send(post(b'{"message":"hello"}'), step)
        assert rb"{\"message\":\"hello\"}" in client.response().body

    @pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
    def test_chunked_body(self, step: int) -> None:
        client = RawClient()
        client.send(post_chunks(b"hello", b"\r\n\r\n", b" world") + get("/next"), step)
        first, second = client.responses()
        assert b'"body": "hello\\r\\n\\r\\n world"' in first.body
        assert b'"uri": "/next"' in second.body

    def test_trailers_and_chunk_extensions_are_dropped(self) -> None:
        client = RawClient(lambda request: repr(request.requestHeaders).encode())
        client.send(
            get("/", "Transfer-Encoding: chunked", method="POST")
            + b"1;name=value\r\nx\r\n0\r\nX-Trailer: y\r\n\r\n"
        )
        assert b"Trailer" not in client.response().body

    def test_empty_lines_before_a_request_are_skipped(self) -> None:
        client = RawClient()
        client.send(b"\r\n\r\n" + get("/a") + b"\r\n" + get("/b"), 1)
        assert [response.status for response in client.responses()] == [200, 200]

    def test_registered_methods(self) -> None:
        client = RawClient()
        for method in ("DELETE", "PATCH", "PUT", "OPTIONS", "TRACE", "PROPFIND", "QUERY"):
            client.send(get(method=method))
        assert [response.status for response in client.responses()] == [200] * 7

    def test_absolute_target_gives_path_and_host(self) -> None:
        def respond(request: Any) -> bytes:
            hosts = request.requestHeaders.getRawHeaders(b"Host")
            return b"%b %b %r" % (request.uri, request.getRequestHostname(), hosts)

        client = RawClient(respond)
        client.send(get("http://other.example:81/a?b", "X: y"))
        assert client.response().body == b"/a?b other.example [b'other.example:81']"

    def test_absolute_target_without_a_path_is_the_root(self) -> None:
        client = RawClient(lambda request: request.uri)
        client.send(get("http://other.example") + get("HTTPS://other.example?q"))
        assert [response.body for response in client.responses()] == [b"/", b"/?q"]

    def test_options_asterisk(self) -> None:
        client = RawClient()
        client.send(get("*", method="OPTIONS"))
        response = client.response()
        assert response.status == 200
        assert response.header("Content-Length") == "0"

    def test_upgrade_is_ignored_and_closes_the_connection(self) -> None:
        client = RawClient()
        upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
        client.send(post(b"body", *upgrade) + get("/not-a-request"))
        response = client.response()
        assert b'"body": "body"' in response.body
        assert response.header("Connection") == "close"
        assert client.closed()


class TestRequestAttributes:
    def request(self, data: bytes) -> Any:
        seen: list[Request] = []

        def respond(request: Request) -> object:
            seen.append(request)
            return brief(request)

        RawClient(respond).send(data)
        return seen[0]

    def test_provides_irequest(self) -> None:
        assert verifyObject(IRequest, self.request(get()))

    def test_method_target_and_version(self) -> None:
        request = self.request(get("/a%20b/c?d=e&d=f&g=", method="PUT"))
        assert request.method == b"PUT"
        assert request.uri == b"/a%20b/c?d=e&d=f&g="
        assert request.path == b"/a%20b/c"
        assert request.query == b"d=e&d=f&g="
        assert request.args == {b"d": [b"e", b"f"], b"g": [b""]}
        assert request.clientproto == b"HTTP/1.1"
        assert request.prepath == []
        assert request.postpath == [b"a b", b"c"]

    def test_body_can_be_read_more_than_once(self) -> None:
        request = self.request(post(b"abc"))
        assert request.body == b"abc"
        assert request.content.read() == b"abc"
        request.content.seek(0)
        assert request.content.read() == b"abc"

    def test_forms_are_not_parsed(self) -> None:
        request = self.request(post(b"a=b", "Content-Type: application/x-www-form-urlencoded"))
        assert request.args == {}

    def test_header_names_are_case_insensitive(self) -> None:
        request = self.request(
            get("/", "ACCEPT:a", "accept: \t b ", "X-Empty:", "Cookie: k=v; l=w")
        )
        assert request.getHeader(b"Accept") == b"b"
        assert request.getHeader("aCCept") == "b"
        assert request.getHeader(b"x-empty") == b""
        assert request.getHeader(b"Absent") is None
        assert request.getHeader(b"mpty") is None
        assert request.requestHeaders.getRawHeaders(b"accept") == [b"a", b"b"]
        assert request.getHeader(b"Accept") == b"b"
        assert request.getAllHeaders()[b"x-empty"] == b""
        assert request.getCookie(b"l") == b"w"

    def test_attributes_can_be_set(self) -> None:
        request = self.request(get("/a?b=c"))
        request.args = {}
        request.prepath, request.postpath = [b"a"], []
        request.requestHeaders.setRawHeaders(b"Host", [b"proxy.example"])
        assert (request.args, request.prepath, request.postpath) == ({}, [b"a"], [])
        assert request.getHeader(b"host") == b"proxy.example"

    def test_addresses_and_connection(self) -> None:
        peer = IPv4Address("TCP", "192.0.2.1", 1)
        host = IPv4Address("TCP", "192.0.2.2", 2)
        ends: list[object] = []

        def respond(request: Request) -> bytes:
            ends.extend([request.getClientAddress(), request.getHost(), request.isSecure()])
            assert request.transport is transport
            assert request.channel is client.channel
            assert request.site is client.server.state.site
            return b""

        transport = StringTransport(host, peer)
        client = RawClient(respond, transport=transport)
        client.send(get())
        assert ends == [peer, host, False]


class TestKeepAlive:
    def test_channel_provides_iprotocol(self) -> None:
        assert verifyObject(IProtocol, RawClient().channel)

    def test_connection_stays_open(self) -> None:
        client = RawClient()
        client.send(get("/a"))
        client.send(get("/b"))
        assert len(client.responses()) == 2
        assert not client.closed()

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
    def test_connection_close(self, headers: tuple[str, ...]) -> None:
        client = RawClient()
        client.send(get("/a", *headers) + get("/b"))
        response = client.response()
        assert b'"/a"' in response.body
        assert response.header("Connection") == "close"
        assert client.closed()

    def test_a_connection_header_has_few_options(self) -> None:
        client = RawClient()
        client.send(get("/a", "Connection: " + "a," * (MAX_OPTIONS - 1) + "close"))
        assert client.response().header("Connection") == "close"
        client = RawClient()
        client.send(get("/a", "Connection: " + "," * MAX_OPTIONS))
        assert client.response().status == 400

    def test_http_1_0_closes_by_default(self) -> None:
        client = RawClient()
        client.send(get("/a", version="1.0") + get("/b", version="1.0"))
        response = client.response()
        assert response.version == 10
        assert response.header("Connection") == "close"
        assert client.closed()

    def test_http_1_0_keep_alive(self) -> None:
        client = RawClient()
        client.send(get("/a", "Connection: Keep-Alive", version="1.0") * 2)
        assert [response.header("Connection") for response in client.responses()] == [
            "keep-alive",
            "keep-alive",
        ]
        assert not client.closed()

    def test_http_1_0_needs_no_host(self) -> None:
        client = RawClient()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.response().status == 200

    def test_connection_lingers_if_there_is_unread_input(self) -> None:
        client = RawClient()
        client.send(get("/", "Connection: close") + b"more")
        assert not client.transport.disconnecting
        assert client.closed()


class TestExpect:
    def test_continue_is_sent_before_the_body_arrives(self) -> None:
        client = RawClient()
        data = post(b"hello", "Expect: 100-Continue")
        client.send(data[:-5])
        assert client.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(data[-5:])
        assert b"hello" in client.response().body

    def test_continue_is_sent_for_a_chunked_body(self) -> None:
        client = RawClient()
        client.send(get("/", "Transfer-Encoding: chunked", "Expect: 100-continue", method="POST"))
        assert client.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"

    def test_no_continue_without_a_body(self) -> None:
        client = RawClient()
        client.send(get("/", "Expect: 100-continue"))
        assert client.transport.value().startswith(b"HTTP/1.1 200")

    def test_expect_is_ignored_in_http_1_0(self) -> None:
        client = RawClient()
        head = get("/", "Expect: 100-continue", "Content-Length: 1", version="1.0", method="POST")
        client.send(head)
        assert client.transport.value() == b""
        client.send(b"x")
        assert client.response().status == 200

    def test_no_continue_for_a_body_that_is_too_large(self) -> None:
        client = RawClient(body_bytes=10)
        head = get("/", "Content-Length: 11", "Expect: 100-continue", method="POST")
        client.send(head)
        assert client.response().code == "body_too_large"
        assert client.closed()

    def test_other_expectations_get_417(self) -> None:
        client = RawClient()
        client.send(get("/", "Expect: magic", method="POST"))
        assert client.response().status == 417
        assert client.response().code == "expectation_failed"

    def test_continue_is_sent_after_the_previous_response(self) -> None:
        client = RawClient()
        client.send(get("/a"))
        client.send(get("/b", "Content-Length: 1", "Expect: 100-continue", method="POST"))
        assert client.transport.value().endswith(b"HTTP/1.1 100 Continue\r\n\r\n")


class TestResources:
    def test_resource_tree(self) -> None:
        class Page(Resource):
            def render_GET(self, request: Request) -> bytes:
                return b"page " + b"/".join(request.prepath)

        root = Resource()
        branch = Resource()
        page = Page()  # type: ignore[no-untyped-call]
        root.putChild(b"a", branch)
        branch.putChild(b"b", page)
        client = RawClient(resource=root)
        client.send(get("/a/b") + get("/a/b", method="HEAD"))
        found, head = client.responses("GET", "HEAD")
        assert (found.status, found.body) == (200, b"page a/b")
        assert head.header("Content-Length") == "8"

    def test_unsupported_method_names_the_allowed_ones(self) -> None:
        class Page(Resource):
            isLeaf = True

            def render_GET(self, request: Request) -> bytes:
                raise NotImplementedError

        client = RawClient(resource=Page())  # type: ignore[no-untyped-call]
        client.send(get(method="POST"))
        response = client.response()
        assert response.status == 405
        assert response.header("Allow") == "GET, HEAD"

    def test_klein_application(self) -> None:
        app = Klein()

        @app.route("/greet/<name>", methods=["GET", "HEAD"])
        async def greet(request: Request, name: str) -> str:
            request.setHeader(b"Content-Type", b"text/plain")
            return f"hello {name} {request.args[b'n'][0].decode()}"

        @app.route("/take", methods=["POST"])
        def take(request: Request) -> bytes:
            return request.content.read()

        client = RawClient(resource=app.resource())
        client.send(get("/greet/ann?n=1") + post(b"abc", target="/take") + get("/none"))
        client.send(get("/greet/bob?n=2", method="HEAD"))
        greeted, taken, none, head = client.responses("GET", "POST", "GET", "HEAD")
        assert greeted.body == b"hello ann 1"
        assert taken.body == b"abc"
        assert none.status == 404
        assert (head.status, head.body) == (200, b"")

    def test_klein_handler_is_cancelled_when_the_client_disconnects(self) -> None:
        from twisted.internet.defer import CancelledError, Deferred

        app = Klein()
        closed: list[BaseException] = []

        @app.route("/poll")
        async def poll(request: Request) -> bytes:
            try:
                await Deferred()
            except CancelledError as error:
                closed.append(error)
                raise
            raise NotImplementedError

        client = RawClient(resource=app.resource())
        client.send(get("/poll"))
        client.disconnect()
        assert len(closed) == 1


def test_date_is_rendered_once_a_second() -> None:
    client = RawClient(brief)
    client.send(get())
    client.clock.advance(0.9)
    client.send(get())
    client.clock.advance(0.1)
    client.send(get())
    dates = [response.header("Date") for response in parse(client.transport.value())]
    assert dates == [
        "Tue, 15 Nov 1994 08:12:31 GMT",
        "Tue, 15 Nov 1994 08:12:31 GMT",
        "Tue, 15 Nov 1994 08:12:32 GMT",
    ]


class TestHalfClosed:
    """Clients that close their sending side after their last request, or are gone."""

    def test_a_request_under_way_is_answered(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get("/a"))
        client.end()
        assert not client.closed()
        brief(held.requests[0])
        assert client.response().header("Connection") == "close"
        assert client.transport.disconnecting

    def test_requests_that_have_arrived_are_answered(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get("/a") + get("/b") + b"GET /part")
        client.end()
        for number in range(2):
            assert not client.closed()
            brief(held.requests[number])
        assert [response.body for response in client.responses()] == [b"/a", b"/b"]
        assert client.transport.disconnecting

    def test_requests_that_wait_for_their_turn_are_answered(self) -> None:
        client = RawClient(brief)
        client.send(get("/") * 40)
        client.end()
        assert not client.closed()
        client.clock.pump([0.0] * 10)
        assert len(client.responses()) == 40
        assert client.transport.disconnecting

    def test_requests_that_wait_for_the_client_to_read_are_answered(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get("/a") + get("/b"))
        client.channel.pauseProducing()
        brief(held.requests[0])
        client.end()
        assert not client.closed()
        client.channel.resumeProducing()
        brief(held.requests[1])
        assert len(client.responses()) == 2
        assert client.transport.disconnecting

    def test_a_client_that_may_be_gone_is_not_held_for_long(self) -> None:
        held = Held()
        client = RawClient(held)
        client.send(get("/a"))
        client.end()
        client.clock.advance(1.0)
        assert not client.closed()
        client.clock.pump([1.0] * 2)
        assert client.transport.disconnecting

    @pytest.mark.parametrize("data", [b"", b"GET / HTTP", post(b"abc")[:-1], get()])
    def test_without_a_request_the_connection_closes(self, data: bytes) -> None:
        client = RawClient(brief)
        client.send(data)
        client.end()
        assert client.transport.disconnecting

    def test_a_lingering_connection_closes(self) -> None:
        client = RawClient()
        client.send(b"GET / HTTP/9.9\r\n\r\n")
        assert client.closed()
        assert not client.transport.disconnecting
        client.channel.writeConnectionLost()
        client.end()
        assert client.transport.disconnecting
