"""The request that resources are given, and its response."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.error import UnsupportedMethod
from twisted.web.http import NO_BODY_CODES, datetimeToString, parse_qs
from twisted.web.http_headers import Headers
from twisted.web.resource import EncodingResourceWrapper, IResource

from chatd.http.head import Head
from chatd.http.lazy import lazy
from chatd.http.request_channel import DisconnectListener, RequestChannel
from chatd.http.response_body import LAST_CHUNK, ResponseBody
from chatd.http.response_head import header_block, one_line, reason_phrase, status_line
from chatd.http.response_headers import ResponseHeaders
from chatd.http.site import Site


class Request(server.Request):
    """One request and its response: a `twisted.web.server.Request` that needs little memory.

    What twisted.web builds for every request (headers, arguments, the body as a file, the split
    path) is built here when it is first read. `respond` is the short way to write a response that
    is complete.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_header_block",
        "_query",
        "channel",
        "clientproto",
        "method",
        "path",
        "site",
        "uri",
    )

    channel: RequestChannel | None  # type: ignore[assignment]
    """The connection; None once the response is finished or the client has disconnected."""
    method: bytes
    uri: bytes
    path: bytes
    clientproto: bytes
    site: Site  # type: ignore[assignment]

    # Defaults on the class, which most requests never replace.
    _encoder: Any
    _request_headers: Headers | None = None
    _content: BinaryIO | None = None
    _response_headers: ResponseHeaders | None = None
    _response_body: ResponseBody | None = None
    _finish_deferreds: list[Deferred[None]] | None = None
    _disconnect_listener: DisconnectListener | None = None

    def __init__(self, channel: RequestChannel, head: Head, body: bytes) -> None:
        # Not the base's, which builds what is lazy here.
        self.channel = channel
        # Addresses can be read when `channel` is None already.
        self._connection = channel
        self.site = channel.site
        self.method, self.uri, self.clientproto, self._header_block = head[:4]
        self.path, _, self._query = self.uri.partition(b"?")
        self._body = body

    # The request.

    @property
    def body(self) -> bytes:
        """The whole body. `content` is the same as a file."""
        return self._body

    def forget_body(self) -> None:
        """Release the body, which is empty from now on: the request may be held for hours."""
        if self._body:
            self._body = b""
            self._close_content()
            if self.channel is not None:
                self.channel.body_forgotten()

    @property
    def header_block(self) -> bytes:
        """The header lines as they came, from the CRLF before the first one."""
        return self._header_block.block

    @property
    def query(self) -> bytes:
        """What follows the ``?`` in `uri`, undecoded."""
        return self._query

    @property
    def transport(self) -> Any:  # type: ignore[override]
        """The connection's transport; None once `channel` is."""
        return None if self.channel is None else self.channel.transport

    @property
    def disconnected(self) -> bool:
        """Whether the client disconnected before its response was finished."""
        return self._disconnected

    @lazy
    def args(self) -> dict[bytes, list[bytes]]:
        """The decoded query. Bodies of forms are not parsed."""
        return parse_qs(self._query, True) if self._query else {}

    @property
    def requestHeaders(self) -> Headers:
        """All headers. `getHeader` is the cheaper way to read one."""
        if self._request_headers is None:
            headers = self._request_headers = Headers()
            for name, value in self._header_block.pairs():
                headers.addRawHeader(name, value)
        return self._request_headers

    @requestHeaders.setter
    def requestHeaders(self, headers: Headers) -> None:
        self._request_headers = headers

    @property
    def content(self) -> BinaryIO:
        """The whole body as a file, which is closed with the request."""
        if self._content is None:
            self._content = BytesIO(self._body)
        return self._content

    @content.setter
    def content(self, content: BinaryIO) -> None:
        self._content = content

    @lazy
    def prepath(self) -> list[bytes]:
        """Decoded path segments that led to the resource."""
        return []

    @lazy
    def postpath(self) -> list[bytes]:
        """Decoded path segments that are left for the resource."""
        return [unquote_to_bytes(part) for part in self.path[1:].split(b"/")]

    @lazy
    def received_cookies(self) -> dict[bytes, bytes]:
        """The cookies that the client sent."""
        cookies: dict[bytes, bytes] = {}
        self.received_cookies = cookies
        self.parseCookies()  # type: ignore[no-untyped-call]
        return cookies

    @lazy
    def client(self) -> IAddress:
        """See `getClientAddress`."""
        return self._connection.getPeer()

    @lazy
    def host(self) -> IAddress:
        """See `getHost`."""
        return self._connection.getHost()

    @lazy
    def _adapterCache(self) -> dict[str, Any]:
        """Adapters of `Componentized`, such as Klein's mapper."""
        return {}

    def getHeader(self, key: Any) -> Any:
        """The last value of a header, of the type of `key`, or None."""
        if self._request_headers is not None:
            return super().getHeader(key)
        if isinstance(key, bytes):
            return self._header_block.value(key)
        value = self._header_block.value(key.encode("iso-8859-1"))
        return None if value is None else value.decode()

    def header_values(self, name: bytes) -> Sequence[bytes]:
        """All values of a header, in order."""
        if self._request_headers is not None:
            return self._request_headers.getRawHeaders(name, ())
        return self._header_block.values(name)

    def getClientAddress(self) -> IAddress:
        """Where the request came from: what the PROXY header says, behind a proxy that sends it."""
        return self.client

    def getHost(self) -> IAddress:
        """The address that the client connected to."""
        return self.host

    def isSecure(self) -> bool:
        """Whether the request came over TLS."""
        return bool(self._forceSSL) or (self.channel is not None and self.channel.isSecure())

    # The end of the request.

    def notifyFinish(self) -> Deferred[None]:
        """A Deferred for the end: fires when the response is finished, or fails with the reason
        when the client disconnects before.

        A client that closes only its sending side while it waits counts as gone, since a socket
        cannot tell the difference.
        """
        done: Deferred[None] = Deferred()
        if self._finish_deferreds is None:
            self._finish_deferreds = []
        self._finish_deferreds.append(done)
        return done

    def watch_disconnect(self, listener: DisconnectListener) -> None:
        """Have `listener.client_disconnected(reason)` called if the client disconnects before the
        response is finished, instead of the listener before, if there is one.

        This does the same as an errback on `notifyFinish`, without the Deferred and the list.
        """
        self._disconnect_listener = listener

    def connectionLost(self, reason: Failure) -> None:
        """The client has disconnected. Called by the channel."""
        self._disconnected = True
        self.channel = None
        self._close_content()
        deferreds, self._finish_deferreds = self._finish_deferreds, None
        listener, self._disconnect_listener = self._disconnect_listener, None
        if deferreds is not None:
            for done in deferreds:
                done.errback(reason)
        if listener is not None:
            listener.client_disconnected(reason)

    def _finish(self, channel: RequestChannel, keep_alive: bool) -> None:
        if self.producer is not None:
            error = RuntimeError(f"Producer was not unregistered for {self.uri!r}")
            self._log.failure("", Failure(error))
            self.unregisterProducer()
        self.finished = 1
        self.channel = None
        self._close_content()
        if self._disconnect_listener is not None:
            self._disconnect_listener = None
        deferreds = self._finish_deferreds
        if deferreds is not None:
            self._finish_deferreds = None
            for done in deferreds:
                done.callback(None)
        channel.response_finished(keep_alive)

    def _close_content(self) -> None:
        if self._content is not None:
            self._content.close()
            self._content = None

    # Rendering.

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
        """Respond with what `resource` renders, unless that is NOT_DONE_YET."""
        try:
            body: object = resource.render(self)
        except UnsupportedMethod as error:
            # Not as the base, which sends HTML. A Resource that renders GET also renders HEAD.
            allowed = b", ".join(sorted(error.allowedMethods))
            fields = ((b"Allow", allowed), (b"Content-Type", b"application/problem+json"))
            detail = f"Allowed here: {allowed.decode()}."
            problem = self.site.problem(405, "method_not_allowed", detail)
            self.respond(405, header_block(*fields), problem)
            return
        if body is server.NOT_DONE_YET:
            return
        if not isinstance(body, bytes):
            raise TypeError(f"{resource!r} rendered {type(body).__name__}, not bytes")
        if body or self.method != b"HEAD":
            # A resource that renders no body for HEAD has set the length that it would have.
            self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def processingFailed(self, reason: Failure) -> Failure:
        """Log `reason` and respond with 500, or abort a response that has begun.

        The client must be able to tell that such a response is incomplete.
        """
        if self.finished or self._disconnected or self.startedWriting:
            self._log.failure("", failure=reason)
            if self.channel is not None:
                self.channel.abort()
            return reason
        super().processingFailed(reason)  # type: ignore[no-untyped-call]
        return reason

    # The response.

    def setResponseCode(self, code: int, message: bytes | None = None) -> None:
        """Set the status, and its reason phrase if it is not the registered one."""
        self.code = code
        self.code_message = reason_phrase(code) if message is None else message

    @property
    def responseHeaders(self) -> Headers:
        """The headers of the response. `setHeader` is the cheaper way to set one."""
        return self._own_headers().headers

    @responseHeaders.setter
    def responseHeaders(self, headers: Headers) -> None:
        self._own_headers().headers = headers

    @property
    def cookies(self) -> list[bytes]:  # type: ignore[override]
        """Values of the Set-Cookie headers of the response."""
        return self._own_headers().cookies

    def setHeader(self, name: bytes | str, value: bytes | str) -> None:
        """Set a header of the response; line breaks in `value` become spaces.

        Raises ValueError if `name` is not a token.
        """
        own = self._response_headers
        if own is None:
            own = self._own_headers()
        own.set(name, value)

    def respond(self, status: int, headers: bytes = b"", body: bytes = b"") -> None:
        """Write a whole response and finish the request.

        `headers` is a block made by `chatd.http.response_head.header_block`, without
        Content-Length, Connection, Server and Date, which are added; headers set by `setHeader`
        are sent before it. `body` is omitted for HEAD, 204 and 304. Does nothing if the client has
        disconnected. Raises RuntimeError if a response has been started.
        """
        if self._disconnected:
            return
        if self.finished or self.startedWriting:
            raise RuntimeError("Request.respond called on a request that was answered.")
        channel = self.channel
        assert channel is not None
        self.code = status
        version = self.clientproto
        own = self._response_headers
        if own is None:
            lines = self.site.standard_headers.block()
            keep_alive = channel.keep_alive()
            if not keep_alive:
                lines += b"Connection: close\r\n"
            elif version != b"HTTP/1.1":
                lines += b"Connection: keep-alive\r\n"
        else:
            own.remove(b"Content-Length")
            own.remove(b"Transfer-Encoding")
            keep_alive = self._set_connection(channel, own)
            lines = own.block()
        if status in NO_BODY_CODES:
            length = b"\r\n"
            body = b""
        else:
            length = b"Content-Length: %d\r\n\r\n" % len(body)
            if self.method == b"HEAD":
                body = b""
        data = b"".join((status_line(version, status), lines, headers, length, body))
        self.startedWriting = 1
        self.sentLength = len(body)
        channel.write(data)
        self._finish(channel, keep_alive)

    def write(self, data: bytes) -> None:
        """Send part of the body, and the head before the first part.

        Without a Content-Length the body is sent in chunks (HTTP/1.1) or ends with the connection.
        Anything beyond a Content-Length is dropped, and the connection closes.
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
        body = self._response_body
        if body is None:
            head, body = self._start(channel)
            data = head + body.frame(data)
        else:
            data = body.frame(data)
        self.sentLength = body.sent
        if body.excess:
            self._log.error("More than Content-Length written to {uri}", uri=self.uri)
            channel.close_after_response()
        if data:
            channel.write(data)

    def finish(self) -> None:
        """End the response. Raises RuntimeError if the client has disconnected."""
        channel = self.channel
        if self.finished or channel is None:
            # The base class warns or raises.
            super().finish()  # type: ignore[no-untyped-call]
            return
        if self._encoder is not None:
            encoder, self._encoder = self._encoder, None
            rest = encoder.finish()
            if rest:
                self.write(rest)
        if self._response_body is None:
            self.write(b"")
        body = self._response_body
        assert body is not None
        if body.chunked:
            channel.write(LAST_CHUNK)
        elif body.missing:
            # The client would take the next response for the rest of this one.
            self._log.error("Less than Content-Length written to {uri}", uri=self.uri)
            channel.close_after_response()
        self._finish(channel, channel.keep_alive())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """`IConsumer`: a push producer if `streaming`, else a pull producer, for a large body.

        It is stopped if the client has disconnected. Raises ValueError if there is one already.
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

    def _own_headers(self) -> ResponseHeaders:
        if self._response_headers is None:
            self._response_headers = ResponseHeaders(self.site.standard_headers)
        return self._response_headers

    def _start(self, channel: RequestChannel) -> tuple[bytes, ResponseBody]:
        """Begin a response that is written in pieces: its head, and what frames the pieces."""
        self.startedWriting = 1
        own = self._own_headers()
        code = self.code
        no_body = code in NO_BODY_CODES
        length = own.get(b"Content-Length")
        if (
            self.defaultContentType is not None
            and not (no_body or length == b"0")
            and own.get(b"Content-Type") is None
        ):
            own.set(b"Content-Type", self.defaultContentType)
        if self.lastModified is not None and own.get(b"Last-Modified") is None:
            own.set(b"Last-Modified", datetimeToString(self.lastModified))
        if self.etag is not None:
            own.set(b"ETag", self.etag)

        if no_body:
            # RFC 9110 section 8.6: none for 204, and for 304 not that of an empty body.
            own.remove(b"Content-Length")
        if no_body or self.method == b"HEAD":
            body = ResponseBody(None, omitted=True)
        elif length is not None:
            body = ResponseBody(int(length))
        elif self.clientproto == b"HTTP/1.1":
            body = ResponseBody(None, chunked=True)
            own.set(b"Transfer-Encoding", b"chunked")
        else:
            body = ResponseBody(None)
            channel.close_after_response()  # The end of the connection ends the body.
        self._response_body = body
        self._set_connection(channel, own)
        reason = self.code_message
        if reason == reason_phrase(code):
            line = status_line(self.clientproto, code)
        else:
            line = b"%b %d %b\r\n" % (self.clientproto, code, one_line(reason))
        return b"%b%b\r\n" % (line, own.block()), body

    def _set_connection(self, channel: RequestChannel, own: ResponseHeaders) -> bool:
        """Set the Connection header; returns whether the connection stays open."""
        if b"close" in (own.get(b"Connection") or b"").lower():
            channel.close_after_response()
        keep_alive = channel.keep_alive()
        if not keep_alive:
            own.set(b"Connection", b"close")
        elif self.clientproto != b"HTTP/1.1":
            own.set(b"Connection", b"keep-alive")
        return keep_alive
