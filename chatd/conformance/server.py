"""The server under test: raw requests and accounts."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from chatd.client import ChatClient
from chatd.client.exchange import Response, exchange

RESPONSE_SECONDS: Final = 15.0
PASSWORD: Final = "conformance"


class JSONResponse(Struct, frozen=True):
    """A response with its body decoded from JSON, None if that fails."""

    status: int
    raw: Response
    json: Any
    seconds: float

    def header(self, name: str) -> str:
        """A header, empty if it is missing."""
        return self.raw.header(name) or ""

    @property
    def code(self) -> str:
        """The code of an error, empty if this is not a problem document."""
        document = self.header("Content-Type").startswith("application/problem+json")
        return str(self.json.get("code", "")) if document and isinstance(self.json, dict) else ""

    @property
    def seqs(self) -> list[int]:
        """The seqs of the messages."""
        return [message["seq"] for message in self.json["messages"]]

    @property
    def texts(self) -> list[str]:
        """The texts of the messages."""
        return [message["message"] for message in self.json["messages"]]


class Account(Struct, frozen=True):
    """An account on the server."""

    server: Server
    id: int
    name: str
    token: str

    async def request(self, method: str, path: str, **more: Any) -> JSONResponse:
        """Send a request with the account's token."""
        return await self.server.request(method, path, token=self.token, **more)

    async def get(self, query: str = "") -> JSONResponse:
        """`GET /chats/` with a query."""
        return await self.request("GET", f"/chats/{query}")

    async def send(self, recipient: Account, text: str = "hai", **more: Any) -> JSONResponse:
        """Send a message."""
        body = {"user_id": recipient.id, "message": text}
        return await self.request("POST", "/chats/", body=body, **more)

    async def cursor(self) -> str:
        """The end of the inbox."""
        found = (await self.get("?since=now")).json["meta"]["cursor"]
        return str(found)


class Server:
    """The server at `url`."""

    def __init__(self, url: str, reactor: Any) -> None:
        self.url = url.rstrip("/").removesuffix("/api/v1")
        self.reactor = reactor
        self._accounts: list[Account] = []
        self._tasks: list[Deferred[Any]] = []
        self._cleanups: list[Callable[[], None]] = []
        # Without a pool each request has its own connection, so cutting one affects no other.
        self._http = HTTPClient(Agent(reactor, connectTimeout=5))

    async def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = RESPONSE_SECONDS,
    ) -> JSONResponse:
        """Send a request to a path below `/api/v1`, or to the root if the path begins with `//`."""
        all_headers = dict(headers or {})
        if token is not None:
            all_headers["Authorization"] = f"Bearer {token}"
        target = path[1:] if path.startswith("//") else f"/api/v1{path}"
        started = self.reactor.seconds()
        response = await exchange(
            self._http,
            self.reactor,
            method,
            self.url + target,
            seconds=seconds,
            headers=all_headers,
            body=body,
        )
        try:
            document = json.loads(response.body)
        except ValueError:
            document = None
        return JSONResponse(response.status, response, document, self.reactor.seconds() - started)

    async def open(self, method: str, path: str, headers: Mapping[str, str]) -> Any:
        """The response to a request below `/api/v1`, as soon as its headers have arrived."""
        fields = Headers({name: [value] for name, value in headers.items()})
        request = self._http.request(
            method, f"{self.url}/api/v1{path}", headers=fields, unbuffered=True
        )
        return await request.addTimeout(RESPONSE_SECONDS, self.reactor)

    async def new_account(self) -> Account:
        """Create an account and log in."""
        name = f"conformance-{secrets.token_hex(6)}"
        client = ChatClient(self.url, reactor=self.reactor)
        async with client:
            user = await client.register(name, f"{name}@example.org", PASSWORD)
            account = Account(self, user.id, name, await client.log_in(name, PASSWORD))
        self._accounts.append(account)
        return account

    async def two_accounts(self) -> tuple[Account, Account]:
        """Create two accounts and log in."""
        return await self.new_account(), await self.new_account()

    def basic_auth(self, account: Account) -> dict[str, str]:
        """The headers of HTTP Basic authentication."""
        pair = b64encode(f"{account.name}:{PASSWORD}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def start(self, work: Any) -> Deferred[Any]:
        """Start a coroutine in parallel with the check; cancelled by `cleanup`."""
        task = Deferred.fromCoroutine(work)
        self._tasks.append(task)
        return task

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await deferLater(self.reactor, seconds)

    def on_cleanup(self, close: Callable[[], None]) -> None:
        """Have `cleanup` call `close`."""
        self._cleanups.append(close)

    async def cleanup(self) -> None:
        """Cancel what is still running, and delete the accounts."""
        for close in self._cleanups:
            close()
        self._cleanups.clear()
        for task in self._tasks:
            task.addErrback(lambda _: None)
            task.cancel()
        self._tasks.clear()
        for account in self._accounts:
            try:
                await account.request("DELETE", "/users/")
            except (Exception, CancelledError):
                # A faulty server may fail here in any way.
                continue
        self._accounts.clear()
