"""An HTTP/1.1 connection (RFC 9112): heads are read by llhttp, requests handed to resources.

One request is read and answered at a time. What a client sends behind it waits as bytes, unread,
up to a bound at which reading pauses: so answers cannot change places, an ill-formed request is
answered after the good ones before it, and a held request costs no parser and no queue.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chatd.http.chunked import ChunkedBody
from chatd.http.connection import ANSWERING, BODY, CLOSED, FRESH, HEAD, LINGERING, Connection
from chatd.http.head import (
    CHUNKED,
    Head,
    HeaderBlock,
    HTTPError,
    accept,
    check_line,
    feed,
    head_too_large,
    new_parser,
)
from chatd.http.request_ids import HEADER
from chatd.http.response_head import status_line

if TYPE_CHECKING:
    from httptools import HttpRequestParser

    from chatd.http.request import Request
    from chatd.http.server import Server

_log = Logger()

_END = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")


@implementer(IProtocol)
class Channel(Connection):
    """One connection of a `chatd.http.server.Server`.

    To the transport it is a protocol, and the producer of what is written to it. To a request it is
    where the answer goes.
    """

    __slots__ = (
        "_advancing",
        "_body",
        "_buffer",
        "_fed",
        "_full",
        "_head",
        "_known",
        "_parser",
        "_request",
        "_yielded",
        "persistent",
    )

    def __init__(self, server: Server, *, full: bool = False) -> None:
        super().__init__(server)
        # The server has no room: whatever is asked is refused.
        self._full = full
        # False: the connection ends with the answer under way.
        self.persistent = True
        self._request: Request | None = None
        # What has come and was not taken.
        self._buffer = b""
        # How much of the head in `_buffer` the parser has seen.
        self._fed = 0
        self._parser: HttpRequestParser | None = None
        self._head: Head | None = None
        # The header lines of the last request.
        self._known: HeaderBlock | None = None
        self._body: list[bytes] | ChunkedBody | None = None
        # `_advance` is on the stack.
        self._advancing = False
        # `_advance` goes on in the reactor's next turn.
        self._yielded: IDelayedCall | None = None

    @property
    def factory(self) -> Server:
        """The server, by the name that twisted.web has for it."""
        return self.server

    site = factory

    # The transport's side.

    def makeConnection(self, transport: Any) -> None:
        """`IProtocol`: begin."""
        super().makeConnection(transport)
        server = self.server
        server.channels.add(self)
        self._await(server.closing_soon if server.draining else server.awaiting_head)

    def dataReceived(self, data: bytes) -> None:
        """`IProtocol`: the client has sent something."""
        state = self._state
        if state <= BODY:
            self._buffer = self._buffer + data if self._buffer else data
            self._advance()
        elif state == ANSWERING:
            self._buffer += data
            self._regulate()
        elif state == LINGERING:
            self._wanted -= len(data)
            if self._wanted < 0:
                self.loseConnection()

    def connectionLost(self, reason: Failure) -> None:
        """`IProtocol`: the connection is gone."""
        self._state = CLOSED
        self._await(None)
        if self._yielded is not None:
            self._yielded.cancel()
            self._yielded = None
        self.server.closed(self)
        self._forget()
        self.stopProducing()
        request, self._request = self._request, None
        if request is not None:
            request.connectionLost(reason)

    # From bytes to requests.

    def _advance(self) -> None:
        """Read requests from the buffer until one is held, or more must come."""
        if self._advancing or self._yielded is not None:
            return
        self._advancing = True
        turns = self.server.limits.pipelined
        try:
            if self._full and self._buffer:
                raise HTTPError(503, "overloaded", "The server has no room for more connections.")
            while self._buffer and self._state <= BODY and not self._blocked:
                if turns < 0:
                    # One read may hold thousands of requests; other connections have their turn.
                    self._yielded = self.server.clock.callLater(0, self._go_on)
                    break
                turns -= 1
                more = self._take_body() if self._state == BODY else self._take_head()
                if not more:
                    break
        except HTTPError as error:
            self._refuse(error)
        finally:
            self._advancing = False
        state = self._state
        if state <= HEAD:
            if self._fed:
                self._await(self.server.awaiting_head)
            elif state == HEAD:
                self._await(self.server.sending if self._blocked else self.server.idle)
        if self._blocked or self._paused or self._yielded or state == ANSWERING:
            self._regulate()

    def _go_on(self) -> None:
        self._yielded = None
        self._advance()

    def _take_head(self) -> bool:
        """Begin the request whose head the buffer starts with; false if more must come."""
        data = self._buffer
        if data[0] == 13 or data[0] == 10:
            data = self._skip_empty_lines()
            if not data:
                return False
        self._state = HEAD
        limits = self.server.limits
        size = data.find(_END) + 4
        if size < 4 or size > limits.head_bytes:
            return self._take_part(data)
        if size == len(data):
            raw = data
            self._buffer = b""
        else:
            raw = data[:size]
            self._buffer = data[size:]
        try:
            if self._parser is None:
                upgrade = feed(new_parser(), raw)
            else:
                upgrade = feed(self._parser, raw[self._fed :])
                self._parser = None
                self._fed = 0
            head = accept(raw, limits, upgrade, self._known)
        except HTTPError:
            self._buffer = raw
            raise
        self._known = head.fields
        length = head.length
        if length == 0:
            self._begin(head, b"")
            return True
        self._head = head
        self._state = BODY
        if length == CHUNKED:
            self._body = ChunkedBody(limits)
        else:
            self._body = []
            self._wanted = length
        if head.expects_continue:
            self.write(_CONTINUE)
        self._await(self.server.awaiting_body)
        return True

    def _skip_empty_lines(self) -> bytes:
        # RFC 9112 section 2.2: some clients send one after a body.
        match = _EMPTY_LINES.match(self._buffer)
        if match is not None:
            self._buffer = self._buffer[match.end() :]
        if self._buffer in (b"", b"\r"):
            return b""
        if self._buffer[0] == 13 or self._buffer[0] == 10:
            raise HTTPError(400, "bad_request", "A bare CR or LF before the request line.")
        return self._buffer

    def _take_part(self, data: bytes) -> bool:
        """Look at a head that is not whole, or too large, as far as it may go."""
        limits = self.server.limits
        if self._parser is None:
            self._parser = new_parser()
        part = data[: limits.head_bytes]
        feed(self._parser, part[self._fed :])
        self._fed = len(part)
        if len(data) > limits.head_bytes:
            check_line(part, limits)
            raise head_too_large(limits)
        return False

    def _take_body(self) -> bool:
        """Take what has come of the body; false if more must come."""
        data = self._buffer
        body = self._body
        head = self._head
        assert head is not None
        if isinstance(body, ChunkedBody):
            self._buffer = body.feed(data)
            if not body.complete:
                return False
            whole = body.body()
        else:
            assert body is not None
            wanted = self._wanted
            if len(data) < wanted:
                body.append(data)
                self._wanted = wanted - len(data)
                self._buffer = b""
                return False
            if len(data) == wanted:
                body.append(data)
                self._buffer = b""
            else:
                body.append(data[:wanted])
                self._buffer = data[wanted:]
            whole = body[0] if len(body) == 1 else b"".join(body)
        self._head = self._body = None
        self._begin(head, whole)
        return True

    def _begin(self, head: Head, body: bytes) -> None:
        self._state = ANSWERING
        self._await(None)
        self.persistent = head.persistent
        server = self.server
        request = self._request = server.requestFactory(self, head, body, server.clock.seconds())
        try:
            request.process()
        except BaseException:
            # `process` answers what a resource raises; this is an answer that failed.
            _log.failure("A request could not be answered")
            self.abort()

    def _regulate(self) -> None:
        """Read only what there is room for."""
        if self._state == ANSWERING:
            # The connection's end is noticed only while reading, so a held request lets some in.
            limits = self.server.limits
            full = len(self._buffer) > limits.pipelined_bytes or (
                self._buffer.count(_END) > limits.pipelined
            )
        else:
            full = (self._blocked or self._yielded is not None) and self._state <= BODY
        if full is not self._paused and self._state < CLOSED:
            self._paused = full
            if full:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    # The request's side.

    def may_persist(self) -> bool:
        """Whether the connection is to stay open after the answer under way."""
        return self.persistent and not self.server.draining

    def answered(self, persistent: bool) -> None:
        """The request has its whole answer; read the next one if the connection is `persistent`."""
        self._request = None
        if self._state != ANSWERING:
            return
        if persistent:
            self._state = HEAD
            self._advance()
        elif self._buffer or self._paused or self.persistent:
            # The client may be sending more: see `_linger`.
            self._linger()
        else:
            self.loseConnection()

    # The end.

    def _refuse(self, error: HTTPError) -> None:
        """Answer with a problem; the connection ends, since nothing behind it can be trusted."""
        if self._head is None:
            bodiless = self._buffer.startswith(b"HEAD ")
            lines = self._buffer
        else:
            bodiless = self._head.method == b"HEAD"
            lines = self._head.fields.block
        server = self.server
        try:
            body = server.problem(error.status, error.code, error.detail)
        except Exception:
            _log.failure("No problem document could be made")
            body = b""
        self.write(
            b"%b%b%b: %b\r\n%bContent-Type: application/problem+json\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%b"
            % (
                status_line(b"HTTP/1.1", error.status),
                server.standard.refresh(),
                HEADER,
                server.request_ids.in_head(lines),
                b"Retry-After: 1\r\n" if error.status == 503 else b"",
                len(body),
                b"" if bodiless else body,
            )
        )
        self._linger()

    def _linger(self) -> None:
        self._forget()
        super()._linger()

    def drain(self) -> None:
        """Close if idle. A connection on which nothing has come yet gets a moment to speak."""
        if self._state == HEAD and not self._buffer:
            self.loseConnection()
        elif self._state == FRESH and not self._buffer:
            self._await(self.server.closing_soon)

    def _forget(self) -> None:
        self._buffer = b""
        self._fed = 0
        self._parser = self._head = self._known = self._body = None

    # Deadlines.

    def head_is_late(self) -> None:
        """No head came, or not all of it."""
        self._deadline = None
        if self._fed:
            self._refuse(
                HTTPError(408, "request_timeout", "The head of the request took too long.")
            )
        else:
            self.loseConnection()

    def body_is_late(self) -> None:
        """Not all of the body came."""
        self._deadline = None
        self._refuse(HTTPError(408, "request_timeout", "The body of the request took too long."))

    def is_idle(self) -> None:
        """No further request came, or the client did not close."""
        self._deadline = None
        self.loseConnection()

    def is_stalled(self) -> None:
        """The client has had its time to read some of a large answer."""
        self._deadline = None
        if self.has_read():
            self._await(self.server.sending)
        else:
            self.abort()

    def is_stuck(self) -> None:
        """The client has had its time to read some of what was left for it."""
        self._deadline = None
        if self.has_read():
            self._await(self.server.flushing)
        else:
            self.abort()
