"""Which sockets are served in one turn of the reactor.

Twisted's reactor reads all sockets that have something in one turn. With a thousand busy clients
that takes a tenth of a second, in which no result of the store is passed on and no timer fires. So
a turn serves them for some milliseconds. What it has no time for is served in the next turns, for
addresses in turn, where an IPv6 /48 network counts as one: however many sockets of one address are
ready, those of another one wait for one of them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from chatd.runtime.networks import networks
from chatd.runtime.turn import Turn, turn_of

POLL_SECONDS: Final = 0.002
"""For how long sockets are read and written in a turn; the rest is for what they have asked for."""
MAX_EVENTS: Final = 2048
"""Sockets that the kernel reports at once. It begins with the next ones the next time (epoll(7): a
file that is reported goes to the end of the list)."""
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
        # Descriptors for which the last turn had no time, by address, in the order in which they
        # are served next. The kernel reports them again if they are still ready, and what for.
        self._waiting: OrderedDict[str, deque[int]] = OrderedDict()
        # What the reactor calls often.
        self.register = poller.register
        self.modify = poller.modify
        self.unregister = poller.unregister

    def poll(self, timeout: float, maxevents: int) -> Iterable[Event]:
        """See `select.epoll.poll`; the events end when the time of the turn is over."""
        events: list[Event] = self._poll(timeout, min(maxevents, MAX_EVENTS))
        self._turn.begin(self._seconds())
        if self._waiting:
            return self._in_turn(events)
        if len(events) <= FEW_EVENTS:
            return events
        return self._in_order(events)

    def _in_order(self, events: Iterable[Event]) -> Iterator[Event]:
        seconds = self._seconds
        until = seconds() + POLL_SECONDS
        left = iter(events)
        for event in left:
            yield event
            if seconds() >= until:
                break
        for fd, _ in left:
            self._wait(fd)

    def _in_turn(self, events: Iterable[Event]) -> Iterator[Event]:
        ready = dict(events)
        known: set[int] = set()
        waiting = self._waiting
        for address, fds in tuple(waiting.items()):
            still = deque(fd for fd in fds if fd in ready)
            if still:
                waiting[address] = still
                known.update(still)
            else:
                del waiting[address]
        for fd in ready:
            if fd not in known:
                self._wait(fd)
        if _NO_ADDRESS in waiting:
            for fd in waiting.pop(_NO_ADDRESS):
                yield fd, ready[fd]
        seconds = self._seconds
        until = seconds() + POLL_SECONDS
        while waiting:
            fd = self._take()
            yield fd, ready[fd]
            if seconds() >= until:
                break

    def _wait(self, fd: int) -> None:
        client = getattr(self._selectables.get(fd), "client", None)
        address = networks(client[0])[-1] if isinstance(client, tuple) else _NO_ADDRESS
        fds = self._waiting.get(address)
        if fds is None:
            self._waiting[address] = deque((fd,))
        else:
            fds.append(fd)

    def _take(self) -> int:
        address, fds = next(iter(self._waiting.items()))
        fd = fds.popleft()
        if fds:
            self._waiting.move_to_end(address)
        else:
            del self._waiting[address]
        return fd


def bound_turns(reactor: Any) -> None:
    """Have a reactor that uses epoll serve sockets in turn."""
    # Attributes of Twisted's class that are not public; tests/process/test_polling.py would fail
    # without them.
    poller = getattr(reactor, "_poller", None)
    if poller is not None and not isinstance(poller, FairPoller):
        reactor._poller = FairPoller(
            poller, reactor._selectables, turn_of(reactor), reactor.seconds
        )
