"""Which names a server answers to.

A page of another site can have its own name resolve to this machine (DNS rebinding) and then read
responses as its own; only the Host header shows that the request was not meant for this server.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Final

ANY: Final = "*"


class AllowedHosts:
    """Hosts by name: `example.org`, `.example.org` (that and all below it), or `*` (any).

    Addresses and localhost are always allowed: no site can have them for its name.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self._any = ANY in names
        self._names = frozenset(
            name.lower().removeprefix(".").encode("ascii") for name in names if name != ANY
        )
        self._suffixes = tuple(
            name.lower().encode("ascii") for name in names if name.startswith(".")
        )

    def allow(self, host: bytes) -> bool:
        """Whether `host`, a valid Host header in lower case, names this server."""
        if self._any:
            return True
        name = _without_port(host).removesuffix(b".")
        return (
            name in self._names
            or name == b"localhost"
            or name.endswith((*self._suffixes, b".localhost"))
            or _is_address(name)
        )


def _without_port(host: bytes) -> bytes:
    if host.startswith(b"["):
        return host[1 : host.find(b"]")]
    return host.partition(b":")[0]


def _is_address(name: bytes) -> bool:
    try:
        ipaddress.ip_address(name.decode("ascii"))
    except ValueError:
        return False
    return True


ANY_HOST: Final = AllowedHosts([ANY])
