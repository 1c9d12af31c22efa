"""How many sockets are served in one turn of the reactor.

Twisted's reactor reads all sockets that have something in one turn. With a thousand busy clients
that takes a tenth of a second, in which no result of the store is passed on and no timer fires.
"""

from __future__ import annotations

from typing import Any, Final

MAX_EVENTS: Final = 64
"""Sockets that are read or written in a turn. The kernel begins with the next ones the next time
(epoll(7): a file that is reported goes to the end of the list)."""


class BoundedPoller:
    """An epoll object that reports at most `MAX_EVENTS` events at once."""

    def __init__(self, poller: Any) -> None:
        self._poll = poller.poll
        # What the reactor calls often.
        self.register = poller.register
        self.modify = poller.modify
        self.unregister = poller.unregister

    def poll(self, timeout: float, maxevents: int) -> Any:
        """See `select.epoll.poll`."""
        return self._poll(timeout, min(maxevents, MAX_EVENTS))


def bound_turns(reactor: Any) -> None:
    """Have a reactor that uses epoll serve at most `MAX_EVENTS` sockets in a turn."""
    # An attribute of Twisted's class that is not public; tests/process/test_polling.py would fail
    # without it.
    poller = getattr(reactor, "_poller", None)
    if poller is not None and not isinstance(poller, BoundedPoller):
        reactor._poller = BoundedPoller(poller)
