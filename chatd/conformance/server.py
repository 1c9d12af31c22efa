"""The server that is judged: raw requests, accounts, time."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.web.client import Agent

from chatd.client import ChatClient
from chatd.client.exchange import Answer, exchange

ANSWER_SECONDS: Final = 15.0
PASSWORD: Final = "conformance"


class Reply(Struct, frozen=True):
    """An answer with its body read as JSON, None where it is none."""

    status: int
    answer: Answer
    json: Any
    seconds: float

    def header(self, name: str) -> str:
        """A header, empty where it is missing."""
        return self.answer.header(name) or ""

    @property
    def code(self) -> str:
        """The code of an error; empty if this is no problem document."""
        document = self.header("Content-Type").startswith("application/problem+json")
        return str(self.json.get("code", "")) if document and isinstance(self.json, dict) else ""

    @property
    def seqs(self) -> list[int]:
        """The places of the messages that it holds."""
        return [message["seq"] for message in self.json["messages"]]

    @property
    def texts(self) -> list[str]:
        """The texts of the messages that it holds."""
        return [message["message"] for message in self.json["messages"]]


class Person(Struct, frozen=True):
    """An account on the server."""

    service: Service
    id: int
    name: str
    token: str

    async def ask(self, method: str, path: str, **more: Any) -> Reply:
        """A request with the token."""
        return await self.service.ask(method, path, token=self.token, **more)

    async def get(self, query: str = "") -> Reply:
        """`GET /chats/` with a query."""
        return await self.ask("GET", f"/chats/{query}")

    async def send(self, to: Person, text: str = "hai", **more: Any) -> Reply:
        """Send a message."""
        body = {"user_id": to.id, "message": text}
        return await self.ask("POST", "/chats/", body=body, **more)

    async def cursor(self) -> str:
        """The end of the inbox."""
        found = (await self.get("?since=now")).json["meta"]["cursor"]
        return str(found)


class Service:
    """The server at `url`."""

    def __init__(self, url: str, reactor: Any) -> None:
        self.url = url.rstrip("/").removesuffix("/api/v1")
        self.reactor = reactor
        self._made: list[Person] = []
        self._begun: list[Deferred[Any]] = []
        # A connection for each request: that one is broken must not touch another.
        self._http = HTTPClient(Agent(reactor, connectTimeout=5))

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Reply:
        """A request below `/api/v1`, or of a path that begins with `//` as it is."""
        fields = dict(headers or {})
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        target = path[1:] if path.startswith("//") else f"/api/v1{path}"
        began = self.reactor.seconds()
        answer = await exchange(
            self._http,
            self.reactor,
            method,
            self.url + target,
            seconds=seconds,
            headers=fields,
            body=body,
        )
        try:
            document = json.loads(answer.body)
        except ValueError:
            document = None
        return Reply(answer.status, answer, document, self.reactor.seconds() - began)

    async def person(self) -> Person:
        """A new account with a token."""
        name = f"conformance-{secrets.token_hex(6)}"
        client = ChatClient(self.url, reactor=self.reactor)
        async with client:
            user = await client.register(name, f"{name}@example.org", PASSWORD)
            person = Person(self, user.id, name, await client.log_in(name, PASSWORD))
        self._made.append(person)
        return person

    async def two(self) -> tuple[Person, Person]:
        """Two new accounts."""
        return await self.person(), await self.person()

    def basic(self, person: Person) -> dict[str, str]:
        """The header of a client that sends its password each time."""
        pair = b64encode(f"{person.name}:{PASSWORD}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def start(self, work: Any) -> Deferred[Any]:
        """Begin something that goes on beside the check."""
        begun = Deferred.fromCoroutine(work)
        self._begun.append(begun)
        return begun

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        await deferLater(self.reactor, seconds)

    async def clean(self) -> None:
        """End what goes on still, and delete the accounts that were made."""
        for begun in self._begun:
            begun.addErrback(lambda _: None)
            begun.cancel()
        self._begun.clear()
        for person in self._made:
            try:
                await person.ask("DELETE", "/users/")
            except (Exception, CancelledError):
                # The server that is judged may do anything here, too.
                continue
        self._made.clear()
