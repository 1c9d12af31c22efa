"""Client addresses behind trusted proxies, for rate limits and the access log."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from twisted.web.server import Request

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class TrustedProxies:
    """Finds the client of a request; trusts `X-Forwarded-For` only from these proxies.

    The header is read from its end: the first address that is not a trusted proxy's is the
    client's, whatever the client wrote before it.
    """

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted

    def address(self, request: Request) -> str:
        """The client's address; `local` for one that has none, such as a Unix socket's."""
        nearest: str = getattr(request.getClientAddress(), "host", None) or "local"
        if not self._trusted or not self.is_trusted(nearest):
            return nearest
        hops = [
            hop.strip()
            for field in request.requestHeaders.getRawHeaders(b"x-forwarded-for", ())
            for hop in field.decode("latin-1").split(",")
        ]
        for hop in reversed(hops):
            if not self.is_trusted(hop):
                return hop if _is_address(hop) else nearest
        return nearest

    def is_trusted(self, host: str) -> bool:
        """Whether a client is one of the proxies."""
        # Only local clients have no address.
        if host == "local":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if address.version == 6 and address.ipv4_mapped is not None:
            # How a dual-stack listener reports an IPv4 client.
            address = address.ipv4_mapped
        return any(address in network for network in self._trusted)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
