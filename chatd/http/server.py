"""The factory of HTTP connections."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory
from twisted.web.resource import IResource
from zope.interface import implementer

from chatd.http.accepting import accept_in_turn
from chatd.http.admission import Admission
from chatd.http.channel import Channel
from chatd.http.fast_handler import FastHandler
from chatd.http.handshakes import take_turns
from chatd.http.limits import HTTPLimits
from chatd.http.proxy_header import read_headers
from chatd.http.received import ReceivedBytes
from chatd.http.request import Request
from chatd.http.request_ids import RequestIds
from chatd.http.response_head import StandardHeaders
from chatd.http.server_state import ServerState
from chatd.http.site import Site
from chatd.http.turns import ClientOf
from chatd.http.unsent import UnsentBytes


@implementer(IProtocolNegotiationFactory)
class Server(Factory):
    """An HTTP/1.1 server for `resource`; listen with any Twisted endpoint.

    `problem(status, code, detail)` renders the body of the error responses that the server sends
    itself: problem+json (RFC 9457). Codes are bad_request (400), method_not_allowed (405, for a
    resource that raises `UnsupportedMethod`), request_timeout (408), body_too_large (413),
    uri_too_long (414), expectation_failed (417), head_too_large (431), not_implemented (501),
    overloaded (503, for connections that `admission` refuses) and version_not_supported (505).

    `log(request)` is called once for every request when its response is finished or its client has
    disconnected (then `request.disconnected`). `clock` times connections, `now` is Unix time for
    the Date header. `eager_write` may be switched off to have all writes go through the transport.
    `fast_handler` is given each request before `resource`, unless there is a `log`. `unsent` knows
    what clients have not read yet, and `received` what they have sent in part.
    `error_headers` is given what was received of a head, and returns header lines
    (`response_head.header_block`) for an error response that the server sends itself.
    `client_of` tells the clients of proxies, which take turns.
    """

    # twistd logs the ports it listens on; a line for the factory would add nothing.
    noisy = False

    def __init__(
        self,
        *,
        resource: IResource,
        clock: IReactorTime,
        limits: HTTPLimits,
        problem: Callable[[int, str, str], bytes],
        log: Callable[[Request], object] | None = None,
        admission: Admission | None = None,
        request_ids: RequestIds | None = None,
        now: Callable[[], float] = time.time,
        eager_write: bool = True,
        fast_handler: FastHandler | None = None,
        unsent: UnsentBytes | None = None,
        received: ReceivedBytes | None = None,
        error_headers: Callable[[bytes], bytes] | None = None,
        client_of: ClientOf | None = None,
    ) -> None:
        self.resource = resource
        self.limits = limits
        self.state = ServerState(
            site=Site(resource, StandardHeaders(clock, now), problem),
            secure_site=Site(resource, StandardHeaders(clock, now, secure=True), problem),
            clock=clock,
            limits=self.limits,
            request_ids=request_ids or RequestIds(),
            log=log,
            eager_write=eager_write,
            # Only requests that reach the resource are logged.
            fast_handler=fast_handler if log is None else None,
            unsent=unsent,
            received=received,
            admission=admission,
            error_headers=error_headers,
            client_of=client_of,
        )

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self.state.connections)

    def add_port(self, port: IListeningPort) -> None:
        """A port that this server listens on was opened."""
        self.state.admission.add_port(port)
        accept_in_turn(port, self.state.clock, self.state.admission, self.state.client_of)
        take_turns(port, self.state.turns, self.state.received)
        read_headers(port)

    def set_limits(self, limits: HTTPLimits) -> None:
        """Have connections accepted from now on limited otherwise, but for times."""
        self.limits = self.state.limits = limits

    def drain(self) -> None:
        """Close connections after the response being prepared, or after one more.

        Requests that have arrived are answered. An idle connection gets a second for one that is on
        its way, and so does one that is accepted from now on. Stop listening first.
        """
        self.state.drain()
        for connection in tuple(self.state.connections):
            connection.drain()

    def abort_all(self) -> None:
        """Close every connection at once; held requests see their clients disconnect."""
        for connection in tuple(self.state.connections):
            connection.abort()

    def wait_closed(self) -> Deferred[None]:
        """Fires once no connection is open and the last one's request knows that it is closed."""
        return self.state.wait_closed()

    def buildProtocol(self, addr: IAddress | None) -> Channel:  # type: ignore[override]
        """A channel for a connection from `addr`, or one that only refuses it (503)."""
        return Channel(self.state, *self.state.admission.enter(addr))

    def acceptableProtocols(self) -> list[bytes]:
        """For ALPN (RFC 7301): HTTP/1.1 only."""
        return [b"http/1.1"]
