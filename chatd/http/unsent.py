"""What clients have not read yet of their responses, by account, by address and in all.

A client that asks and does not read has the server keep the responses. What sockets have taken is
the kernel's; this is about what is left in the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

from chatd.http.eager_write import unsent_bytes
from chatd.runtime.networks import NetworkCounts

MAX_UNSENT_OF_OWNER: Final = 8 << 20
"""Bytes of one account that may be unsent before its reads are refused."""
MAX_UNSENT: Final = 256 << 20
"""Bytes that may be unsent in all before only those accounts can read that have read everything. At
twice that, all requests are refused but those of addresses that have read everything, at three
times that all."""
MAX_UNSENT_OF_ADDRESS: Final = 64 << 20
"""Bytes of an IPv4 address or an IPv6 /64 network whose connections are limited that may be unsent
before its requests are refused: nobody needs an account for the files of the page. A /56 may have
twice as much, a /48 four times."""

REFRESH_SECONDS: Final = 0.1
"""How old what is known of a connection may be."""


class Sender(Protocol):
    """A connection."""

    transport: Any


class UnsentBytes:
    """The connections of a server that have something unsent.

    `refused` is called with the bound that an address has reached.
    """

    def __init__(
        self, seconds: Callable[[], float], refused: Callable[[str], None] = lambda bound: None
    ) -> None:
        self._seconds = seconds
        self._refused = refused
        self.connections: dict[Sender, int | None] = {}
        """Those that had something unsent when they were last looked at, with the account. Usually
        there are none, and then nobody is refused."""
        self._networks: dict[Sender, tuple[str, ...]] = {}
        self._owned: Counter[int] = Counter()
        self._of_address = NetworkCounts()
        self._total = 0
        self._refreshed = float("-inf")

    @property
    def total(self) -> int:
        """How many bytes are unsent."""
        self._refresh(0.0)
        return self._total

    def add(self, connection: Sender, networks: tuple[str, ...]) -> None:
        """Not all that was written to this connection was taken by its socket; `networks` are those
        of its address, if that is counted."""
        if connection not in self.connections:
            size = unsent_bytes(connection.transport)
            if size:
                self.connections[connection] = None
                self._networks[connection] = networks
                self._of_address.add(networks, size)
                self._total += size

    def claim(self, connection: Sender, owner: int | None) -> None:
        """What was written was for this account."""
        if owner is not None and connection in self.connections:
            self.connections[connection] = owner
            self._owned[owner] += unsent_bytes(connection.transport)

    def remove(self, connection: Sender) -> None:
        """The connection is closed."""
        self.connections.pop(connection, None)
        self._networks.pop(connection, None)

    def admits(self, owner: int) -> bool:
        """Whether an account may read now."""
        if not self.connections:
            return True
        self._refresh(REFRESH_SECONDS)
        owned = self._owned.get(owner, 0)
        if owned > MAX_UNSENT_OF_OWNER:
            return False
        return self._total <= MAX_UNSENT or not owned

    def refuses(self, networks: tuple[str, ...]) -> bool:
        """Whether a request from an address in these networks is refused."""
        if not self.connections:
            return False
        self._refresh(REFRESH_SECONDS)
        if self._of_address.excess(networks, MAX_UNSENT_OF_ADDRESS) > 0:
            self._refused("unsent_bytes_of_address")
            return True
        reads = bool(networks) and not self._of_address.of(networks)
        if self._total <= (3 if reads else 2) * MAX_UNSENT:
            return False
        self._refused("unsent_bytes")
        return True

    def _refresh(self, age: float) -> None:
        now = self._seconds()
        if now - self._refreshed < age:
            return
        self._refreshed = now
        self._owned.clear()
        self._of_address.clear()
        self._total = 0
        for connection, owner in tuple(self.connections.items()):
            size = unsent_bytes(connection.transport)
            if not size:
                del self.connections[connection], self._networks[connection]
                continue
            self._total += size
            self._of_address.add(self._networks[connection], size)
            if owner is not None:
                self._owned[owner] += size
