"""The factory of HTTP connections, and what they share."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.web.resource import IResource, getChildForRequest
from zope.interface import implementer

from chatd.http.channel import Channel
from chatd.http.limits import HTTPLimits
from chatd.http.request import Request
from chatd.http.request_ids import RequestIds
from chatd.http.response_head import StandardHeaders
from chatd.http.timeouts import Timeouts

_log = Logger()


@implementer(IProtocolNegotiationFactory)
class Server(Factory):
    """Serves `resource` on every connection it is given: listen with any Twisted endpoint.

    `problem(status, code, detail)` makes the body of an answer to what is refused before a resource
    sees it: problem+json (RFC 9457). Codes are bad_request (400), request_timeout (408),
    body_too_large (413), uri_too_long (414), expectation_failed (417), head_too_large (431),
    not_implemented (501) and version_not_supported (505); and method_not_allowed (405), for a
    resource that raises `UnsupportedMethod`.

    `log(request)` is called once for every request when its answer is finished, or when its client
    has gone away (then `request.disconnected`). Beyond `max_connections` one is answered
    503 `overloaded` and closed. `clock` times connections, `now` is Unix time for the Date header.
    """

    # What twisted.web's requests and resources look for on their site.
    requestFactory = Request
    displayTracebacks = False
    # twistd logs where it listens; a line for the factory says nothing more.
    noisy = False

    def __init__(
        self,
        *,
        resource: IResource,
        clock: IReactorTime,
        limits: HTTPLimits,
        problem: Callable[[int, str, str], bytes],
        log: Callable[[Request], object] | None = None,
        max_connections: int | None = None,
        request_ids: RequestIds | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.resource = resource
        self.clock = clock
        self.limits = limits
        self.problem = problem
        self.log = log
        self.max_connections = max_connections
        self.request_ids = request_ids or RequestIds()
        self.draining = False
        self.channels: set[Channel] = set()
        self._closed_waiters: list[Deferred[None]] = []
        self.standard = StandardHeaders(clock, now)
        deadlines = self._deadlines = Timeouts(clock)
        self.awaiting_head = deadlines.queue(limits.head_seconds, Channel.head_is_late)
        self.awaiting_body = deadlines.queue(limits.body_seconds, Channel.body_is_late)
        self.idle = deadlines.queue(limits.idle_seconds, Channel.is_idle)
        self.closing_soon = deadlines.queue(limits.linger_seconds, Channel.is_idle)
        self.sending = deadlines.queue(limits.close_seconds, Channel.is_stalled)
        self.flushing = deadlines.queue(limits.close_seconds, Channel.is_stuck)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self.channels)

    def drain(self) -> None:
        """Let connections end: idle ones now, the others with the answer under way.

        One that is accepted from here on gets one answer. Stop listening first.
        """
        self.draining = True
        for channel in tuple(self.channels):
            channel.drain()

    def abort_all(self) -> None:
        """Close every connection at once; held requests see their client go away."""
        for channel in tuple(self.channels):
            channel.abort()

    def wait_closed(self) -> Deferred[None]:
        """Fires once no connection is open and the last one's request knows that it is closed."""
        closed: Deferred[None] = Deferred()
        if self.channels:
            self._closed_waiters.append(closed)
        else:
            closed.callback(None)
        return closed

    def closed(self, channel: Channel) -> None:
        """A connection has ended: the channel's word."""
        self.channels.discard(channel)
        if not self.channels:
            self._deadlines.stop()
            waiters, self._closed_waiters = self._closed_waiters, []
            for waiter in waiters:
                self.clock.callLater(0, waiter.callback, None)

    def tell(self, request: Request) -> None:
        """Log a request that has ended: its own word."""
        if self.log is not None:
            try:
                self.log(request)
            except Exception:
                _log.failure("A request could not be logged")

    def buildProtocol(self, addr: IAddress | None) -> Channel:  # type: ignore[override]
        """A channel for a connection from `addr`, or one that only refuses it (503)."""
        full = self.max_connections is not None and self.connections >= self.max_connections
        return Channel(self, full=full)

    def getResourceFor(self, request: Request) -> IResource:
        """The resource for `request`: the root if it is a leaf, else as twisted.web finds it."""
        if self.resource.isLeaf:
            return self.resource
        found: IResource = getChildForRequest(self.resource, request)
        return found

    def acceptableProtocols(self) -> list[bytes]:
        """For ALPN (RFC 7301): HTTP/1.1 only."""
        return [b"http/1.1"]
