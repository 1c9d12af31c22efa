"""The API in memory: calls, domain and database, requested without sockets.

`Service` runs on twisted.web or on the daemon's own HTTP server; each request has a connection of
its own. Time passes only when a test advances it.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.web.http_headers import Headers
from twisted.web.server import Site

from chatd.api.access_log import AccessLog
from chatd.api.client_address import TrustedProxies
from chatd.api.cors import CORS
from chatd.api.dispatch import Dispatch
from chatd.api.fast_path import FastPath
from chatd.api.problems import problem
from chatd.compose.api import compose_admin, compose_api
from chatd.http.limits import HTTPLimits
from chatd.http.server import Server
from tests.doubles import System
from tests.examples import examples
from tests.http.raw_client import HalfClosing, RawClient

STOCK: Final = "twisted.web"
OWN: Final = "chatd"
FRONTS: Final = (STOCK, OWN)
SERVERS: Final = FRONTS[examples(1, deep=0) :]
"""Those for tests of what does not depend on the server: all only if told to test deeply."""

RETRY_JITTER: Final = 3
"""The Retry-After of a draining server in these tests."""

CHATS: Final = "/api/v1/chats/"
USERS: Final = "/api/v1/users/"
TOKENS: Final = "/api/v1/tokens/"

Fields = dict[str, str | bytes | Sequence[str | bytes]]

CLIENT: Final = IPv4Address("TCP", "127.0.0.1", 31337)
"""The address of every client."""

_ABSENT: Final = object()


@dataclass(frozen=True)
class ServiceResponse:
    """A complete response."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header that occurs at most once; None if it is absent."""
        values = self.headers.getRawHeaders(name.encode(), [])
        assert len(values) < 2, values
        return values[0].decode("latin-1") if values else None

    @property
    def json(self) -> Any:
        """The body, decoded as JSON."""
        assert self.header("Content-Type") == "application/json", self
        return json.loads(self.body)

    def problem(self, status: int, code: str) -> dict[str, Any]:
        """The body as a problem document; asserts its status and code."""
        assert (self.status, self.header("Content-Type")) == (status, "application/problem+json"), (
            self
        )
        document: dict[str, Any] = json.loads(self.body)
        assert document["code"] == code, document
        assert document["status"] == status
        assert all(isinstance(document[name], str) for name in ("type", "title", "detail"))
        return document


_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


def is_complete(received: bytes, method: str) -> bool:
    """Whether these bytes are a whole response to a request with this method."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    status = int(head.split(b" ", 2)[1])
    if method == "HEAD" or status in (204, 304):
        return True
    length = _LENGTH.search(head + b"\r\n")
    return body.endswith(b"0\r\n\r\n") if length is None else len(body) == int(length[1])


class Exchange:
    """A request on a connection of its own, and its response once there is one."""

    def __init__(self, client: RawClient, method: str) -> None:
        self.client = client
        self._method = method
        self._disconnected = False
        self._response: ServiceResponse | None = None

    @property
    def held(self) -> bool:
        """Whether the request is still waiting for its response, or for the rest of it."""
        received = self.client.transport.value()
        return not (self._disconnected or is_complete(received, self._method))

    @property
    def response(self) -> ServiceResponse:
        """The response; fails if there is none."""
        if self._response is None:
            assert is_complete(self.client.transport.value(), self._method), "no response yet"
            raw = self.client.response(self._method)
            headers = Headers()
            for name, value in raw.headers:
                headers.addRawHeader(name.encode("latin-1"), value.encode("latin-1"))
            self._response = ServiceResponse(raw.status, headers, raw.body)
        return self._response

    def disconnect(self) -> None:
        """Disconnect while the request waits; the server notices at once."""
        assert self.held
        self._disconnected = True
        self.client.disconnect()


class Service:
    """The public API over a `System`; `options` are the system's."""

    def __init__(
        self,
        folder: Path,
        front: str = STOCK,
        *,
        trusted: Sequence[str] = (),
        access_log: bool = False,
        cors: Sequence[str] = (),
        body_bytes: int = 128 * 1024,
        **options: Any,
    ) -> None:
        system = self.system = System(folder, **options)
        self.clock = system.clock
        self.readiness = system.components.readiness
        self.proxies = TrustedProxies([ip_network(network) for network in trusted])
        self._cors = CORS(cors) if cors else None
        public = compose_api(
            system.components,
            clock=system.clock,
            proxies=self.proxies,
            retry_jitter=lambda: RETRY_JITTER,
            access_log=AccessLog(self.proxies) if access_log else None,
            cors=self._cors,
        )
        self.resource = public.resource
        self.fast_path: FastPath | None = public.fast_path
        """None has every request go the ordinary way."""
        self.admin = compose_admin(system.components, clock=system.clock)
        self.front = front
        self._limits = HTTPLimits(body_bytes=body_bytes)
        self._exchanges: list[Exchange] = []
        self._names = iter(range(1000))

    def server(self, resource: Dispatch | None = None) -> Any:
        """A factory of connections to the resource, the public one by default."""
        resource = self.resource if resource is None else resource
        if self.front == OWN:
            is_public = resource is self.resource
            return Server(
                resource=resource,
                clock=self.clock,
                limits=self._limits,
                problem=problem,
                fast_handler=self.fast_path if is_public else None,
                error_headers=self._cors.in_head if is_public and self._cors else None,
            )
        return Site(resource, reactor=self.clock, timeout=None, parsePOSTFormSubmission=False)

    def connect(
        self, transport: StringTransport | None = None, *, admin: bool = False
    ) -> RawClient:
        """Open a connection for raw bytes."""
        if transport is None:
            transport = HalfClosing(peerAddress=CLIENT)  # type: ignore[no-untyped-call]
        server = self.server(self.admin if admin else self.resource)
        return RawClient(server=server, transport=transport)

    def settle(self) -> None:
        """Run everything that needs no time to pass."""
        for _ in range(2):
            self.system.settle()
            ended = [exchange for exchange in self._exchanges if not exchange.held]
            for exchange in ended:
                self._exchanges.remove(exchange)
                exchange.client.disconnect()

    def advance(self, seconds: float) -> None:
        """Advance the clock and settle."""
        self.clock.advance(seconds)
        self.settle()

    def start(
        self,
        method: str,
        target: str,
        *,
        headers: Fields | None = None,
        json_body: object = _ABSENT,
        body: bytes | None = None,
        auth: str | bytes | None = None,
        admin: bool = False,
    ) -> Exchange:
        """Send a request without running the reactor any further."""
        lines = [f"{method} {target} HTTP/1.1", "Host: chat.example"]
        if json_body is not _ABSENT:
            body = json.dumps(json_body).encode()
            lines.append("Content-Type: application/json")
        if auth is not None:
            lines.append(f"Authorization: {_text(auth)}")
        for name, value in (headers or {}).items():
            values = [value] if isinstance(value, str | bytes) else value
            lines += [f"{name}: {_text(each)}" for each in values]
        if body is not None or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body or b'')}")
        client = self.connect(admin=admin)
        client.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))
        exchange = Exchange(client, method)
        self._exchanges.append(exchange)
        return exchange

    def start_and_settle(self, method: str, target: str, **options: Any) -> Exchange:
        """Send a request and run everything that needs no time to pass."""
        exchange = self.start(method, target, **options)
        self.settle()
        return exchange

    def request(self, method: str, target: str, **options: Any) -> ServiceResponse:
        """Send a request and return its response."""
        return self.start_and_settle(method, target, **options).response

    def get(self, target: str, **options: Any) -> ServiceResponse:
        """`GET`."""
        return self.request("GET", target, **options)

    def post(self, target: str, json_body: object, **options: Any) -> ServiceResponse:
        """`POST` of a JSON body."""
        return self.request("POST", target, json_body=json_body, **options)

    def new_user(self, name: str | None = None) -> User:
        """Create an account and log in to it."""
        name = name or f"user{next(self._names)}"
        account = self.system.account(name)
        issued = self.system.run(self.system.accounts.log_in(name, "password", "198.51.100.1"))
        return User(self, account.id, name, issued.token)


