"""A connection: what is written to it, what it must have done by when, and how it ends."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress, IPushProducer, ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chatd.http.pull_producer import PullProducerAdapter

if TYPE_CHECKING:
    from chatd.http.server import Server
    from chatd.http.timeouts import TimeoutQueue

_log = Logger()

# What the connection is doing, in the order in which it can end.
FRESH = 0  # Nothing has come yet.
HEAD = 1  # A head is awaited, or has come in part.
BODY = 2  # A body is awaited, or has come in part.
ANSWERING = 3
LINGERING = 4  # The last answer is out; what still comes is discarded.
CLOSED = 5


@implementer(IPushProducer)
class Connection:
    """The transport's side of a `chatd.http.channel.Channel`, which says what to read and when."""

    __slots__ = (
        "_blocked",
        "_deadline",
        "_eager",
        "_paused",
        "_peer",
        "_producer",
        "_state",
        "_unsent",
        "_wanted",
        "server",
        "transport",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self.transport: Any = None
        self._state = FRESH
        self._deadline: TimeoutQueue[Any] | None = None
        self._peer: IAddress | None = None
        # Bytes: of the body to come, or to be discarded while lingering.
        self._wanted = 0
        # Of the request under way, a push producer.
        self._producer: Any = None
        # The transport has more to send than it likes.
        self._blocked = False
        # The transport was told not to read.
        self._paused = False
        # Bytes that `has_read` has found unsent.
        self._unsent = sys.maxsize
        # Only Twisted's own TCP transport is known well enough to write past its buffer.
        self._eager = False

    def _advance(self) -> None:
        """Go on reading requests."""
        raise NotImplementedError

    def _regulate(self) -> None:
        """Read only what there is room for."""
        raise NotImplementedError

    def makeConnection(self, transport: Any) -> None:
        """`IProtocol`: begin."""
        self.transport = transport
        self._eager = type(transport) is tcp.Server and hasattr(transport, "_tempDataBuffer")
        for option in ("setTcpNoDelay", "setTcpKeepAlive"):
            switch = getattr(transport, option, None)
            if switch is not None:
                # A UNIX socket has the methods and not the options; a TCP one may be gone already.
                with contextlib.suppress(OSError):
                    switch(True)
        # To learn when the client does not read: then its next requests are not read either.
        transport.registerProducer(self, True)

    def connectionMade(self) -> None:
        """`IProtocol`: nothing more."""

    def pauseProducing(self) -> None:
        """`IPushProducer`: the transport has enough to send."""
        self._blocked = True
        if self._producer is not None:
            self._producer.pauseProducing()
        self._regulate()

    def resumeProducing(self) -> None:
        """`IPushProducer`: the transport has room again."""
        self._blocked = False
        if self._producer is not None:
            self._producer.resumeProducing()
        if self._state <= BODY:
            self._advance()

    def stopProducing(self) -> None:
        """`IPushProducer`: the transport is gone, or going."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    # What is written.

    def write(self, data: bytes) -> None:
        """Send `data`, at once if nothing waits before it.

        `transport.write` would have the reactor watch the socket for one turn, which costs two
        system calls an answer; nearly always the socket takes the answer here and now.
        """
        transport = self.transport
        if (
            self._eager
            and not transport.dataBuffer
            and not transport._tempDataBuffer
            and transport.connected
            and not transport.disconnecting
        ):
            try:
                sent = transport.socket.send(data)
            except OSError:
                # Full, or broken: the transport will find out which, and tell.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        """`write`, joined."""
        self.write(b"".join(pieces))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """`IConsumer`, for the request under way. Raises RuntimeError if there is a producer."""
        if self._producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self._producer} was never "
                "unregistered."
            )
        if streaming:
            self._producer = producer
            if self._blocked:
                producer.pauseProducing()
        else:
            self._producer = pump = PullProducerAdapter(
                producer, self.server.clock, self._producer_failed
            )
            if not self._blocked:
                pump.resumeProducing()

    def unregisterProducer(self) -> None:
        """`IConsumer`: no more comes from the producer."""
        producer, self._producer = self._producer, None
        if isinstance(producer, PullProducerAdapter):
            producer.stop()

    def _producer_failed(self, reason: Failure) -> None:
        _log.failure("A producer failed", reason)
        self.abort()

    def getPeer(self) -> IAddress:
        """The client's address, as a PROXY header before the first request may have named it."""
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

    def has_read(self) -> bool:
        """Whether less is left to be sent than when this was asked last; asking remembers."""
        transport = self.transport
        left: int
        try:
            left = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        except AttributeError:  # not a transport that tells, such as TLS
            left = 0
        before, self._unsent = self._unsent, left
        return 0 < left < before

    # The end.

    def _linger(self) -> None:
        """Close so that the last answer arrives (RFC 9112 section 9.6).

        A socket that is closed with unread input sends RST, at which the client's side discards
        what it has not read yet. So only the sending side is closed, and input discarded, until the
        client closes or has had its time. TLS has no half-closed state: there the client goes by
        Connection: close.
        """
        self._leave_transport()
        self._state = LINGERING
        self._wanted = self.server.limits.linger_bytes
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if self.isSecure():
            pass
        elif half_close is not None:
            half_close()
        else:
            self.loseConnection()
            return
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()
        self._await(self.server.closing_soon)

    def loseConnection(self) -> None:
        """Close after what was written has been sent; aborted if that takes too long."""
        if self._state == CLOSED:
            return
        self._leave_transport()
        self._state = CLOSED
        self._await(self.server.flushing)
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once; what was written may be lost."""
        self._leave_transport()
        self._state = CLOSED
        abort = getattr(self.transport, "abortConnection", self.transport.loseConnection)
        abort()

    def _leave_transport(self) -> None:
        if self._state < LINGERING:
            self.transport.unregisterProducer()

    def _await(self, queue: TimeoutQueue[Any] | None) -> None:
        """Have the deadline of `queue`, from now unless it is the one already running."""
        old = self._deadline
        if old is not queue:
            if old is not None:
                old.leave(self)
            self._deadline = queue
            if queue is not None:
                queue.enter(self)
