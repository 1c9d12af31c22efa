"""HTTP requests through treq, limited in time and in response size."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

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

T = TypeVar("T")

MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024
"""A hundred of the largest messages, fully escaped, take far less."""

# No connection was made, so the service cannot have acted.
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


class Requester(Protocol):
    """The part of `treq.client.HTTPClient` that is used; `treq.testing.StubTreq` has it too."""

    @property
    def request(self) -> Callable[..., Deferred[Any]]:
        """Takes a method and a URL; fires with a response once its headers have arrived."""


class Response(Struct, frozen=True):
    """Status, headers and the complete body."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The last value of a header, None without one."""
        values = self.headers.getRawHeaders(name)
        return values[-1] if values else None


class TimedOut(Unreachable):
    """The time of a request was over; if not `sent`, before a connection was made."""


async def exchange(
    http: Requester,
    clock: IReactorTime,
    method: str,
    url: str,
    *,
    seconds: float,
    headers: Mapping[str, str],
    params: Sequence[tuple[str, str]] = (),
    body: object = None,
) -> Response:
    """Send a request, with `body` as JSON, and wait for the complete response of any status.

    Raises `Unreachable` if that fails or takes more than `seconds`. Cancelling it closes the
    connection.
    """

    async def work() -> Response:
        fields = {"Accept": "application/json", **headers}
        response = await send_request(http, method, url, fields, params, body)
        return Response(response.code, response.headers, await read_body(response))

    return await within(clock, seconds, work())


async def within(clock: IReactorTime, seconds: float, work: Coroutine[Deferred[Any], Any, T]) -> T:
    """The result of `work`, which is cancelled after `seconds`: that raises `TimedOut`.

    Failures of the connection raise `Unreachable`.
    """
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        working.cancel()

    working = Deferred.fromCoroutine(work)
    timer = clock.callLater(seconds, expire)
    try:
        return await working
    except (CancelledError, *_NOT_SENT, *_LOST) as cause:
        never_sent = isinstance(cause, _NOT_SENT)
        if expired:
            raise TimedOut(f"no response in {seconds:g} s", sent=not never_sent) from cause
        if _was_cancelled(cause):
            raise CancelledError from None
        raise Unreachable(describe(cause), sent=not never_sent) from cause
    finally:
        if timer.active():
            timer.cancel()


async def send_request(
    http: Requester,
    method: str,
    url: str,
    headers: Mapping[str, str],
    params: Sequence[tuple[str, str]],
    body: object = None,
) -> Any:
    """Send a request, with `body` as JSON; returns treq's response once its headers are here."""
    fields = dict(headers)
    data = None
    if body is not None:
        fields["Content-Type"] = "application/json"
        data = msgspec.json.encode(body)
    return await http.request(
        method,
        url,
        headers=fields,
        params=list(params),
        data=data,
        allow_redirects=False,
        unbuffered=True,
    )


async def read_body(response: Any) -> bytes:
    """The complete body of a response; cancelling it closes the connection."""
    finished: Deferred[bytes] = Deferred(lambda _: collector.abort())
    collector = _BodyCollector(finished)
    response.deliverBody(collector)
    return await finished


class _BodyCollector(TwistedProtocol):
    """Collects a response body; closes the connection if it grows too large."""

    def __init__(self, finished: Deferred[bytes]) -> None:
        self._finished: Deferred[bytes] | None = finished
        self._parts: list[bytes] = []
        self._size = 0

    def abort(self) -> None:
        self._finished = None
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        self._parts.append(data)
        finished = self._finished
        if self._size > MAX_RESPONSE_BYTES and finished is not None:
            self.abort()
            finished.errback(error.ConnectionAborted("the response is too large"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        finished, self._finished = self._finished, None
        if finished is None:
            return
        # PotentialDataLoss: without a length, only the closed connection ends the body. Truncated
        # JSON does not parse, so an incomplete body is never mistaken for a complete one.
        if reason.check(ResponseDone, PotentialDataLoss):
            finished.callback(b"".join(self._parts))
        else:
            finished.errback(reason)


def _was_cancelled(cause: BaseException) -> bool:
    """Whether cancelling the request caused the failure; treq wraps the `CancelledError`."""
    reasons = getattr(cause, "reasons", ())
    return isinstance(cause, CancelledError | error.ConnectingCancelledError) or any(
        reason.check(CancelledError) for reason in reasons
    )


def describe(cause: BaseException) -> str:
    """Why a connection failed, in a few words."""
    reasons = getattr(cause, "reasons", ())
    if reasons:
        return "; ".join(describe(reason.value) for reason in reasons)
    if isinstance(cause, error.ConnectError) and isinstance(cause.osError, int):
        return os.strerror(cause.osError)
    return str(cause) or type(cause).__name__
