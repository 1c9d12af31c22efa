"""Client addresses behind trusted proxies, for rate limits and the access log."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from twisted.internet.interfaces import IAddress
from twisted.web.server import Request

from chatd.http.request_headers import values_in_head
from chatd.model import LOCAL

_WITH_PORT: Final = re.compile(r"(?:\[([^]]*)\]|([^:]*))(?::[0-9]+)?")
"""Of an IPv4 address, or of an IPv6 one in brackets. Without them, a port could not be told."""

_in_head: Final = values_in_head(b"x-forwarded-for")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """Finds the client of a request; trusts `X-Forwarded-For` only from these proxies.

    The header is read from its end: the first address that is not a trusted proxy's is the
    client's, whatever the client wrote before it. Some proxies write its port as well, which does
    not count. With `proxy_protocol`, connections already have the addresses of a proxy's clients.
    """

    def __init__(self, trusted: Sequence[Network], *, proxy_protocol: bool = False) -> None:
        self._trusted = trusted
        self._proxy_protocol = proxy_protocol

    def address(self, request: Request) -> str:
        """The client's address; `LOCAL` for one that has none, such as a Unix socket's."""
        forwarded = request.requestHeaders.getRawHeaders(b"x-forwarded-for", ())
        return self.client(request.getClientAddress(), forwarded)

    def client(self, peer: IAddress | None, forwarded: Sequence[bytes]) -> str:
        """`address` of a request from `peer` with these values of X-Forwarded-For."""
        host = _host(peer)
        return self._forwarded_for(host, forwarded) or host

    def behind_proxy(self, peer: IAddress | None, forwarded: Sequence[bytes]) -> str | None:
        """The client of a request from `peer` with these values of X-Forwarded-For, if a proxy has
        passed it on and said for whom; otherwise None."""
        host = _host(peer)
        client = self._forwarded_for(host, forwarded)
        if client is None and self._proxy_protocol:
            client = host
        return None if client is None or self.is_trusted(client) else client

    def in_head(self, host: str, raw: bytes) -> str:
        """`client` of a request from this address, empty for a socket that has none, of which `raw`
        is as much of the head as was received. The line of a proxy may be the last one, so it is
        only looked for in a whole head."""
        found = _in_head(raw) if b"\r\n\r\n" in raw else ()
        return self._forwarded_for(host or LOCAL, found) or host

    def _forwarded_for(self, nearest: str, forwarded: Sequence[bytes]) -> str | None:
        """The client for which a proxy, the `nearest`, has passed a request on with these values of
        X-Forwarded-For; None if the nearest is no proxy."""
        if not self._trusted or not self.is_trusted(nearest):
            return None
        hops = [hop for field in forwarded for hop in field.decode("latin-1").split(",")]
        for hop in map(_without_port, reversed(hops)):
            if not self.is_trusted(hop):
                return hop if _is_address(hop) else nearest
        return nearest

    def is_trusted(self, host: str) -> bool:
        """Whether a client is one of the proxies."""
        # Only local clients have no address.
        if host == LOCAL:
            return True
        if not self._trusted:
            return False
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if address.version == 6 and address.ipv4_mapped is not None:
            # How a dual-stack listener reports an IPv4 client.
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)


def _host(peer: IAddress | None) -> str:
    host: str = getattr(peer, "host", None) or LOCAL
    return host


def _without_port(hop: str) -> str:
    """The address in an entry of X-Forwarded-For, such as `192.0.2.1:80` or `[2001:db8::1]:80`."""
    entry = _WITH_PORT.fullmatch(hop.strip())
    return hop.strip() if entry is None else entry[1] or entry[2]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
