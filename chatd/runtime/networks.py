"""Networks that one subscriber controls, from the address of a client."""

from __future__ import annotations

import ipaddress
from typing import Final

IPV6_PREFIXES: Final = (64, 56, 48)
"""What a host, a household and a company are usually given."""


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
    return tuple(
        str(ipaddress.IPv6Network((number >> 128 - prefix << 128 - prefix, prefix)))
        for prefix in IPV6_PREFIXES
    )


def network(address: str) -> str:
    """The smallest of `networks`: an IPv4 address, or an IPv6 /64 network."""
    return networks(address)[0]
