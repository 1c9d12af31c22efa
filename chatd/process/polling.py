"""How many sockets are served in one turn of the reactor.

Twisted's reactor reads all sockets that have something in one turn. With a thousand busy clients
that takes a tenth of a second, in which no result of the store is passed on and no timer fires.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

EVENTS: Final = 64
"""Sockets that are read or written in a turn, at first. The kernel begins with the next ones the
next time (epoll(7): a file that is reported goes to the end of the list)."""
LEAST_EVENTS: Final = 32
MAX_EVENTS: Final = 512
"""They become fewer while such turns take longer than `LONG_SECONDS`, and more while they do not:
thousands of sockets with a small request each, of one client, would have another one's wait for a
hundred turns otherwise."""
LONG_SECONDS: Final = 0.012


class BoundedPoller:
    """An epoll object that reports few events at once, see `EVENTS`.

    `seconds` is the time that the thread has worked.
    """

    def __init__(self, poller: Any, seconds: Callable[[], float] = time.thread_time) -> None:
        self._poll = poller.poll
        self._seconds = seconds
        self._most = EVENTS
        # When the turn began, if there may be more than it serves.
        self._began: float | None = None
        # What the reactor calls often.
        self.register = poller.register
        self.modify = poller.modify
        self.unregister = poller.unregister

    def poll(self, timeout: float, maxevents: int) -> Any:
        """See `select.epoll.poll`."""
        if self._began is not None:
            if self._seconds() - self._began > LONG_SECONDS:
                self._most = max(self._most // 2, LEAST_EVENTS)
            else:
                self._most = min(self._most + LEAST_EVENTS, MAX_EVENTS)
        events = self._poll(timeout, min(maxevents, self._most))
        self._began = self._seconds() if len(events) == self._most else None
        return events


def bound_turns(reactor: Any) -> None:
    """Have a reactor that uses epoll serve few sockets in a turn."""
    # An attribute of Twisted's class that is not public; tests/process/test_polling.py would fail
    # without it.
    poller = getattr(reactor, "_poller", None)
    if poller is not None and not isinstance(poller, BoundedPoller):
        reactor._poller = BoundedPoller(poller)
