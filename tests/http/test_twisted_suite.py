"""Twisted's own tests of its HTTP channel and request, run against ours.

Each test class of `twisted.web.test.test_http` that tests a server is rebuilt on a synchronous test
case, with our channel and request in place of Twisted's. Intended differences are bridged: Host is
added to HTTP/1.1 requests that lack it; Server, Date, X-Request-ID, X-Content-Type-Options and
Connection are removed where whole heads are compared; any problem document counts as Twisted's bare
400.

Tests that cannot apply are listed by name with a reason; a test neither run nor listed fails.
"""

from __future__ import annotations

import re
import sys
import unittest
import warnings
from types import ModuleType
from typing import Any

import attrs
import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web import http
from twisted.web.http_headers import Headers

from chatd.http.channel import Channel
from chatd.http.connection_states import RESPONDING
from chatd.http.flow_control import FlowControl
from chatd.http.head import Head
from chatd.http.limits import HTTPLimits
from chatd.http.request import Request
from chatd.http.request_headers import HeaderBlock
from chatd.http.server import Server
from tests.http.raw_client import Leaf, brief, problem

with warnings.catch_warnings(), pytest.MonkeyPatch.context() as _patch:
    # Twisted's tests import what Twisted has deprecated.
    warnings.simplefilter("ignore")
    # Two tests of HTTP/2 use it, which are not ours to pass.
    _patch.setitem(sys.modules, "hamcrest", ModuleType("hamcrest"))
    from twisted.web.test import test_http as suite

# Test classes for something other than the server's side of an HTTP/1 connection.
ELSEWHERE = {
    "DateTimeTests": "functions for dates, which chatd uses unchanged",
    "GenericHTTPChannelTests": "the choice between HTTP/1.1 and HTTP/2; chatd speaks HTTP/1.1",
    "HTTPLoopbackTests": "needs a running reactor; tests/integration has real sockets",
    "PersistenceTests": "calls HTTPChannel.checkPersistence; TestKeepAlive tests the outcome",
    "IdentityTransferEncodingTests": "a decoder of Twisted's",
    "ChunkedTransferEncodingTests": "a decoder of Twisted's; llhttp decodes here",
    "QueryArgumentsTests": "functions for URLs, which chatd uses unchanged",
    "ClientStatusParsingTests": "a client",
    "MultilineHeadersTests": "a client",
    "HTTPChannelSanitizationTests": "calls HTTPChannel.writeHeaders; TestHeaders tests the outcome",
    "HTTPClientDeprecationTests": "a client",
    "HTTPClientSanitizationTests": "a client",
    "HTTP0_9Tests": "HTTP/0.9, which is refused",
}

_FORMS = "bodies of forms are not parsed: the API takes JSON"
_OBS_FOLD = "folded lines and other control characters in values are refused (RFC 9112 section 5)"
_LIMITS = "sets a limit on the channel class; limits are the server's, see TestHeadLimits"
_TIMES = "uses TimeoutMixin; timeouts are the server's, see test_channel_timeouts"
_CHUNKS_1_0 = "chunks in HTTP/1.0 are refused (RFC 9112 section 6.1)"
_GARBAGE = "pipelines bytes that are no request; see test_channel_pipelining"
_STAND_IN = "inspects a fake channel, not what is written"

