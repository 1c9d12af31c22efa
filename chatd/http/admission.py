"""How many connections a server accepts, in all and from one address."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from chatd.http.errors import HTTPError, address_full, server_full
from chatd.http.eviction import MARGIN, Evictable, OpenConnections
from chatd.runtime.networks import NetworkCounts, networks

BEING_REFUSED: Final = 16
"""Connections beyond the limit, in all or of an address, that are told so at once. While there are
as many in all, the ports do not accept; further ones of an address are closed without a word."""
BEING_REPLACED: Final = 16
"""Connections beyond those that are open in the place of others, which are being closed. As long as
there are networks with so many that some may be closed, the ports go on accepting: they close those
of such networks without a word, if as many as may be are being refused."""

NO_ROOM: Final = server_full()

_log = Logger()


class Admission:
    """Counts connections. `ports`, the open ones, pause while nothing more can be refused.

    `max_connections` and `max_per_address` (an IPv4 address, or an IPv6 /64 network; a /56 may have
    twice as many, a /48 four times; each three quarters of all at most) may be None. The latter may
    be changed; connections accepted while it was None do not count.
    Addresses for which `is_exempt` have no limit of their own. `refused` is called with the bound
    that was reached: `connections` or `connections_of_address`.

    When there are as many as there may be, a new one takes the place of another one that waits for
    its client, of the network that has most (`OpenConnections`), unless `max_per_address` is None.
    """

    def __init__(
        self,
        max_connections: int | None = None,
        max_per_address: int | None = None,
        is_exempt: Callable[[str], bool] = lambda host: False,
        refused: Callable[[str], None] = lambda bound: None,
    ) -> None:
        self.ports: list[Any] = []
        self.max_connections = max_connections
        self.max_per_address = max_per_address
        self._is_exempt = is_exempt
        self._refused = refused
        self._open = 0
        self.refusals = 0
        """How many connections were refused."""
        self.evictions = 0
        """How many connections were closed for others."""
        self._of_address = NetworkCounts()
        self._connections = OpenConnections()
        # Whether none was found to be closed, and nothing has changed since.
        self._is_futile = False
        self.waiting = 0
        """How many connections were taken from the kernel and are not made yet."""
        self._waiting_of_address = NetworkCounts()
        self._paused = False

    def add_port(self, port: Any) -> None:
        """A port was opened."""
        self.ports.append(port)

    @property
    def takes_more(self) -> bool:
        """Whether one more connection may be taken from the kernel to wait."""
        limit = self.max_connections
        if limit is None:
            return True
        most = limit + (BEING_REFUSED + BEING_REPLACED if self._may_evict(0) else 0)
        return self._open + self.waiting < most

    @property
    def is_full(self) -> bool:
        """Whether connections that wait would only be refused."""
        limit = self.max_connections
        return self._paused or (limit is not None and self._open > limit and not self._may_evict(0))

    @property
    def is_accepting(self) -> bool:
        """Whether the ports accept connections."""
        return not self._paused

    def is_limited(self, host: str) -> bool:
        """Whether this address may have only so many connections."""
        return self.max_per_address is not None and not self._is_exempt(host)

    def count_others(self, networks: Iterable[str]) -> int:
        """How many connections are open that are not of these networks."""
        return self._open - sum(self._of_address.of((network,)) for network in networks)

    def handshakes_dropped(self) -> None:
        """Those of a network that connects too fast are dropped for a while."""
        self._refused("connection_rate")

    def enter(self, address: IAddress | None) -> tuple[tuple[str, ...], HTTPError | None]:
        """Count a connection; returns its address for `opened` and `leave`, as `networks`, if that
        has a limit, and why it is refused, if it is. `NO_ROOM`: it is to be closed without a word.
        """
        counted = self._counted(getattr(address, "host", None))
        excess = self._of_address.excess(counted, self.max_per_address or 0, self._most)
        beyond = self._beyond
        refusal = None
        if beyond >= 0 and (excess >= 0 or not self._evict_for(counted)):
            refusal = server_full()
            self._refuse("connections")
            if beyond >= BEING_REFUSED:
                refusal = NO_ROOM
                self._pause(beyond >= self._most_beyond)
        elif excess >= 0:
            # Those that are told so have a descriptor for as long as that takes.
            refusal = address_full() if excess < BEING_REFUSED else NO_ROOM
            self._refuse("connections_of_address")
        self._open += 1
        self._of_address.add(counted, 1)
        return counted, refusal

    def opened(self, counted: tuple[str, ...], connection: Evictable) -> None:
        """A connection is open that was not refused."""
        if counted:
            self._connections.add(counted[-1], connection)
            self._is_futile = False

    def leave(self, counted: tuple[str, ...], connection: Evictable | None = None) -> None:
        """A connection is closed, `connection` if it was `opened`."""
        self._open -= 1
        self._is_futile = False
        self._of_address.add(counted, -1)
        if counted and connection is not None:
            self._connections.remove(counted[-1], connection)
        if self._paused and self._beyond < self._most_beyond - BEING_REFUSED // 2:
            self._pause(False)

    def wait(
        self, host: str, make_room: Callable[[], bool] = lambda: False
    ) -> tuple[str, ...] | None:
        """Count a connection from this address until `stop_waiting` is called with the result.

        None: with those that are open or wait, there are as many, of the address or in all, that
        `enter` would refuse it with `NO_ROOM`. Before, `make_room` may have one that waits give up.
        """
        counted = self._counted(host)
        waiting = self._waiting_of_address
        bound = None
        if counted:
            limit = self.max_per_address or 0
            excess = self._of_address.excess(counted, limit, self._most, waiting)
            if excess >= BEING_REFUSED:
                bound = "connections_of_address"
        if (
            self._beyond + self.waiting >= BEING_REFUSED
            and not self._may_evict(
                self._connections.count(counted[-1]) + waiting.of(counted[-1:]) if counted else 0
            )
            and (bound is not None or not make_room())
        ):
            bound = "connections"
        if bound is not None:
            self._refuse(bound)
            return None
        waiting.add(counted, 1)
        self.waiting += 1
        return counted

    def give_up(self, counted: tuple[str, ...]) -> None:
        """A connection that waited was closed for another one."""
        self.stop_waiting(counted)
        self._refuse("connections")

    def stop_waiting(self, counted: tuple[str, ...]) -> None:
        """A connection is about to be made, or was closed."""
        self.waiting -= 1
        self._waiting_of_address.add(counted, -1)

    def _refuse(self, bound: str) -> None:
        """Count a connection that is refused."""
        self._refused(bound)
        self.refusals += 1

    @property
    def _beyond(self) -> float:
        """How many connections are open beyond those that may be; negative if there is room."""
        return -inf if self.max_connections is None else self._open - self.max_connections

    @property
    def _most_beyond(self) -> int:
        """At how many of these the ports pause."""
        return BEING_REFUSED + (BEING_REPLACED if self._may_evict(0) else 0)

    def _may_evict(self, others: int) -> bool:
        """Whether one may be closed for somebody who has so many."""
        return (
            self.max_per_address is not None
            and self._connections.most > others + MARGIN
            and not self._is_futile
        )

    def _evict_for(self, counted: tuple[str, ...]) -> bool:
        """Close a connection for one from this address, if there is one to close and descriptors
        are left until it is closed."""
        others = self._connections.count(counted[-1]) if counted else 0
        if self._beyond >= BEING_REFUSED + BEING_REPLACED or not self._may_evict(others):
            return False
        if not self._connections.evict_for(others):
            self._is_futile = True
            return False
        self.evictions += 1
        _log.warn(
            "{count} connections are open: one of an address with many is closed for another one",
            count=self._open,
        )
        return True

    @property
    def _most(self) -> float:
        """How many connections any network may have."""
        return inf if self.max_connections is None else self.max_connections * 3 // 4

    def _counted(self, host: str | None) -> tuple[str, ...]:
        if host is None or not self.is_limited(host):
            return ()
        return networks(host)

    def _pause(self, paused: bool) -> None:
        if paused == self._paused:
            return
        self._paused = paused
        if paused:
            _log.warn(
                "{count} connections are open: no more are accepted for now", count=self._open
            )
        for port in self.ports:
            # A port that is being closed has stopped for good.
            if getattr(port, "connected", False) and not getattr(port, "disconnecting", False):
                port.stopReading() if paused else port.startReading()
