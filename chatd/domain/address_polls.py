"""How many polls and streams the clients of one address hold, behind proxies.

Who connects directly is limited in connections. Behind a proxy one address could hold all that the
process may, by registering accounts for a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from chatd.errors import Overloaded
from chatd.runtime.networks import network

RETRY_SECONDS: Final = 30.0


class AddressPolls:
    """Counts by `place`: an IPv4 address, or an IPv6 /48 network: two /64 networks
    may have one owner, who would hold all there are.

    `most` returns how many there may be; None: any number.
    """

    def __init__(self, most: Callable[[], int | None]) -> None:
        self._most = most
        self._held: Counter[str] = Counter()

    def place(self, address: str | None) -> str | None:
        """Where a client is counted; None, for one that is not, passes through."""
        return None if address is None else network(address)

    def enter(self, place: str | None) -> None:
        """Count a poll or stream; raises `Overloaded`."""
        if place is None:
            return
        most = self._most()
        if most is not None and self._held[place] >= most:
            raise Overloaded(
                "too many polls and streams of this address", RETRY_SECONDS, "polls_of_address"
            )
        self._held[place] += 1

    def leave(self, place: str | None) -> None:
        """It has ended."""
        if place is not None:
            self._held[place] -= 1
            if not self._held[place]:
                del self._held[place]
