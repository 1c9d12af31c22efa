"""One request and its answer over treq, bounded in time and in size."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from chatd.client.errors import Unreachable

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""A hundred of the largest messages, all escaped, are far less."""

# No connection came about, so the service cannot have acted.
_NOT_SENT: Final = (error.ConnectError, error.DNSLookupError, error.ConnectingCancelledError)
_LOST: Final = (
    error.ConnectionDone,
    error.ConnectionLost,
    error.ConnectionAborted,
    error.TimeoutError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)


class Http(Protocol):
    """The part of `treq.client.HTTPClient` that is used; `treq.testing.StubTreq` has it too."""

    @property
    def request(self) -> Callable[..., Deferred[Any]]:
        """Takes a method and a URL; fires with a response as soon as its head is here."""


class Answer(Struct, frozen=True):
    """Status, headers and the whole body."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The last value of a header."""
        values = self.headers.getRawHeaders(name)
        return values[-1] if values else None


async def exchange(
    http: Http,
    clock: IReactorTime,
    method: str,
    url: str,
    *,
    seconds: float,
    headers: Mapping[str, str],
    params: Sequence[tuple[str, str]] = (),
    body: object = None,
) -> Answer:
    """Ask and wait for the whole answer, whatever its status; `body` is sent as JSON.

    Raises `Unreachable` when that takes more than `seconds` or fails. Cancelling it closes the
    connection.
    """
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        asking.cancel()

    asking = Deferred.fromCoroutine(_ask(http, method, url, headers, params, body))
    timer = clock.callLater(seconds, expire)
    try:
        return await asking
    except (CancelledError, *_NOT_SENT, *_LOST) as problem:
        never_sent = isinstance(problem, _NOT_SENT)
        if expired:
            raise Unreachable(f"no answer in {seconds:g} s", sent=not never_sent) from problem
        if _cancelled(problem):
            raise CancelledError from None
        raise Unreachable(_why(problem), sent=not never_sent) from problem
    finally:
        if timer.active():
            timer.cancel()


async def _ask(
    http: Http,
    method: str,
    url: str,
    headers: Mapping[str, str],
    params: Sequence[tuple[str, str]],
    body: object,
) -> Answer:
    fields = {"Accept": "application/json", **headers}
    data = None
    if body is not None:
        fields["Content-Type"] = "application/json"
        data = msgspec.json.encode(body)
    response = await http.request(
        method,
        url,
        headers=fields,
        params=list(params),
        data=data,
        allow_redirects=False,
        unbuffered=True,
    )
    whole: Deferred[bytes] = Deferred(lambda _: collecting.abandon())
    collecting = _Body(whole)
    response.deliverBody(collecting)
    return Answer(response.code, response.headers, await whole)


class _Body(TwistedProtocol):
    """Collects a body. Cancelled, or above the bound, it closes the connection."""

    def __init__(self, whole: Deferred[bytes]) -> None:
        self._whole: Deferred[bytes] | None = whole
        self._parts: list[bytes] = []
        self._size = 0

    def abandon(self) -> None:
        self._whole = None
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        self._parts.append(data)
        whole = self._whole
        if self._size > MAX_ANSWER_BYTES and whole is not None:
            self.abandon()
            whole.errback(error.ConnectionAborted("the answer is too large"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        whole, self._whole = self._whole, None
        if whole is None:
            return
        # Without a length only the end of the connection says that this was all: JSON that was
        # cut does not parse, so that nothing is taken for whole which is not.
        if reason.check(ResponseDone, PotentialDataLoss):
            whole.callback(b"".join(self._parts))
        else:
            whole.errback(reason)


def _cancelled(problem: BaseException) -> bool:
    """Whether a failure was caused by cancelling; treq wraps what it was cancelled with."""
    reasons = getattr(problem, "reasons", ())
    return isinstance(problem, CancelledError | error.ConnectingCancelledError) or any(
        reason.check(CancelledError) for reason in reasons
    )


def _why(problem: BaseException) -> str:
    reasons = getattr(problem, "reasons", ())
    if reasons:
        return "; ".join(_why(reason.value) for reason in reasons)
    if isinstance(problem, error.ConnectError) and isinstance(problem.osError, int):
        return os.strerror(problem.osError)
    return str(problem) or type(problem).__name__