class User:
    """A user of the service; their password is `password`."""

    def __init__(self, service: Service, user_id: int, name: str, token: str) -> None:
        self._service = service
        self.id = user_id
        self.name = name
        self.bearer = f"Bearer {token}"
        self.basic = basic(name, "password")

    def start(self, method: str, target: str, **options: Any) -> Exchange:
        """`Service.start` as this user."""
        return self._service.start(method, target, **{"auth": self.bearer, **options})

    def start_and_settle(self, method: str, target: str, **options: Any) -> Exchange:
        """`Service.start_and_settle` as this user."""
        return self._service.start_and_settle(method, target, **{"auth": self.bearer, **options})

    def request(self, method: str, target: str, **options: Any) -> ServiceResponse:
        """`Service.request` as this user."""
        return self.start_and_settle(method, target, **options).response

    def get(self, target: str, **options: Any) -> ServiceResponse:
        """`GET` as this user."""
        return self.request("GET", target, **options)

    def post(self, target: str, json_body: object, **options: Any) -> ServiceResponse:
        """`POST` of a JSON body as this user."""
        return self.request("POST", target, json_body=json_body, **options)

    def send(self, to: User, text: str = "hai", **headers: str) -> dict[str, Any]:
        """Send a message; returns it."""
        response = self.post(CHATS, {"user_id": to.id, "message": text})
        assert response.status == 201, response
        message: dict[str, Any] = response.json
        return message

    def page(self, query: str = "") -> dict[str, Any]:
        """A page of the inbox."""
        response = self.get(CHATS + query)
        assert response.status == 200, response
        page: dict[str, Any] = response.json
        return page

    poll = page

    def wait(self, query: str = "?since=now&wait=30", **options: Any) -> Exchange:
        """Start a poll that is held."""
        exchange = self.start_and_settle("GET", CHATS + query, **options)
        assert exchange.held
        return exchange


def basic(username: str, password: str) -> str:
    """The value of `Authorization`."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def texts(document: dict[str, Any]) -> list[str]:
    """The texts of the messages of a page or a poll."""
    return [message["message"] for message in document["messages"]]


@contextmanager
def serving(folder: Path, front: str = STOCK, **options: Any) -> Iterator[Service]:
    """An open `Service`, closed afterwards."""
    service = Service(folder, front, **options)
    service.system.open()
    try:
        yield service
    finally:
        service.settle()
        service.system.close()


Serve = Callable[..., Service]