EXCLUDED = {
    "HTTP1_0Tests.test_requestBodyDefaultTimeout": _TIMES,
    "HTTP1_0Tests.test_transportForciblyClosed": _TIMES,
    "HTTP1_0Tests.test_transportNotAbortedAfterConnectionLost": _TIMES,
    "HTTP1_0Tests.test_transportNotAbortedWithZeroAbortTimeout": _TIMES,
    "HTTP1_0Tests.test_connectionLostAfterForceClose": _TIMES,
    "HTTP1_0Tests.test_requestBodyTimeout": _TIMES,
    "ChunkingTests.testChunks": "a function of Twisted's",
    "ChunkingTests.testConcatenatedChunks": "a function of Twisted's",
    "ChunkingTests.test_multipartFormData": _CHUNKS_1_0,
    "ParsingTests.test_chunkedEncoding": _CHUNKS_1_0,
    "ParsingTests.test_formPOSTRequest": _FORMS,
    "ParsingTests.test_multipartFilesData": _FORMS,
    "ParsingTests.test_multipartFormData": _FORMS,
    "ParsingTests.test_multipartProcessingFailure": _FORMS,
    "ParsingTests.test_headerLimitPerRequest": _LIMITS,
    "ParsingTests.test_tooManyHeaders": _LIMITS,
    "ParsingTests.test_headersTooBigPerRequest": _LIMITS,
    "ParsingTests.test_headerStripWhitespace": _OBS_FOLD,
    "ParsingTests.test_headersMultiline": _OBS_FOLD,
    "ParsingTests.test_transferEncodingIdentity": "identity is no coding any more (RFC 9112)",
    "RequestTests.test_registerProducerWhenNotQueuedRegistersPullProducer": _STAND_IN,
    "RequestTests.test_registerProducerWhenNotQueuedRegistersPushProducer": _STAND_IN,
    "RequestTests.test_unregisterNonQueuedNonStreamingProducer": _STAND_IN,
    "RequestTests.test_unregisterNonQueuedStreamingProducer": _STAND_IN,
    "RequestTests.test_requestBodyTimeoutFromFactory": _TIMES,
    "RequestTests.test_finishProducesLog": "a log of HTTPFactory; TestRespond tests ours",
    "RequestTests.test_stopFactoryInvalidState": "a log of HTTPFactory",
    "RequestTests.test_lastModifiedAlreadyWritten": "expects a log message; the response is equal",
    "ChannelProductionTests.test_HTTPChannelPropagatesPausedProductionToRequest": _GARBAGE,
    "ChannelProductionTests.test_HTTPChannelStaysPausedWhenRequestCompletes": _GARBAGE,
    "ChannelProductionTests.test_HTTPChannelUnregistersSelfWhenTimingOut": _TIMES,
    "ChannelProductionTests.test_HTTPChannelToleratesDataWhenTransportPaused": (
        "expects a response to a full transport; ours waits until it has room"
    ),
}
# The same tests, inherited from HTTP1_0Tests.
EXCLUDED |= {
    name.replace("HTTP1_0Tests", heir): reason
    for name, reason in EXCLUDED.items()
    for heir in ("HTTP1_1Tests", "HTTP1_1_close_Tests")
    if name.startswith("HTTP1_0Tests")
}


class TwistedRequest(Request):
    """Our request, created as in Twisted's tests, without the standard headers."""

    defaultContentType = None

    def __init__(self, channel: Any, head: object = None, body: bytes = b"") -> None:
        if not isinstance(head, Head):
            parts = (b"(no method yet)", b"(no uri yet)", b"(no clientproto yet)")
            head = Head(*parts, HeaderBlock(b"\r\n\r\n"), 0, True, False)
        if not isinstance(channel, Channel):
            channel = FakeChannelAdapter(channel)
        channel._request = self
        channel._state = RESPONDING
        super().__init__(channel, head, body)
        self.responseHeaders = Headers()


TwistedRequest.__name__ = "Request"


def ours(kind: type[Any]) -> type[TwistedRequest]:
    """`kind`, a request class of a test, rebased on our request."""
    if issubclass(kind, TwistedRequest):
        return kind
    return type(kind.__name__, (kind, TwistedRequest), {})


class TwistedChannel(Channel):
    """Our channel, created and inspected as in Twisted's tests."""

    def __init__(self) -> None:
        self.clock = Clock()
        # Twisted limits pipelined requests by their size only.
        limits = HTTPLimits(pipelined=1_000_000)
        server = Server(resource=Leaf(brief), clock=self.clock, limits=limits, problem=problem)
        super().__init__(server.state)
        self._server.request_factory = TwistedRequest

    @property
    def requestFactory(self) -> Any:
        return self._server.request_factory

    @requestFactory.setter
    def requestFactory(self, kind: type[Any]) -> None:
        self._server.request_factory = ours(kind)

    @property
    def requests(self) -> list[Any]:
        class Proxy:
            original = self._request

        return [] if self._request is None else [Proxy]

    @property
    def _requestProducer(self) -> Any:
        return self._flow._producer

    @property
    def _optimisticEagerReadSize(self) -> int:
        return self._server.limits.pipelined_bytes

    @_optimisticEagerReadSize.setter
    def _optimisticEagerReadSize(self, size: int) -> None:
        self._server.limits = attrs.evolve(self._server.limits, pipelined_bytes=size)


