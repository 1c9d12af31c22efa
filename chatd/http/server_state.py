"""State shared by the connections of one server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chatd.http.admission import Admission
from chatd.http.fast_handler import FastHandler
from chatd.http.limits import HTTPLimits
from chatd.http.received import ReceivedBytes
from chatd.http.request import Request
from chatd.http.request_ids import RequestIds
from chatd.http.site import Site
from chatd.http.timeouts import Timeouts
from chatd.http.turns import ClientOf, Turns
from chatd.http.unsent import UnsentBytes

_log = Logger()


class Connection(Protocol):
    """A connection, as its server uses it. Each `on_..._timeout` is called when a deadline passed
    that the connection had set, after the deadline has been removed."""

    def drain(self) -> None:
        """Close soon if idle, otherwise after the next response."""

    def abort(self) -> None:
        """Close at once."""

    def on_head_timeout(self) -> None:
        """No complete head was received."""

    def on_body_timeout(self) -> None:
        """No complete body was received."""

    def on_idle_timeout(self) -> None:
        """No further request was received, or the client did not close a lingering connection."""

    def on_send_timeout(self) -> None:
        """A large response is still being sent."""

    def on_flush_timeout(self) -> None:
        """A connection to be closed still has something to send."""


class ServerState:
    """Settings, open connections and deadlines of a server."""

    __slots__ = (
        "_closed_waiters",
        "_last_request",
        "admission",
        "awaiting_body",
        "awaiting_head",
        "client_of",
        "clock",
        "connections",
        "draining",
        "eager_write",
        "error_headers",
        "fast_handler",
        "flushing",
        "idle",
        "limits",
        "lingering",
        "log",
        "received",
        "request_factory",
        "request_ids",
        "secure_site",
        "sending",
        "site",
        "timeouts",
        "turns",
        "unsent",
    )

    def __init__(
        self,
        *,
        site: Site,
        secure_site: Site,
        clock: IReactorTime,
        limits: HTTPLimits,
        request_ids: RequestIds,
        log: Callable[[Request], object] | None,
        eager_write: bool,
        fast_handler: FastHandler | None,
        unsent: UnsentBytes | None,
        received: ReceivedBytes | None,
        admission: Admission | None,
        error_headers: Callable[[bytes], bytes] | None,
        client_of: ClientOf | None,
    ) -> None:
        self.site = site
        self.secure_site = secure_site
        self.clock = clock
        self.limits = limits
        self.request_ids = request_ids
        self.log = log
        self.eager_write = eager_write
        self.fast_handler = fast_handler
        self.error_headers = error_headers
        self.client_of = client_of
        self.request_factory = Request
        self.connections: set[Connection] = set()
        self.draining = False
        self.admission = admission or Admission()
        self.turns = Turns(clock)
        self.unsent = unsent or UnsentBytes(clock.seconds)
        self.received = received or ReceivedBytes()
        # With the calls that are about to fire them.
        self._closed_waiters: dict[Deferred[None], IDelayedCall | None] = {}
        # One queue for each deadline that a connection may have.
        timeouts = self.timeouts = Timeouts(clock)
        self.awaiting_head = timeouts.queue(limits.head_seconds, _on_head_timeout)
        self.awaiting_body = timeouts.queue(limits.body_seconds, _on_body_timeout)
        self.idle = timeouts.queue(limits.idle_seconds, _on_idle_timeout)
        self._last_request = timeouts.queue(limits.last_request_seconds, _on_idle_timeout)
        self.lingering = timeouts.queue(limits.linger_seconds, _on_idle_timeout)
        self.sending = timeouts.queue(limits.close_seconds, _on_send_timeout)
        self.flushing = timeouts.queue(limits.close_seconds, _on_flush_timeout)

    def drain(self) -> None:
        """From now on each connection gets one more response, and idle ones are closed soon."""
        self.draining = True
        self.idle = self._last_request

    def remove(self, connection: Connection) -> None:
        """`connection` has ended."""
        self.connections.discard(connection)
        if not self.connections:
            self.timeouts.stop()
            self.turns.stop()
            for waiter, call in self._closed_waiters.items():
                if call is None:
                    # Later, since the last connection's request does not know yet.
                    telling = self.clock.callLater(0, self._tell_closed, waiter)
                    self._closed_waiters[waiter] = telling

    def wait_closed(self) -> Deferred[None]:
        """Fires once no connection is open and the last one's request knows that it is closed."""
        closed: Deferred[None] = Deferred(self._give_up_waiting)
        if self.connections:
            self._closed_waiters[closed] = None
        else:
            closed.callback(None)
        return closed

    def _tell_closed(self, closed: Deferred[None]) -> None:
        del self._closed_waiters[closed]
        closed.callback(None)

    def _give_up_waiting(self, closed: Deferred[None]) -> None:
        if (call := self._closed_waiters.pop(closed)) is not None:
            call.cancel()

    def log_request(self, request: Request) -> None:
        """Call `log`. Errors that it raises are logged."""
        if self.log is not None:
            try:
                self.log(request)
            except Exception:
                _log.failure("A request could not be logged")


def _on_head_timeout(connection: Connection) -> None:
    connection.on_head_timeout()


def _on_body_timeout(connection: Connection) -> None:
    connection.on_body_timeout()


def _on_idle_timeout(connection: Connection) -> None:
    connection.on_idle_timeout()


def _on_send_timeout(connection: Connection) -> None:
    connection.on_send_timeout()


def _on_flush_timeout(connection: Connection) -> None:
    connection.on_flush_timeout()
