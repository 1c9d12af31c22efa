"""What is kept of what clients have sent, by address and in all.

Nobody has to have an account to send most of a large body and then nothing for a while, on as many
connections as there may be. And what a request has brought along may be kept until it is answered,
which may take hours.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from chatd.runtime.networks import NetworkCounts

MAX_RECEIVED: Final = 128 << 20
"""Bytes of all connections beyond which one that adds to them is refused."""
MAX_RECEIVED_OF_ADDRESS: Final = 16 << 20
"""The same for an IPv4 address or an IPv6 /64 network whose connections are limited. A /56 may have
twice as much, a /48 four times."""

SMALL_BYTES: Final = 2 << 10
"""How large a request that is being answered may be, or the head of the last one, to be kept by its
connection without being counted."""


class ReceivedBytes:
    """The connections of a server that hold a part of a request, requests that wait, or a large one
    that is being answered.

    Most have none: what comes in one piece is handled at once, and is small. `refused` is called
    with the bound that was reached.
    """

    def __init__(self, refused: Callable[[str], None] = lambda bound: None) -> None:
        self._refused = refused
        self._held: dict[Hashable, tuple[tuple[str, ...], int]] = {}
        self._of_address = NetworkCounts()
        self.total = 0
        """How many bytes are held."""

    def hold(self, connection: Hashable, networks: tuple[str, ...], size: int) -> bool:
        """A connection holds so many bytes now; returns whether it may.

        `networks` are those of its address, where it is counted as well.
        """
        self.release(connection)
        bound = self._bound(networks, size)
        if bound is not None:
            self._refused(bound)
            return False
        self._held[connection] = (networks, size)
        self.total += size
        self._of_address.add(networks, size)
        return True

    def release(self, connection: Hashable) -> None:
        """It holds nothing any more."""
        held = self._held.pop(connection, None)
        if held is not None:
            networks, size = held
            self.total -= size
            self._of_address.add(networks, -size)

    def _bound(self, networks: tuple[str, ...], size: int) -> str | None:
        if self.total + size > MAX_RECEIVED:
            return "received_bytes"
        if self._of_address.excess(networks, MAX_RECEIVED_OF_ADDRESS) + size > 0:
            return "received_bytes_of_address"
        return None