class FakeChannelAdapter(TwistedChannel):
    """Our channel in front of a fake channel that a test created for a single request."""

    def __init__(self, channel: Any) -> None:
        super().__init__()
        self._made_up = channel
        self._flow = FlowControl(channel.transport)

    @property
    def transport(self) -> Any:
        return self._made_up.transport

    @transport.setter
    def transport(self, transport: Any) -> None:
        pass


class TwistedHTTP(ModuleType):
    """`twisted.web.http` with our channel and request in it."""

    HTTPChannel = TwistedChannel
    Request = TwistedRequest

    def __getattr__(self, name: str) -> Any:
        return getattr(http, name)


@pytest.fixture(autouse=True)
def _ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "http", TwistedHTTP("http"))
    monkeypatch.setattr(suite, "_makeRequestProxyFactory", lambda kind: kind)
    monkeypatch.setattr(suite, "StringTransport", BridgedTransport)
    for name in ("DummyHTTPHandler", "DelayedHTTPHandler", "DummyPullProducerHandler"):
        monkeypatch.setattr(suite, f"{name}Proxy", getattr(suite, name))


def with_host(data: bytes) -> bytes:
    """`data`, which are requests, with a Host header in those of HTTP/1.1 if there is none."""
    if re.search(rb"(?i)\nHost:", data):
        return data
    return re.sub(rb"(HTTP/1\.1\r?\n)", rb"\1Host: a\r\n", data)


_STANDARD = re.compile(rb"(?m)^(?:Server|Date|X-Request-ID|X-Content-Type-Options): .*\r\n")
_CLOSE_1_0 = re.compile(rb"(HTTP/1\.0 .*\r\n(?:.+\r\n)*?)Connection: close\r\n")
_REFUSAL = re.compile(
    rb"HTTP/1\.1 (?:4\d\d|50[15]) .*\r\nContent-Type: application/problem\+json\r\n"
    rb"Content-Length: \d+\r\nConnection: close\r\n\r\n(?:\{.*\})?$"
)


class BridgedTransport(StringTransport):
    """Removes from what was written what Twisted's channel would not have written."""

    def value(self) -> bytes:
        written: bytes = super().value()  # type: ignore[no-untyped-call]
        written = _CLOSE_1_0.sub(rb"\1", _STANDARD.sub(b"", written))
        return _REFUSAL.sub(b"HTTP/1.1 400 Bad Request\r\n\r\n", written)


class Bridged:
    """Adds a Host header where Twisted's tests send none."""

    assertFailure = TestCase.assertFailure

    def runRequest(self: Any, httpRequest: bytes, *args: Any, **kwargs: Any) -> Any:
        return suite.ParsingTests.runRequest(self, with_host(httpRequest), *args, **kwargs)

    def runChunkedRequest(self: Any, httpRequest: bytes, *args: Any, **kwargs: Any) -> Any:
        return suite.ChunkingTests.runChunkedRequest(self, with_host(httpRequest), *args, **kwargs)


def rebuilt(kind: type[Any]) -> type[Any]:
    """`kind`, a test class, as a synchronous test case with `Bridged` mixed in."""
    members: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__ == suite.__name__:
            members |= vars(base)
    for name in ("__dict__", "__weakref__", *vars(Bridged)):
        members.pop(name, None)
    for name, member in members.items():
        if isinstance(member, bytes) and name.startswith("request"):
            members[name] = with_host(member)
    for name in members:
        if f"{kind.__name__}.{name}" in EXCLUDED:
            members[name] = None
    return type(kind.__name__, (Bridged, SynchronousTestCase), members)


THEIRS: dict[str, type[Any]] = {
    name: kind
    for name, kind in vars(suite).items()
    if isinstance(kind, type)
    and issubclass(kind, unittest.TestCase)
    and kind.__module__ == suite.__name__
}

# For pytest to find.
globals().update({name: rebuilt(kind) for name, kind in THEIRS.items() if name not in ELSEWHERE})

pytestmark = pytest.mark.filterwarnings("ignore:.*getClientIP was deprecated:DeprecationWarning")


def test_what_is_left_out_exists() -> None:
    tests = {
        f"{name}.{test}" for name, kind in THEIRS.items() for test in dir(kind) if "test" in test
    }
    assert tests >= EXCLUDED.keys()
    assert THEIRS.keys() >= ELSEWHERE.keys()
