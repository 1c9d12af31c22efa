"""A raw HTTP client for tests: bytes to and from a `chatd.http.server.Server` in memory."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from chatd.http.limits import HTTPLimits
from chatd.http.request import Request
from chatd.http.server import Server

# 1994-11-15T08:12:31Z.
NOW = 784887151.0

Respond = Callable[[Request], object]


def problem(status: int, code: str, detail: str) -> bytes:
    """A problem document with the members that tests compare."""
    return json.dumps({"status": status, "code": code, "detail": detail}).encode()


def echo(request: Request) -> bytes:
    """Respond with the request's method, URI and body."""
    request.setHeader(b"Content-Type", b"application/json")
    return json.dumps(
        {
            "method": request.method.decode(),
            "uri": request.uri.decode(),
            "body": request.content.read().decode(),
        }
    ).encode()


def brief(request: Request) -> object:
    """Respond with the URI, by `Request.respond`."""
    request.respond(200, b"", request.uri)
    return NOT_DONE_YET


@implementer(IResource)
class Leaf:
    """A resource that calls a function, which returns the body or NOT_DONE_YET."""

    isLeaf = True

    def __init__(self, respond: Respond) -> None:
        self._respond = respond

    def render(self, request: Request) -> Any:
        return self._respond(request)

    def getChildWithDefault(self, name: bytes, request: Request) -> Any:
        raise NotImplementedError

    def putChild(self, path: bytes, child: IResource) -> None:
        raise NotImplementedError


class Held:
    """A function for `Leaf` that keeps the requests for the test to respond to."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> object:
        self.requests.append(request)
        return NOT_DONE_YET


class HalfClosing(StringTransport):
    """A transport whose sending side can be closed alone, as that of TCP."""

    sending_closed = False

    def loseWriteConnection(self) -> None:
        self.sending_closed = True


@dataclass(frozen=True)
class RawResponse:
    """One response, as parsed by `http.client`."""

    version: int
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of the header `name`; fails if there is more than one."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def code(self) -> str:
        """The code in the problem document."""
        assert self.header("Content-Type") == "application/problem+json"
        document = json.loads(self.body)
        assert document["status"] == self.status
        code = document["code"]
        assert isinstance(code, str)
        return code


class _Stream(io.BytesIO):
    def makefile(self, mode: str) -> _Stream:
        return self

    def close(self) -> None:
        """`http.client` closes its file after each response; the next one follows in it."""


def parse(stream: bytes, *methods: str) -> list[RawResponse]:
    """The responses in `stream` to requests with `methods`, then GET. 100 is left out."""
    waiting = list(methods)
    source = _Stream(stream)
    responses = []
    while source.tell() < len(stream):
        assert stream.startswith(b"HTTP/1.", source.tell()), stream[source.tell() :]
        response = http.client.HTTPResponse(
            source,  # type: ignore[arg-type]
            method=waiting.pop(0) if waiting else "GET",
        )
        response.begin()
        responses.append(
            RawResponse(
                response.version,
                response.status,
                response.reason,
                response.getheaders(),
                response.read(),
            )
        )
    return responses


class RawClient:
    """A client connected to a server in memory, whose only resource is `respond`."""

    def __init__(
        self,
        respond: Respond = echo,
        *,
        server: Server | None = None,
        transport: StringTransport | None = None,
        resource: IResource | None = None,
        address: IAddress | None = None,
        **limits: Any,
    ) -> None:
        self.clock = Clock()
        self.logged: list[Request] = []
        if server is None:
            server = Server(
                resource=Leaf(respond) if resource is None else resource,
                clock=self.clock,
                limits=HTTPLimits(**limits),
                problem=problem,
                log=self.logged.append,
                now=lambda: NOW + self.clock.seconds(),
            )
        self.server = server
        if transport is None:
            transport = HalfClosing()  # type: ignore[no-untyped-call]
        self.transport = transport
        self.channel = server.buildProtocol(address)
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes, step: int = 0) -> None:
        """Send `data`, in pieces of `step` bytes if given."""
        for start in range(0, len(data), step or len(data) or 1):
            self.channel.dataReceived(data[start : start + (step or len(data))])

    def responses(self, *methods: str) -> list[RawResponse]:
        """All responses received, to requests with `methods`."""
        return parse(self.transport.value(), *methods)

    def response(self, *methods: str) -> RawResponse:
        """The only response received."""
        [response] = self.responses(*methods)
        return response

    def end(self) -> None:
        """Close the sending side, as a client does that has sent its last request or is gone."""
        self.channel.readConnectionLost()

    def disconnect(self) -> Failure:
        """Disconnect; returns the reason that the channel is given."""
        reason = Failure(ConnectionDone())
        self.channel.connectionLost(reason)
        return reason

    def closed(self) -> bool:
        """Whether the server has closed the connection, or its own side of it."""
        return self.transport.disconnecting or getattr(self.transport, "sending_closed", False)

    def reading(self) -> bool:
        """Whether the server reads."""
        return self.transport.producerState == "producing"


def get(target: str = "/", *headers: str, version: str = "1.1", method: str = "GET") -> bytes:
    """A request without a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: chat.example", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(body: bytes, *headers: str, target: str = "/") -> bytes:
    """A request with a body of known length."""
    return get(target, f"Content-Length: {len(body)}", *headers, method="POST") + body


def post_chunks(*chunks: bytes, trailers: str = "", target: str = "/") -> bytes:
    """A request with a body in chunks."""
    pieces = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    return b"".join(
        [
            get(target, "Transfer-Encoding: chunked", method="POST"),
            *pieces,
            b"0\r\n" + trailers.encode() + b"\r\n",
        ]
    )
