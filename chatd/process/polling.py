"""Which sockets are served in one turn of the reactor.

Twisted's reactor reads all sockets that have something in one turn. With a thousand busy clients
that takes a tenth of a second, in which no result of the store is passed on and no timer fires. So
a turn serves them for some milliseconds. What it has no time for is served in the next turns, for
addresses in turn, where an IPv6 /48 network counts as one: however many sockets of one address are
ready, one of another address is the next to be served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from chatd.runtime.networks import network
from chatd.runtime.turn import Turn, turn_of

POLL_SECONDS: Final = 0.002
"""For how long sockets are read and written in a turn; the rest is for what they have asked for."""
MAX_EVENTS: Final = 2048
"""Sockets that the kernel reports at once. It begins with the next ones the next time (epoll(7): a
file that is reported goes to the end of the list)."""
ALONE_FACTOR: Final = 2.0
"""How much longer turns may be while all sockets that are ready are of one address: long turns cost
less, and nobody else waits."""
FEW_EVENTS: Final = 4
"""So few are served whatever time they take."""

Event = tuple[int, int]
"""A descriptor and what it is ready for, as epoll reports it."""

_NO_ADDRESS: Final = ""
"""What has no peer: ports, the reactor's own pipe, connections to databases. They are few."""


class FairPoller:
    """An epoll object whose events take turns.

    `selectables` are Twisted's by their descriptors. A `turn` begins when there are events.
    """

    def __init__(
        self,
        poller: Any,
        selectables: Mapping[int, Any],
        turn: Turn,
        seconds: Callable[[], float],
    ) -> None:
        self._poll = poller.poll
        self._selectables = selectables
        self._turn = turn
        self._seconds = seconds
        # Descriptors for which the last turn had no time, in order. The kernel reports again those
        # that are still ready, and what for.
        self._left: list[int] = []
        # Whether those that were ready were more than there was time for, and all of one address.
        self._is_alone = False
        # When addresses of which more are ready were last served, as a number of `_served_last`.
        self._served_at: dict[str, int] = {}
        self._served_last = 0
        # What the reactor calls often.
        self.register = poller.register
        self.modify = poller.modify
        self.unregister = poller.unregister

    def poll(self, timeout: float, maxevents: int) -> Iterable[Event]:
        """See `select.epoll.poll`; the events end when the time of the turn is over."""
        events: list[Event] = self._poll(timeout, min(maxevents, MAX_EVENTS))
        self._turn.begin(self._seconds(), ALONE_FACTOR if self._is_alone else 1.0)
        self._is_alone = False
        if self._left:
            return self._in_turn(dict(events))
        return events if len(events) <= FEW_EVENTS else self._in_order(events)

    def _in_order(self, events: Sequence[Event]) -> Iterator[Event]:
        seconds = self._seconds
        until = seconds() + POLL_SECONDS
        left = iter(events)
        for event in left:
            yield event
            if seconds() >= until:
                addresses = self._by_address(fd for fd, _ in events)
                addresses.pop(_NO_ADDRESS, None)
                if self._is_alone or len(addresses) > 1:
                    break
                self._is_alone = True
                until += POLL_SECONDS * (ALONE_FACTOR - 1)
                if seconds() >= until:
                    break
        self._left = [fd for fd, _ in left]

    def _in_turn(self, ready: dict[int, int]) -> Iterator[Event]:
        # Those that have waited longest come first.
        waited = dict.fromkeys(fd for fd in self._left if fd in ready)
        fds = [*waited, *(fd for fd in ready if fd not in waited)]
        groups = self._by_address(fds)
        served = set(groups.get(_NO_ADDRESS, ()))
        for fd in groups.pop(_NO_ADDRESS, ()):
            yield fd, ready[fd]
        self._is_alone = len(groups) == 1
        seconds = self._seconds
        until = seconds() + POLL_SECONDS * (ALONE_FACTOR if self._is_alone else 1.0)
        # A turn may have time for a single one, so the next turn goes on with the next address. One
        # of which nothing was left is the first.
        at = self._served_at
        at = self._served_at = {address: at.get(address, 0) for address in groups}
        for address, fd in _in_rotation(
            {each: groups[each] for each in sorted(at, key=at.__getitem__)}
        ):
            self._served_last += 1
            at[address] = self._served_last
            yield fd, ready[fd]
            served.add(fd)
            if seconds() >= until:
                break
        self._left = [fd for fd in fds if fd not in served]

    def _by_address(self, fds: Iterable[int]) -> dict[str, list[int]]:
        find = self._selectables.get
        groups: dict[str, list[int]] = {}
        for fd in fds:
            client = getattr(find(fd), "client", None)
            address = network(client[0]) if isinstance(client, tuple) else _NO_ADDRESS
            if address in groups:
                groups[address].append(fd)
            else:
                groups[address] = [fd]
        return groups


def _in_rotation(groups: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, int]]:
    """One of each group with its name, then another one of each, and so on."""
    queues = deque((address, iter(fds)) for address, fds in groups.items())
    while queues:
        address, fds = queues.popleft()
        for fd in fds:
            yield address, fd
            queues.append((address, fds))
            break


def bound_turns(reactor: Any) -> None:
    """Have a reactor that uses epoll serve sockets in turn."""
    # Attributes of Twisted's class that are not public; tests/process/test_polling.py would fail
    # without them.
    poller = getattr(reactor, "_poller", None)
    if poller is not None and not isinstance(poller, FairPoller):
        reactor._poller = FairPoller(
            poller, reactor._selectables, turn_of(reactor), reactor.seconds
        )
