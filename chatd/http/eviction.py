"""Which connection is closed so that there is room for that of somebody who has fewer.

A few addresses can hold all connections that there may be, with a small request now and then on
each, or half a head. To find one that may go does not take long however many there are: networks
are known by the number of their connections, and of these a few are looked at. Those that may not
go are put behind the others, and so seldom looked at again.
"""

from __future__ import annotations

from typing import Final, Protocol

MARGIN: Final = 16
"""How many more connections than that of a newcomer a network has of which one is closed for it."""
LOOKED_AT: Final = 16
"""Connections that wait of that network, of which the one that has waited longest is closed."""
PASSED_OVER: Final = 500
"""Connections that do not wait and are looked at, in one go."""


class Evictable(Protocol):
    """An open connection."""

    def waits_since(self) -> float | None:
        """Since when it has waited for its client to send a request; None if it does not wait."""

    def evict(self) -> None:
        """Close now, for others to have room."""


class OpenConnections:
    """Open connections by their network: an IPv4 address, or an IPv6 /48."""

    def __init__(self) -> None:
        self._of_network: dict[str, dict[Evictable, None]] = {}
        # The networks with so many connections, by this number.
        self._networks: dict[int, dict[str, None]] = {}
        self.most = 0
        """How many the network has that has most."""

    def count(self, network: str) -> int:
        """How many connections a network has."""
        return len(self._of_network.get(network, ()))

    def add(self, network: str, connection: Evictable) -> None:
        """A connection is open."""
        connections = self._of_network.setdefault(network, {})
        before = len(connections)
        connections[connection] = None
        self._move(network, before, before + 1)
        self.most = max(self.most, before + 1)

    def remove(self, network: str, connection: Evictable) -> None:
        """A connection is closed, if it was open."""
        connections = self._of_network.get(network, {})
        before = len(connections)
        if connections.pop(connection, connection) is connection:
            return
        if before == 1:
            del self._of_network[network]
        self._move(network, before, before - 1)
        if self.most not in self._networks:
            # That network has one less now.
            self.most = before - 1

    def evict_for(self, others: int) -> bool:
        """Close a connection for somebody who has so many; returns whether there is one to close.

        That is one of the network with most of which some wait, if this has more by `MARGIN`.
        """
        left = PASSED_OVER
        for number in sorted(self._networks, reverse=True):
            if number <= others + MARGIN:
                break
            for network in list(self._networks[number]):
                longest, passed = self._longest(network, left)
                if longest is not None:
                    self.remove(network, longest)
                    longest.evict()
                    return True
                left -= passed
                if left <= 0:
                    return False
        return False

    def _longest(self, network: str, most_passed: int) -> tuple[Evictable | None, int]:
        """Of those of a network that wait, one that has waited long; and how many others were
        looked at, of which there are so many at most."""
        connections = self._of_network[network]
        longest: Evictable | None = None
        since = 0.0
        waiting = 0
        passed = []
        for connection in connections:
            waits = connection.waits_since()
            if waits is None:
                passed.append(connection)
                if len(passed) >= most_passed:
                    break
                continue
            if longest is None or waits < since:
                longest, since = connection, waits
            waiting += 1
            if waiting >= LOOKED_AT:
                break
        for connection in passed:
            # The next time they are behind all others, so that few are passed over.
            del connections[connection]
            connections[connection] = None
        return longest, len(passed)

    def _move(self, network: str, before: int, after: int) -> None:
        if before:
            networks = self._networks[before]
            del networks[network]
            if not networks:
                del self._networks[before]
        if after:
            self._networks.setdefault(after, {})[network] = None
