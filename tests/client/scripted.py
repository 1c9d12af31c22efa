"""A service that answers what a test tells it to, and a client of it, in memory."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from chatd.client import ChatClient

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

NOON = 1_800_000_000.0


@dataclass
class Canned:
    """One answer: JSON `body`, or the bytes `raw`."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


class Cut:
    """The connection ends without an answer."""


class Hold:
    """No answer comes, until the test gives one to the request in `Service.held`."""


class Service(Resource):
    """Answers from `script`, in order, and keeps what was asked in `asked`."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.script: list[Canned | Cut | Hold] = []
        self.asked: list[Request] = []
        self.bodies: list[bytes] = []
        self.held: list[Request] = []

    def render(self, request: Request) -> int:
        self.asked.append(request)
        self.bodies.append(request.content.read() if request.content else b"")
        answer(request, self.script.pop(0), self.held)
        return NOT_DONE_YET

    def query(self, name: str, at: int = -1) -> str | None:
        """A query parameter of a request that was asked."""
        values = self.asked[at].args.get(name.encode())
        return None if values is None else values[0].decode()


def answer(request: Request, canned: Canned | Cut | Hold, held: list[Request]) -> None:
    if isinstance(canned, Hold):
        held.append(request)
    elif isinstance(canned, Cut):
        request.loseConnection()
    else:
        request.setResponseCode(canned.status)
        for name, value in canned.headers.items():
            request.setHeader(name, value)
        raw = json.dumps(canned.body).encode() if canned.raw is None else canned.raw
        request.setHeader("Content-Length", str(len(raw)))
        request.write(raw)
        request.finish()


def stub(resource: Resource) -> Any:
    """A treq that asks `resource`; it has no types."""
    make: Any = StubTreq
    return make(resource)


class World:
    """A service, a client of it and the time they live in; random numbers are all `dice`."""

    def __init__(self, patience: float = 60.0) -> None:
        self.service = Service()
        self.clock = Clock()
        self.http = stub(self.service)
        self.dice = 0.5
        self.client = ChatClient(
            "http://chat.example/",
            "chatd_token",
            patience=patience,
            http=self.http,
            polls=self.http,
            clock=self.clock,
            now=lambda: NOON + self.clock.seconds(),
            random=lambda: self.dice,
        )

    def start(self, call: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Begin a call."""
        return Deferred.fromCoroutine(call)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in small steps, and deliver what was written."""
        steps = max(1, min(200, int(seconds / 0.05)))
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            self.http.flush()

    def answer(self, canned: Canned | Cut) -> None:
        """Answer the request that is held."""
        answer(self.service.held.pop(0), canned, [])
        self.http.flush()


def message(seq: int, text: str = "hi") -> dict[str, object]:
    """A message as the service shows it."""
    return {
        "seq": seq,
        "sent_by": 2,
        "message": text,
        "sent_at": "2026-11-22T12:00:00Z",
        "received_by": 1,
    }


def polled(
    *seqs: int,
    count: int | None = None,
    cursor: str | None = None,
    headers: dict[str, str] | None = None,
    **meta: object,
) -> Canned:
    """The answer of a poll; by default it ends where the inbox ends."""
    last = seqs[-1] if seqs else 0
    count = last if count is None else count
    full = {
        "count": count,
        "cursor": cursor or f"epochepoch-{seqs[-1] if seqs else count}",
        "more": bool(seqs) and seqs[-1] < count,
        "timed_out": False,
        "waited": 0,
        "took": 0,
        **meta,
    }
    body = {"meta": full, "messages": [message(seq) for seq in seqs]}
    return Canned(200, body, headers or {})


def problem(status: int, code: str, **headers: str) -> Canned:
    """An error of the service; header names have underscores here."""
    body = {"title": code, "status": status, "detail": f"it is {code}", "code": code}
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Canned(status, body, {"Content-Type": "application/problem+json", **fields})


def success(deferred: Deferred[T]) -> T:
    """What a Deferred that has fired gives."""
    results: list[T] = []
    _ = deferred.addCallback(results.append)
    [result] = results
    return result


def failure(deferred: Deferred[Any], kind: type[E]) -> E:
    """The error that a Deferred has failed with."""
    failures: list[Failure] = []
    _ = deferred.addErrback(failures.append)
    [failed] = failures
    assert isinstance(failed.value, kind)
    return failed.value
