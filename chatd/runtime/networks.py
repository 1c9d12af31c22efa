"""Networks that one subscriber controls, from the address of a client."""

from __future__ import annotations

import ipaddress
from collections import Counter
from functools import lru_cache
from math import inf
from typing import Final

IPV6_PREFIXES: Final = (64, 56, 48)
"""What a host, a household and a company are usually given."""

NETWORK_FACTORS: Final = (1, 2, 4)
"""How much more than an IPv4 address or an IPv6 /64 network a /56 and a /48 may have."""

_NAT64: Final = int(ipaddress.IPv6Address("64:ff9b::")) >> 32
"""The prefix of IPv4 addresses behind a translator, RFC 6052 section 2.1."""


@lru_cache(4096)
def networks(address: str) -> tuple[str, ...]:
    """The networks of an IPv6 address, the smallest one first; otherwise the address alone.

    What is no IP address, such as `local`, is taken as it is.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return (address,)
    if ip.version == 4:
        return (address,)
    if ip.ipv4_mapped is not None:
        return (str(ip.ipv4_mapped),)
    number = int(ip)
    if number >> 32 == _NAT64:
        return (str(ipaddress.IPv4Address(number & 0xFFFFFFFF)),)
    return tuple(
        str(ipaddress.IPv6Network((number >> 128 - prefix << 128 - prefix, prefix)))
        for prefix in IPV6_PREFIXES
    )


@lru_cache(4096)
def network(address: str) -> str:
    """The largest of the `networks` of an address: what has turns as if it were one client."""
    return networks(address)[-1]


class NetworkCounts:
    """Amounts of addresses, each of which counts in all of its `networks`."""

    def __init__(self) -> None:
        self._amounts: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._amounts)

    def add(self, networks: tuple[str, ...], amount: int) -> None:
        """Add to the networks of an address; a negative amount is taken away again."""
        for network in networks:
            self._amounts[network] += amount
            if not self._amounts[network]:
                del self._amounts[network]

    def clear(self) -> None:
        """Take all away."""
        self._amounts.clear()

    def of(self, networks: tuple[str, ...]) -> int:
        """The amount of the address, or of its smallest network; 0 of an address without any."""
        return self._amounts.get(networks[0], 0) if networks else 0

    def excess(
        self,
        networks: tuple[str, ...],
        limit: int,
        most: float = inf,
        others: NetworkCounts | None = None,
    ) -> float:
        """How much one of the networks has beyond its limit, negative if none has.

        That is `limit` times the factor of the network, and `most` at most. What it has in `others`
        counts as well.
        """
        more = {} if others is None else others._amounts
        largest = -inf
        for network, factor in zip(networks, NETWORK_FACTORS, strict=False):
            allowed = min(limit * factor, most)
            largest = max(largest, self._amounts.get(network, 0) + more.get(network, 0) - allowed)
        return largest
