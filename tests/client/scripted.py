"""A service in memory that responds as scripted by the test, and a client of it."""

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
    """A response: JSON `body`, or the bytes `raw`."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


class Disconnect:
    """The connection closes without a response."""


class Hold:
    """No response comes until the test responds to the request in `Service.held`."""


@dataclass
class Lines:
    """Bytes of a stream, after its first keep-alive; with `end` the response ends after them."""

    raw: bytes
    end: bool = False


Step = Canned | Disconnect | Hold | Lines


class Service(Resource):
    """Responds from `script`, in order, and records `requests`; after the script it holds them.

    Where `streams`, the steps for a request for a stream are played on one stream, until one ends
    it or holds it: `play`.
    """

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.streams = True
        self.script: list[Step] = []
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self.held: list[Request] = []

    def render(self, request: Request) -> int:
        self.requests.append(request)
        self.bodies.append(request.content.read() if request.content else b"")
        if self.streams and request.getHeader("accept") == "application/x-ndjson":
            while self.play(request, self._next_step()):
                pass
        else:
            respond(request, self._next_step(), self.held)
        return NOT_DONE_YET

    def _next_step(self) -> Step:
        return self.script.pop(0) if self.script else Hold()

    def play(self, request: Request, step: Step) -> bool:
        """Play a step on a stream, and open it first; whether the stream goes on.

        The messages of the response to a poll become lines, and what the response asks for (a
        pause, for example) becomes the line that asks for the same.
        """
        raw, ends = stream_bytes(step)
        if not request.startedWriting:
            if isinstance(step, Disconnect) or (isinstance(step, Canned) and not is_poll(step)):
                respond(request, step, self.held)
                return False
            request.setHeader("Content-Type", "application/x-ndjson")
            request.write(line(keepalive=True))
        if raw:
            request.write(raw)
        if isinstance(step, Hold):
            self.held.append(request)
        elif isinstance(step, Disconnect):
            request.loseConnection()
        elif ends:
            request.finish()
        return not ends

    def cursors(self) -> list[str | None]:
        """The cursors that were sent, without repetitions."""
        return list(dict.fromkeys(self.query("since", at) for at in range(len(self.requests))))

    def query(self, name: str, at: int = -1) -> str | None:
        """A query parameter of a recorded request, by default the last."""
        values = self.requests[at].args.get(name.encode())
        return None if values is None else values[0].decode()


def is_poll(canned: Canned) -> bool:
    """Whether it is a response to a poll."""
    return isinstance(canned.body, dict) and "messages" in canned.body


def stream_bytes(step: Step) -> tuple[bytes, bool]:
    """What a step is on a stream, and whether the stream ends with it."""
    if isinstance(step, Lines):
        return step.raw, step.end
    if not isinstance(step, Canned):
        return b"", True
    body: Any = step.body
    if not is_poll(step):
        return line(error=body), True
    meta = body["meta"]
    if meta.get("superseded"):
        return line(superseded=True), True
    if "Retry-After" in step.headers:
        return line(drain=True, retry_after=int(step.headers["Retry-After"])), True
    if not body["messages"]:
        return line(keepalive=True), False
    history = meta["cursor"].partition("-")[0]
    return b"".join(
        line(cursor=f"{history}-{each['seq']}", message=each) for each in body["messages"]
    ), False


def line(**members: object) -> bytes:
    """A line of a stream."""
    return json.dumps(members).encode() + b"\n"


def respond(request: Request, canned: Step, held: list[Request]) -> None:
    assert not isinstance(canned, Lines)
    if isinstance(canned, Hold):
        held.append(request)
    elif isinstance(canned, Disconnect):
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
    """A treq client whose requests go to `resource`; treq.testing has no types."""
    make: Any = StubTreq
    return make(resource)


class Harness:
    """A service, a client of it, and their clock; all random numbers are `random_value`."""

    def __init__(self, retry_seconds: float = 60.0) -> None:
        self.service = Service()
        self.clock = Clock()
        self.http = stub(self.service)
        self.random_value = 0.5
        self.client = ChatClient(
            "http://chat.example/",
            "chatd_token",
            retry_seconds=retry_seconds,
            http=self.http,
            polls=self.http,
            clock=self.clock,
            now=lambda: NOON + self.clock.seconds(),
            random=lambda: self.random_value,
        )

    def start(self, call: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """Start a call."""
        return Deferred.fromCoroutine(call)

    def advance(self, seconds: float) -> None:
        """Advance the clock in small steps and deliver what was written."""
        steps = max(1, min(200, int(seconds / 0.05)))
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            self.http.flush()

    def respond(self, step: Step) -> None:
        """Respond to the oldest held request; a stream that goes on is held again."""
        request = self.service.held.pop(0)
        if not request.startedWriting:
            respond(request, step, self.service.held)
        elif self.service.play(request, step):
            self.service.held.insert(0, request)
        self.http.flush()


def message(seq: int, text: str = "hi") -> dict[str, object]:
    """The JSON of a message."""
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
    """The response to a poll; by default its last message is the last of the inbox."""
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
    """An error response; header names are given with underscores."""
    body = {"title": code, "status": status, "detail": f"it is {code}", "code": code}
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Canned(status, body, {"Content-Type": "application/problem+json", **fields})


def success(deferred: Deferred[T]) -> T:
    """The result of a Deferred that has fired."""
    results: list[T] = []
    _ = deferred.addCallback(results.append)
    [result] = results
    return result


def failure(deferred: Deferred[Any], kind: type[E]) -> E:
    """The exception that a Deferred has failed with."""
    failures: list[Failure] = []
    _ = deferred.addErrback(failures.append)
    [failed] = failures
    assert isinstance(failed.value, kind)
    return failed.value
