"""How many connections a server accepts, in all and from one address."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf
from typing import Any, Final

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from chatd.http.errors import HTTPError, address_full, server_full
from chatd.runtime.networks import NetworkCounts, networks

BEING_REFUSED: Final = 16
"""Connections beyond the limit, in all or of an address, that are told so at once. While there are
as many in all, the ports do not accept; further ones of an address are closed without a word."""

NO_ROOM: Final = server_full()

_log = Logger()


class Admission:
    """Counts connections. `ports`, the open ones, pause while nothing more can be refused.

    `max_connections` and `max_per_address` (an IPv4 address, or an IPv6 /64 network; a /56 may have
    twice as many, a /48 four times; each three quarters of all at most) may be None. The latter may
    be changed; connections accepted while it was None do not count.
    Addresses for which `is_exempt` have no limit of their own. `refused` is called with the bound
    that was reached: `connections` or `connections_of_address`.
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
        self._of_address = NetworkCounts()
        self.waiting = 0
        """How many connections were taken from the kernel and are not made yet."""
        self._waiting_of_address = NetworkCounts()
        self._paused = False

    def add_port(self, port: Any) -> None:
        """A port was opened."""
        self.ports.append(port)

    @property
    def room(self) -> int:
        """How many connections may be open besides those that are; negative while the ports pause,
        or while connections beyond the limit are refused."""
        return sys.maxsize if self.max_connections is None else self.max_connections - self._open

    @property
    def is_accepting(self) -> bool:
        """Whether the ports accept connections."""
        return not self._paused

    def enter(self, address: IAddress | None) -> tuple[tuple[str, ...], HTTPError | None]:
        """Count a connection; returns its address for `leave`, as `networks`, if that has a limit,
        and why it is refused, if it is. `NO_ROOM`: it is to be closed without a word."""
        limit = self.max_connections
        counted = self._counted(getattr(address, "host", None))
        refusal = None
        if limit is not None and self._open >= limit:
            refusal = server_full()
            self._refused("connections")
            if self._open >= limit + BEING_REFUSED:
                refusal = NO_ROOM
                self._pause(True)
        elif counted:
            excess = self._of_address.excess(counted, self.max_per_address or 0, self._most)
            if excess >= 0:
                # Those that are told so have a descriptor for as long as that takes.
                refusal = address_full() if excess < BEING_REFUSED else NO_ROOM
                self._refused("connections_of_address")
        self.refusals += refusal is not None
        self._open += 1
        self._of_address.add(counted, 1)
        return counted, refusal

    def leave(self, counted: tuple[str, ...]) -> None:
        """A connection is closed."""
        self._open -= 1
        self._of_address.add(counted, -1)
        if self._paused and self._open < (self.max_connections or 0) + BEING_REFUSED // 2:
            self._pause(False)

    def wait(self, host: str) -> tuple[str, ...] | None:
        """Count a connection from this address until `stop_waiting` is called with the result.

        None: with those that are open or wait, the address has as many as `enter` would refuse with
        `NO_ROOM`.
        """
        counted = self._counted(host)
        if counted:
            waiting = self._waiting_of_address
            limit = self.max_per_address or 0
            excess = self._of_address.excess(counted, limit, self._most, waiting)
            if excess >= BEING_REFUSED:
                self._refused("connections_of_address")
                self.refusals += 1
                return None
            waiting.add(counted, 1)
        self.waiting += 1
        return counted

    def stop_waiting(self, counted: tuple[str, ...]) -> None:
        """A connection is about to be made, or was closed."""
        self.waiting -= 1
        self._waiting_of_address.add(counted, -1)

    @property
    def _most(self) -> float:
        """How many connections any network may have."""
        return inf if self.max_connections is None else self.max_connections * 3 // 4

    def _counted(self, host: str | None) -> tuple[str, ...]:
        if self.max_per_address is None or host is None or self._is_exempt(host):
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
