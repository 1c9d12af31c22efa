"""Headers of the PROXY protocol, which say for whom a proxy has opened a connection.

Twisted's wrapper refuses a header of which the first bytes come alone, and the short form of one
without addresses; it believes addresses that cannot be.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._info import ProxyInfo
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper, HAProxyWrappingFactory

MAX_PORT: Final = 65535

_UNKNOWN: Final = b"PROXY UNKNOWN"
_V2_START: Final = 16
"""After so many bytes Twisted reads a header of version 2 in parts."""


class Line(V1Parser):
    """Reads the header of version 1, a line."""

    @classmethod
    def parse(cls, line: bytes) -> ProxyInfo:
        """See `V1Parser`."""
        if line == _UNKNOWN:
            return ProxyInfo(line, None, None)
        try:
            info = super().parse(line)
            for address in filter(None, (info.source, info.destination)):
                _check(address)
        except ValueError:
            raise InvalidProxyHeader from None
        return info


class ProxyHeader(HAProxyProtocolWrapper):
    """A connection that begins with such a header."""

    # The first bytes, if they do not tell yet which version it is.
    _start = b""

    def dataReceived(self, data: bytes) -> None:
        """`IProtocol`: the proxy, or later its client, has sent `data`."""
        # Attributes of Twisted's class that are not public; tests/http/test_proxy_header.py would
        # fail without them.
        if self._proxyInfo is None and self._parser is None:
            data = self._start + data
            self._start = b""
            if data.startswith(V1Parser.PROXYSTR):
                self._parser = Line()
            elif _may_become_a_header(data):
                self._start = data
                return
        super().dataReceived(data)


def read_headers(port: Any) -> None:
    """Have the connections of an open port, if they begin with headers, read them so."""
    factory: Any = getattr(port, "factory", None)
    while factory is not None:
        if type(factory) is HAProxyWrappingFactory:
            factory.protocol = ProxyHeader  # type: ignore[assignment]  # of a subclass
        factory = getattr(factory, "wrappedFactory", None)


def _may_become_a_header(data: bytes) -> bool:
    return V1Parser.PROXYSTR.startswith(data) or (
        len(data) < _V2_START and V2Parser.PREFIX.startswith(data[: len(V2Parser.PREFIX)])
    )


def _check(address: Any) -> None:
    """Raise `ValueError` if there is no such address."""
    kind = ipaddress.IPv4Address if isinstance(address, IPv4Address) else ipaddress.IPv6Address
    kind(address.host)
    if not 0 <= address.port <= MAX_PORT:
        raise ValueError(address.port)
