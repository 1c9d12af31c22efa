"""The request that resources are given: what came, and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.error import UnsupportedMethod
from twisted.web.http import NO_BODY_CODES, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.resource import EncodingResourceWrapper, IResource

from chatd.http.incoming import Incoming
from chatd.http.response_head import SERVER, canonical, header_block, one_line, render, status_line

if TYPE_CHECKING:
    from chatd.http.channel import Channel

_LAST_CHUNK = b"0\r\n\r\n"

# Headers of every answer: one that sets any of them itself goes the longer way.
_OWN = frozenset((b"Connection", b"Content-Length", b"Date", b"Server", b"Transfer-Encoding"))


class DisconnectListener(Protocol):
    """What `Request.watch_disconnect` takes."""

    def client_disconnected(self, reason: Failure) -> None:
        """The client has disconnected before the answer was finished."""
        ...


class Request(Incoming):
    """One request and its answer.

    A resource may use all of `twisted.web.server.Request`. `answer` is the short way for an answer
    that is at hand as a whole.
    """

    __slots__ = ()

    _encoder: Any

    # What many requests do without has its default here, and costs nothing there.
    # Bytes that Content-Length has promised and that were not yet written.
    _owed: int | None = None
    # Headers set, as long as nobody asked for `responseHeaders`.
    _fields: dict[bytes, bytes] | None = None
    _response_headers: Headers | None = None
    _cookies_out: list[bytes] | None = None
    # Who asked by `notifyFinish`.
    _waiting: list[Deferred[None]] | None = None
    _disconnect_listener: DisconnectListener | None = None

    @property
    def disconnected(self) -> bool:
        """The client went away before its answer was finished."""
        return self._disconnected

    @property
    def responseHeaders(self) -> Headers:
        """The answer's headers; `setHeader` is the cheaper way to set one."""
        if self._response_headers is None:
            headers = self._response_headers = Headers()
            headers.setRawHeaders(b"Server", [SERVER])
            if self.channel is not None:
                standard = self.channel.server.standard
                standard.refresh()
                headers.setRawHeaders(b"Date", [standard.date])
            for name, value in (self._fields or {}).items():
                headers.setRawHeaders(name, [value])
            self._fields = None
        return self._response_headers

    @responseHeaders.setter
    def responseHeaders(self, headers: Headers) -> None:
        self._response_headers = headers

    def setHeader(self, name: bytes | str, value: bytes | str) -> None:
        """Set a header of the answer; line breaks in `value` become spaces.

        Raises ValueError if `name` is no token.
        """
        if self._response_headers is not None:
            self._response_headers.setRawHeaders(name, [value])
            return
        if self._fields is None:
            self._fields = {}
        if isinstance(value, str):
            value = value.encode()
        self._fields[canonical(name)] = one_line(value)

    @property
    def cookies(self) -> list[bytes]:  # type: ignore[override]
        """Set-Cookie values to send."""
        if self._cookies_out is None:
            self._cookies_out = []
        return self._cookies_out

    @property
    def notifications(self) -> list[Deferred[None]]:  # type: ignore[override]
        """Who waits for the end: see `notifyFinish`."""
        if self._waiting is None:
            self._waiting = []
        return self._waiting

    def notifyFinish(self) -> Deferred[None]:
        """Fires with None when the answer is finished, fails when the client went away before.

        A client that closes only its sending side while it waits has gone away, too: a socket does
        not tell one from the other.
        """
        done: Deferred[None] = Deferred()
        self.notifications.append(done)
        return done

    def watch_disconnect(self, listener: DisconnectListener) -> None:
        """Call `listener` once if the client disconnects before the answer is finished.

        There is one listener at most: another one replaces it.
        """
        self._disconnect_listener = listener

    def process(self) -> None:
        """Find the resource and have it render this request."""
        try:
            if self.uri == b"*":
                self._handleStar()  # type: ignore[no-untyped-call]
                return
            resource = self.site.getResourceFor(self)
            if isinstance(resource, EncodingResourceWrapper):
                self._encoder = resource.getEncoder(self)
            self.render(resource)
        except BaseException:
            self.processingFailed(Failure())

    def render(self, resource: IResource) -> None:
        """Answer with what `resource` renders, unless it says NOT_DONE_YET."""
        try:
            body: object = resource.render(self)
        except UnsupportedMethod as error:
            # Not the base's HTML; and a Resource that renders GET renders HEAD.
            allowed = b", ".join(sorted(error.allowedMethods))
            fields = ((b"Allow", allowed), (b"Content-Type", b"application/problem+json"))
            detail = f"Allowed here: {allowed.decode()}."
            body = self.site.problem(405, "method_not_allowed", detail)
            self.answer(405, header_block(*fields), body)
            return
        if body is server.NOT_DONE_YET:
            return
        if not isinstance(body, bytes):
            raise TypeError(f"{resource!r} rendered {type(body).__name__}, not bytes")
        if self._is_plain() and body:
            if self.defaultContentType is not None and not self._answer_header(b"Content-Type"):
                self.setHeader(b"Content-Type", self.defaultContentType)
            self.answer(200, b"", body)
            return
        if body or self.method != b"HEAD":
            # A resource that makes no body for HEAD has set the length that it would have.
            self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def _is_plain(self) -> bool:
        """Whether a whole answer needs nothing that `answer` does not do."""
        return (
            self.code == 200
            and not self.startedWriting
            and not self._disconnected
            and self._encoder is None
            and self.etag is None
            and self.lastModified is None
            and self.code_message == b"OK"
        )

    def processingFailed(self, reason: Failure) -> Failure:
        """Log `reason` and answer 500; an answer that has begun is cut off instead.

        Its client must be able to tell that it is incomplete, so the connection is aborted.
        """
        if self.finished or self._disconnected or self.startedWriting:
            self._log.failure("", failure=reason)
            if self.channel is not None and not self.finished:
                self.channel.abort()
            return reason
        super().processingFailed(reason)  # type: ignore[no-untyped-call]
        return reason

    def answer(self, status: int, headers: bytes = b"", body: bytes = b"") -> None:
        """Write a whole answer at once and finish the request.

        `headers` is a block made by `chatd.http.response_head.header_block`, without
        Content-Length, Connection, Server and Date, which are added; headers set by
        `setHeader` are sent before it.
        `body` is left out for HEAD, 204 and 304. If the client has gone away nothing happens.
        Raises RuntimeError if the request has been answered already.
        """
        if self._disconnected:
            return
        if self.finished or self.startedWriting:
            raise RuntimeError("Request.answer called on a request that was answered.")
        channel = self.channel
        assert channel is not None
        self.code = status
        version = self.clientproto
        fields = self._fields
        if (
            self._response_headers is None
            and not self._cookies_out
            and (fields is None or fields.keys().isdisjoint(_OWN))
        ):
            standard = channel.server.standard.refresh()
            if fields is not None:
                standard += b"".join([b"%b: %b\r\n" % field for field in fields.items()])
            persistent = channel.may_persist()
            if not persistent:
                standard += b"Connection: close\r\n"
            elif version != b"HTTP/1.1":
                standard += b"Connection: keep-alive\r\n"
        else:
            self._unset_header(b"Content-Length")
            self._unset_header(b"Transfer-Encoding")
            persistent = self._settle_connection(channel)
            standard = self._header_lines()
        if status in NO_BODY_CODES:
            length = b"\r\n"
            body = b""
        else:
            length = b"Content-Length: %d\r\n\r\n" % len(body)
            if self.method == b"HEAD":
                body = b""
        data = b"".join((status_line(version, status), standard, headers, length, body))
        self.startedWriting = 1
        self.sentLength = len(body)
        channel.write(data)
        self._finished(persistent)

    def write(self, data: bytes) -> None:
        """Send some of the body, and the head before the first of it.

        Without a Content-Length the body is sent in chunks (HTTP/1.1) or ends with the connection.
        What goes beyond a Content-Length is dropped and ends the connection.
        """
        if self.finished:
            raise RuntimeError("Request.write called on a request after Request.finish was called.")
        if not isinstance(data, bytes):
            raise TypeError(f"Data must be bytes, not {type(data).__name__}")
        channel = self.channel
        if channel is None:
            return
        if self._encoder is not None:
            data = self._encoder.encode(data)
        head = b"" if self.startedWriting else self._start()
        if self._owed is not None and len(data) > self._owed:
            if self.method != b"HEAD" and self.code not in NO_BODY_CODES:
                self._log.error("More than Content-Length written to {uri}", uri=self.uri)
                channel.persistent = False
            data = data[: self._owed]
        if data:
            self.sentLength += len(data)
            if self.chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            elif self._owed is not None:
                self._owed -= len(data)
        if head or data:
            channel.write(head + data)

    def finish(self) -> None:
        """End the answer. Raises RuntimeError if the client has gone away."""
        channel = self.channel
        if self.finished or channel is None:
            # Its warning, or its error.
            super().finish()  # type: ignore[no-untyped-call]
            return
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            rest = encoder.finish()
            if rest:
                self.write(rest)
        if not self.startedWriting:
            self.write(b"")
        if self.chunked:
            channel.write(_LAST_CHUNK)
        elif self._owed and self.method != b"HEAD" and self.code not in NO_BODY_CODES:
            # The client would take the next answer for the rest of this one.
            self._log.error("Less than Content-Length written to {uri}", uri=self.uri)
            channel.persistent = False
        self._finished(channel.may_persist())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """`IConsumer`: a push producer if `streaming`, else a pull producer, for a large body.

        It is told to stop if the client has gone away. Raises ValueError if there is one already.
        """
        if self.channel is None:
            producer.stopProducing()
        else:
            super().registerProducer(producer, streaming)  # type: ignore[no-untyped-call]

    def unregisterProducer(self) -> None:
        """`IConsumer`: the body is complete, or another producer follows."""
        if self.channel is not None:
            self.channel.unregisterProducer()
        self.producer = None

    def connectionLost(self, reason: Failure) -> None:
        """The client has gone away: the channel's word."""
        channel = self.channel
        self._disconnected = True
        if channel is not None:
            channel.server.tell(self)
        self._close_content()
        self.channel = None
        listener, self._disconnect_listener = self._disconnect_listener, None
        if listener is not None:
            listener.client_disconnected(reason)
        waiting, self._waiting = self._waiting, None
        for done in waiting or ():
            done.errback(reason)

    def _close_content(self) -> None:
        if self._content is not None:
            self._content.close()
            self._content = None

    def _finished(self, persistent: bool) -> None:
        channel = self.channel
        assert channel is not None
        if self.producer is not None:
            self._log.failure(
                "", Failure(RuntimeError(f"Producer was not unregistered for {self.uri!r}"))
            )
            self.unregisterProducer()
        self.finished = 1
        if channel.server.log is not None:
            channel.server.tell(self)
        self._close_content()
        self.channel = None
        self._disconnect_listener = None
        waiting, self._waiting = self._waiting, None
        for done in waiting or ():
            done.callback(None)
        channel.answered(persistent)

    def _start(self) -> bytes:
        """Begin an answer that is written piece by piece; returns its head."""
        channel = self.channel
        assert channel is not None
        self.startedWriting = 1
        length = self._answer_header(b"Content-Length")
        bodiless = self.method == b"HEAD" or self.code in NO_BODY_CODES
        if self.defaultContentType is not None and not (
            self.code in NO_BODY_CODES
            or length == b"0"
            or self._answer_header(b"Content-Type") is not None
        ):
            self.setHeader(b"Content-Type", self.defaultContentType)
        if self.lastModified is not None and self._answer_header(b"Last-Modified") is None:
            self.setHeader(b"Last-Modified", datetimeToString(self.lastModified))
        if self.etag is not None:
            self.setHeader(b"ETag", self.etag)

        if self.code in NO_BODY_CODES:
            # RFC 9110 section 8.6: none for 204, and for 304 not that of an empty body.
            self._unset_header(b"Content-Length")
        if bodiless:
            self._owed = 0
        elif length is not None:
            self._owed = int(length)
        elif self.clientproto == b"HTTP/1.1":
            self.chunked = 1
            self.setHeader(b"Transfer-Encoding", b"chunked")
        else:
            channel.persistent = False  # The end of the connection ends the body.
        self._settle_connection(channel)
        reason = self.code_message
        if self.code != 200 or reason != b"OK":
            line = b"%b %d %b\r\n" % (self.clientproto, self.code, one_line(reason))
        else:
            line = status_line(self.clientproto, 200)
        return line + self._header_lines() + b"\r\n"

    def _settle_connection(self, channel: Channel) -> bool:
        """Say in the headers whether the connection stays open; true if it does."""
        if b"close" in (self._answer_header(b"Connection") or b"").lower():
            channel.persistent = False
        persistent = channel.may_persist()
        if not persistent:
            self.setHeader(b"Connection", b"close")
        elif self.clientproto != b"HTTP/1.1":
            self.setHeader(b"Connection", b"keep-alive")
        return persistent

    def _answer_header(self, name: bytes) -> bytes | None:
        if self._response_headers is None:
            return None if self._fields is None else self._fields.get(name)
        values = self._response_headers.getRawHeaders(name)
        return values[-1] if values else None

    def _unset_header(self, name: bytes) -> None:
        if self._response_headers is not None:
            self._response_headers.removeHeader(name)
        elif self._fields is not None:
            self._fields.pop(name, None)

    def _header_lines(self) -> bytes:
        """The standard headers, and what `setHeader`, `responseHeaders`, `addCookie` have."""
        if self._cookies_out:
            self.responseHeaders.setRawHeaders(b"Set-Cookie", self._cookies_out)
        if self._response_headers is not None:
            return render(self._response_headers.getAllRawHeaders())
        fields = self._fields or {}
        lines = b"".join([b"%b: %b\r\n" % field for field in fields.items()])
        if b"Server" in fields or b"Date" in fields:
            return render(self.responseHeaders.getAllRawHeaders())
        assert self.channel is not None
        return self.channel.server.standard.refresh() + lines
