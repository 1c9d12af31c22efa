"""A request as it came: twisted.web's, built piece by piece as it is asked for."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import IAddress
from twisted.web import server
from twisted.web.http import parse_qs
from twisted.web.http_headers import Headers

from chatd.http.head import Head

if TYPE_CHECKING:
    from chatd.http.channel import Channel
    from chatd.http.server import Server


class Incoming(server.Request):
    """What was asked, and by whom.

    What a held request does not need is not kept: headers, arguments, `content` and the split path
    come into being when they are first read.
    """

    __slots__ = (
        "_body",
        "_channel",
        "_lines",
        "_query",
        "channel",
        "clientproto",
        "method",
        "path",
        "site",
        "started",
        "uri",
    )

    channel: Channel | None  # type: ignore[assignment]
    method: bytes
    uri: bytes
    path: bytes
    clientproto: bytes
    site: Server  # type: ignore[assignment]
    started: float
    """The server's clock when the request had arrived, seconds."""

    # What many requests are never asked for has its default here, and costs nothing there.
    _arguments: dict[bytes, list[bytes]] | None = None
    _client: IAddress | None = None
    _components: dict[str, Any] | None = None
    _content: BinaryIO | None = None
    _cookies_in: dict[bytes, bytes] | None = None
    _host: IAddress | None = None
    _postpath: list[bytes] | None = None
    _prepath: list[bytes] | None = None
    _request_headers: Headers | None = None

    def __init__(self, channel: Channel, head: Head, body: bytes, started: float) -> None:
        # Not the base's: it builds at once what is built here when it is needed.
        self.channel = channel
        # `channel` is None after the end; addresses can be asked for still.
        self._channel = channel
        self.site = channel.server
        self.method, self.uri, self.clientproto, self._lines = head[:4]
        self.path, _, self._query = self.uri.partition(b"?")
        self._body = body
        self.started = started

    @property
    def body(self) -> bytes:
        """The whole body. `content` is the same as a file."""
        return self._body

    @property
    def query(self) -> bytes:
        """What follows the ``?`` in `uri`, undecoded."""
        return self._query

    @property
    def requestHeaders(self) -> Headers:
        """All headers; `getHeader` is the cheaper way to one of them."""
        if self._request_headers is None:
            headers = self._request_headers = Headers()
            for name, value in self._lines.pairs():
                headers.addRawHeader(name, value)
        return self._request_headers

    @requestHeaders.setter
    def requestHeaders(self, headers: Headers) -> None:
        self._request_headers = headers

    def getHeader(self, key: Any) -> Any:
        """The last value of a header, of the type of `key`, or None; `Headers` are not built."""
        if self._request_headers is not None:
            return super().getHeader(key)
        if isinstance(key, bytes):
            return self._lines.value(key)
        value = self._lines.value(key.encode("iso-8859-1"))
        return None if value is None else value.decode()

    @property
    def args(self) -> dict[bytes, list[bytes]]:
        """The decoded query; bodies of forms are not parsed."""
        if self._arguments is None:
            self._arguments = parse_qs(self._query, True) if self._query else {}
        return self._arguments

    @args.setter
    def args(self, arguments: dict[bytes, list[bytes]]) -> None:
        self._arguments = arguments

    @property
    def content(self) -> BinaryIO:
        """The whole body as a file."""
        if self._content is None:
            self._content = BytesIO(self._body)
        return self._content

    @content.setter
    def content(self, content: BinaryIO) -> None:
        self._content = content

    @property
    def prepath(self) -> list[bytes]:
        """Path segments, decoded, that led to the resource."""
        if self._prepath is None:
            self._prepath = []
        return self._prepath

    @prepath.setter
    def prepath(self, segments: list[bytes]) -> None:
        self._prepath = segments

    @property
    def postpath(self) -> list[bytes]:
        """Path segments, decoded, that are left for the resource."""
        if self._postpath is None:
            self._postpath = [unquote_to_bytes(part) for part in self.path[1:].split(b"/")]
        return self._postpath

    @postpath.setter
    def postpath(self, segments: list[bytes]) -> None:
        self._postpath = segments

    @property
    def received_cookies(self) -> dict[bytes, bytes]:  # type: ignore[override]
        """What the Cookie headers say."""
        if self._cookies_in is None:
            self._cookies_in = {}
            self.parseCookies()  # type: ignore[no-untyped-call]
        return self._cookies_in

    @property
    def client(self) -> IAddress:
        """See `getClientAddress`."""
        if self._client is None:
            self._client = self._channel.getPeer()
        return self._client

    @client.setter
    def client(self, address: IAddress) -> None:
        self._client = address

    @property
    def host(self) -> IAddress:
        """See `getHost`."""
        if self._host is None:
            self._host = self._channel.getHost()
        return self._host

    @host.setter
    def host(self, address: IAddress) -> None:
        self._host = address

    def getClientAddress(self) -> IAddress:
        """Where the request came from: the PROXY header's word, behind a proxy that sends one."""
        return self.client

    def getHost(self) -> IAddress:
        """The address that the client connected to."""
        return self.host

    def isSecure(self) -> bool:
        """Whether the request came over TLS."""
        return bool(self._forceSSL) or (self.channel is not None and self.channel.isSecure())

    @property
    def transport(self) -> Any:  # type: ignore[override]
        """The connection's transport; None after the end."""
        return None if self.channel is None else self.channel.transport

    @property
    def _adapterCache(self) -> dict[str, Any]:  # type: ignore[override]
        """What `Componentized` adapts to, Klein's mapper among it."""
        if self._components is None:
            self._components = {}
        return self._components
