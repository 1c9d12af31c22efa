"""An HTTP/1.1 connection (RFC 9112): reads requests, and has resources respond to them.

One request is read and answered at a time. What a client sends after it stays in the buffer,
unparsed, up to a limit at which reading pauses. So responses keep their order, a malformed request
is answered after the valid ones before it, and a held request needs neither parser nor queue.
"""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ISSLTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chatd.http.admission import NO_ROOM
from chatd.http.connection_states import CLOSED, LINGERING, NEW, READING, RESPONDING
from chatd.http.eager_write import can_write_eagerly, unsent_bytes, write_eagerly
from chatd.http.error_response import error_response
from chatd.http.errors import HTTPError, received_full, request_timeout, unsent_full
from chatd.http.fast_handler import PendingResponse
from chatd.http.flow_control import FlowControl
from chatd.http.head import Head
from chatd.http.received import SMALL_BYTES
from chatd.http.request import Request
from chatd.http.request_reader import RequestReader
from chatd.http.response_head import status_line, whole_response
from chatd.http.server_state import Connection, ServerState
from chatd.http.site import Site
from chatd.http.tcp_state import has_ended
from chatd.http.timeouts import TimeoutQueue
from chatd.http.turns import host_of

_log = Logger()

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@implementer(IProtocol, IHalfCloseableProtocol, IPushProducer)
class Channel:
    """One connection of a `chatd.http.server.Server`.

    The transport's protocol and its producer, and the `RequestChannel` of its requests. With
    `refusal` it is told that at once. `counted` is what `Admission.leave` is called with.
    """

    __slots__ = (
        "_advancing",
        "_deadline",
        "_discardable",
        "_eager",
        "_ended",
        "_flow",
        "_holds",
        "_keep_alive",
        "_large_head",
        "_peer",
        "_reader",
        "_refusal",
        "_request",
        "_server",
        "_state",
        "_waits",
        "counted",
        "site",
        "transport",
    )

    def __init__(
        self,
        server: ServerState,
        counted: tuple[str, ...] = (),
        refusal: HTTPError | None = None,
    ) -> None:
        self.site: Site = server.site
        self.transport: Any = None
        self._server = server
        self.counted = counted
        """The networks of its address, where its amounts are counted as well."""
        self._refusal = refusal
        self._state: int = NEW
        self._reader = RequestReader(server.limits)
        self._request: PendingResponse | None = None
        self._keep_alive = True
        self._deadline: TimeoutQueue[Connection] | None = None
        self._peer: IAddress | None = None
        self._eager = False
        # Whether `_advance` is on the stack, and whether it waits for a turn.
        self._advancing = False
        self._waits = False
        # Whether what it has received is counted.
        self._holds = False
        # The size of the head of the request that is being answered; 0 if that is small.
        self._large_head = 0
        # How many bytes may still be discarded while lingering.
        self._discardable = 0
        # Whether the client has closed its sending side.
        self._ended = False

    # The transport's protocol.

    def makeConnection(self, transport: Any) -> None:
        """`IProtocol`: the connection is open."""
        server = self._server
        self.transport = transport
        self._flow = FlowControl(transport)
        self._eager = server.eager_write and can_write_eagerly(transport)
        if self.isSecure():
            self.site = server.secure_site
        for option in ("setTcpNoDelay", "setTcpKeepAlive"):
            switch = getattr(transport, option, None)
            if switch is not None:
                # A UNIX socket has the methods but not the options; a TCP one may be closed.
                with contextlib.suppress(OSError):
                    switch(True)
        # To learn when the client does not read: then its next requests are not read either.
        transport.registerProducer(self, True)
        server.connections.add(self)
        if self._refusal is not None:
            if self._refusal is NO_ROOM:
                self.abort()
            else:
                self._refuse(self._refusal)
            return
        server.admission.opened(self.counted, self)
        self._set_deadline(server.lingering if server.draining else server.awaiting_head)

    def connectionMade(self) -> None:
        """`IProtocol`: nothing more to do."""

    def dataReceived(self, data: bytes) -> None:
        """`IProtocol`: the client has sent `data`."""
        state = self._state
        if state <= READING and not self._waits:
            self._reader.feed(data)
            self._advance()
        elif state <= RESPONDING:
            self._reader.feed(data)
            try:
                self._count_received()
            except HTTPError as error:
                self._refuse(error)
            else:
                self._update_read_pause()
        elif state == LINGERING:
            self._discardable -= len(data)
            if self._discardable < 0:
                self.loseConnection()

    def readConnectionLost(self) -> None:
        """`IHalfCloseableProtocol`: the client sends no more. It may be gone, or still read.

        Nothing tells which, so what it has asked for is answered if that takes no longer than a
        connection lingers; the held polls of clients that are gone must not stay longer.
        """
        self._ended = True
        if self._state == RESPONDING:
            self._set_deadline(self._server.lingering)
        elif not self._waits and not (self._flow.write_paused and self._reader.buffer):
            self.loseConnection()

    def writeConnectionLost(self) -> None:
        """`IHalfCloseableProtocol`: the sending side is closed, as `_linger` has asked for."""

    def connectionLost(self, reason: Failure) -> None:
        """`IProtocol`: the connection is closed."""
        server = self._server
        self._state = CLOSED
        self._set_deadline(None)
        self._waits = False
        server.remove(self)
        server.admission.leave(self.counted, self)
        server.unsent.remove(self)
        self._clear()
        self._flow.stop_producer()
        request, self._request = self._request, None
        if request is not None:
            request.connectionLost(reason)
            if isinstance(request, Request):
                server.log_request(request)

    # The transport's producer.

    def pauseProducing(self) -> None:
        """`IPushProducer`: the transport has enough to send."""
        self._flow.pause_writing()
        self._update_read_pause()

    def resumeProducing(self) -> None:
        """`IPushProducer`: the transport has room again."""
        self._flow.resume_writing()
        if self._state <= READING:
            self._advance()

    def stopProducing(self) -> None:
        """`IPushProducer`: the transport is closing."""
        self._flow.stop_producer()

    # Reading requests.

    def _advance(self, granted: bool = False) -> None:
        """Read requests until one waits for its response, more data is needed or others have their
        turn. The first one is handled in any case if that is `granted`."""
        if self._advancing or self._waits:
            return
        self._advancing = True
        server = self._server
        reader = self._reader
        flow = self._flow
        turns = server.limits.pipelined
        try:
            unsent = server.unsent
            if unsent.connections and reader.buffer and unsent.refuses(self.counted):
                raise unsent_full()
            while reader.buffer and self._state <= READING and not flow.write_paused:
                if granted:
                    granted = False
                elif turns < 0 or not server.turns.admits():
                    address = self._turn_address()
                    if turns < 0 or not server.turns.admits_first(address):
                        # One read may hold thousands of requests, so let other connections proceed.
                        self._waits = True
                        server.turns.wait(self, address)
                        break
                turns -= 1
                head = reader.head
                if head is None:
                    head = reader.read_head()
                    if head is None:
                        break
                    if head.length != 0:
                        self._await_body(head)
                        continue
                    self._begin(head, b"")
                else:
                    body = reader.read_body()
                    if body is not None:
                        self._begin(head, body)
            if reader.buffer or reader.head is not None or self._holds:
                self._count_received()
        except HTTPError as error:
            self._refuse(error)
        finally:
            self._advancing = False
        state = self._state
        if state <= READING:
            if self._ended and not self._waits and not (flow.write_paused and reader.buffer):
                self.loseConnection()
                return
            if reader.parsed:
                self._state = READING
                self._set_deadline(server.awaiting_head)
            elif state == READING and reader.head is None:
                self._set_deadline(server.sending if flow.write_paused else server.idle)
        if flow.write_paused or flow.read_paused or self._waits or state == RESPONDING:
            self._update_read_pause()

    def _turn_address(self) -> str:
        """Whose turns the next request takes."""
        client_of = self._server.client_of
        host = host_of(self.getPeer())
        if client_of is None:
            return host
        reader = self._reader
        return client_of(host, reader.buffer if reader.head is None else reader.head.headers.block)

    def _count_received(self) -> None:
        """Count what is kept of requests; raises `HTTPError` if that is too much, or closes the
        connection if a response is being prepared, before which nothing may be written."""
        size = self._reader.size + self._large_head
        if isinstance(self._request, Request):
            size += len(self._request.body)
        received = self._server.received
        self._holds = bool(size)
        if not size:
            received.release(self)
        elif not received.hold(self, self.counted, size):
            self._holds = False
            if self._state != RESPONDING:
                raise received_full()
            self.abort()

    def _clear(self) -> None:
        """Forget what was received."""
        self._reader.clear()
        self._large_head = 0
        if self._holds:
            self._holds = False
            self._server.received.release(self)

    def take_turn(self) -> None:
        """`chatd.http.turns.Waiting`; the connection may be closed meanwhile."""
        if self._waits:
            self._waits = False
            self._advance(granted=True)

    def _await_body(self, head: Head) -> None:
        self._state = READING
        if head.expects_continue:
            self.write(_CONTINUE)
        self._set_deadline(self._server.awaiting_body)

    def _begin(self, head: Head, body: bytes) -> None:
        server = self._server
        size = len(head.headers.block) + len(head.target)
        if size > SMALL_BYTES:
            self._large_head = size
            try:
                self._count_received()
            except HTTPError as error:
                self._refuse(error, head)
                return
        self._state = RESPONDING
        self._set_deadline(server.lingering if self._ended else None)
        self._keep_alive = head.keep_alive
        fast = server.fast_handler
        try:
            if fast is not None and fast(self, head, body):
                return
            request = server.request_factory(self, head, body)
            self._request = request
            request.process()
            if len(body) > SMALL_BYTES and self._request is request and self._state == RESPONDING:
                # Unless it was forgotten.
                self._count_received()
        except BaseException:
            # `process` responds to errors of resources, so writing the response failed.
            _log.failure("A request could not be answered")
            self.abort()

    def _update_read_pause(self) -> None:
        """Pause reading if the client has sent enough, or does not read, and resume it if not."""
        state = self._state
        if state == RESPONDING or self._waits:
            # These must read a little, since a socket reports its end only to readers.
            pause = self._reader.has_backlog(self._server.limits)
        else:
            pause = state <= READING and self._flow.write_paused
        if state < CLOSED:
            if pause:
                self._flow.pause_reading()
            else:
                self._flow.resume_reading()

    # The channel of a `FastHandler`.

    def hold(self, pending: PendingResponse) -> None:
        """Have `pending` told if the client disconnects before the response."""
        self._request = pending

    def respond(self, headers: bytes, body: bytes, status: int = 200) -> None:
        """Write a whole response on a connection that stays open, as `Request.respond` does."""
        start = status_line(b"HTTP/1.1", status) + self.site.standard_headers.block()
        self.write(whole_response(start, headers, body))
        self.response_finished(True)

    # The channel of a request.

    def body_forgotten(self) -> None:
        """The request has released its body."""
        if self._holds and not self._advancing:
            self._count_received()

    def claim_unsent(self, owner: int | None) -> None:
        """What was written was for the account `owner`, which may be more than it reads."""
        unsent = self._server.unsent
        if unsent.connections:
            unsent.claim(self, owner)

    def keep_alive(self) -> bool:
        """Whether the connection stays open after the response."""
        # Once the server drains or the client has sent its last request, for those that have
        # arrived already.
        last = self._server.draining or self._ended
        return self._keep_alive and (not last or bool(self._reader.buffer))

    def close_after_response(self) -> None:
        """Have the connection close after the response."""
        self._keep_alive = False

    def write(self, data: bytes) -> None:
        """Send `data`, at once if the transport allows it."""
        if self._eager:
            if not write_eagerly(self.transport, data):
                self._server.unsent.add(self, self.counted)
        else:
            self.transport.write(data)
            self._server.unsent.add(self, self.counted)

    def writeSequence(self, pieces: list[bytes]) -> None:
        """`write`, for bytes in pieces."""
        self.write(b"".join(pieces))

    def response_finished(self, keep_alive: bool) -> None:
        """The response has been written; read the next request if `keep_alive`."""
        request, self._request = self._request, None
        self._large_head = 0
        if self._server.log is not None and isinstance(request, Request):
            self._server.log_request(request)
        if self._state != RESPONDING:
            return
        if keep_alive:
            self._state = READING
            self._advance()
        elif self._reader.buffer or self._flow.read_paused or self._keep_alive:
            # The client may still be sending.
            self._linger()
        else:
            self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """`IConsumer`, for the response. Raises RuntimeError if there is a producer."""
        self._flow.register_producer(producer, streaming, self._server.clock, self._producer_failed)

    def unregisterProducer(self) -> None:
        """`IConsumer`: the producer has written all it has."""
        self._flow.unregister_producer()

    def _producer_failed(self, reason: Failure) -> None:
        _log.failure("A producer failed", reason)
        self.abort()

    def getPeer(self) -> IAddress:
        """The client's address; behind a proxy, the one in a PROXY header, known at the first read.

        It is kept, since a transport builds it for each call.
        """
        if self._peer is None:
            self._peer = self.transport.getPeer()
        return self._peer

    def getHost(self) -> IAddress:
        """The address that the client connected to."""
        address: IAddress = self.transport.getHost()
        return address

    def isSecure(self) -> bool:
        """Whether the transport is TLS."""
        return ISSLTransport(self.transport, None) is not None

    # Closing.

    def _refuse(self, error: HTTPError, head: Head | None = None) -> None:
        """Respond with an error and close, since nothing after a bad request can be parsed.

        `head` is that of the request, if the reader has none of it any more.
        """
        if head is None:
            is_head, lines = self._reader.rejected()
        else:
            is_head, lines = head.method == b"HEAD", head.headers.block
        server = self._server
        request_id = server.request_ids.in_head(lines)
        more = b"" if server.error_headers is None else server.error_headers(lines)
        self.write(error_response(error, self.site, request_id, more, omit_body=is_head))
        self._linger()

    def _linger(self) -> None:
        """Close in such a way that the last response arrives (RFC 9112 section 9.6).

        A socket that is closed with unread input sends RST, at which the client's side discards
        what it has not read yet. So only the sending side is closed, and input is discarded until
        the client closes or its time is up. TLS cannot be half-closed: there the client is expected
        to act on Connection: close.
        """
        if self._ended:
            self._clear()
            self.loseConnection()
            return
        server = self._server
        self._clear()
        self._unregister_from_transport()
        self._state = LINGERING
        self._discardable = server.limits.linger_bytes
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if not self.isSecure():
            if half_close is None:
                self.loseConnection()
                return
            half_close()
        self._flow.resume_reading()
        self._set_deadline(server.lingering)

    def loseConnection(self) -> None:
        """Close after what was written has been sent; aborts if that takes too long."""
        if self._state == CLOSED:
            return
        self._unregister_from_transport()
        self._state = CLOSED
        self._set_deadline(self._server.flushing)
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once; what was written may be lost."""
        self._unregister_from_transport()
        self._state = CLOSED
        abort = getattr(self.transport, "abortConnection", self.transport.loseConnection)
        abort()

    def waits_since(self) -> float | None:
        """`chatd.http.eviction.Evictable`: since when a request, or the rest of one, is awaited.

        The first to go are those that were answered for the last time, and those whose clients
        have ended their side, and have probably gone.
        """
        server = self._server
        deadline = self._deadline
        if self._state == LINGERING:
            return None if unsent_bytes(self.transport) else 0.0
        if self._state <= RESPONDING and (self._ended or has_ended(self.transport)):
            return 0.0
        if self._waits or deadline is None:
            return None
        if deadline not in (server.idle, server.awaiting_head, server.awaiting_body):
            return None
        return deadline.since(self)

    def evict(self) -> None:
        """`chatd.http.eviction.Evictable`: close now, in an orderly way if nothing is under way."""
        if (
            self._state == LINGERING
            or self._ended
            or self._reader.size
            or self._reader.head is not None
            or unsent_bytes(self.transport)
        ):
            self.abort()
            return
        self.loseConnection()
        if self.isSecure():
            # Nobody waits for the client to say that it closes, too.
            self.transport.transport.loseConnection()

    def drain(self) -> None:
        """Close soon if no request is under way; one that arrives until then is answered."""
        reader = self._reader
        if reader.buffer or reader.head is not None:
            return
        if self._state == READING:
            self._set_deadline(self._server.idle)
        elif self._state == NEW:
            self._set_deadline(self._server.lingering)

    def _unregister_from_transport(self) -> None:
        if self._state < LINGERING:
            self.transport.unregisterProducer()

    # Deadlines.

    def _set_deadline(self, queue: TimeoutQueue[Connection] | None) -> None:
        """Replace the current deadline with that of `queue`, unless it is the same."""
        old = self._deadline
        if old is not queue:
            if old is not None:
                old.discard(self)
            self._deadline = queue
            if queue is not None:
                queue.add(self)

    def on_head_timeout(self) -> None:
        """No complete head was received."""
        self._deadline = None
        if self._reader.parsed:
            self._refuse(request_timeout("The head of the request took too long."))
        else:
            self.loseConnection()

    def on_body_timeout(self) -> None:
        """No complete body was received."""
        self._deadline = None
        self._refuse(request_timeout("The body of the request took too long."))

    def on_idle_timeout(self) -> None:
        """No further request was received, or the client did not close."""
        self._deadline = None
        self.loseConnection()

    def on_send_timeout(self) -> None:
        """A large response is still being sent: close unless the client reads."""
        self._await_progress(self._server.sending)

    def on_flush_timeout(self) -> None:
        """The connection is to be closed and still has something to send."""
        self._await_progress(self._server.flushing)

    def _await_progress(self, queue: TimeoutQueue[Connection]) -> None:
        self._deadline = None
        if self._flow.made_progress():
            self._set_deadline(queue)
        else:
            self.abort()
