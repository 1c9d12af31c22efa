"""Has the reactor measure time with the monotonic clock.

Twisted's `reactor.seconds` is the wall clock. If that is set back by a minute, everything that is
due then comes a minute late; if it is set forward, everything comes at once.
"""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_clock(reactor: Any) -> None:
    """Replace `reactor.seconds`; what is scheduled already comes when it was due.

    From then on `reactor.seconds` is for durations only.
    """
    passed = time.monotonic() - reactor.seconds()
    reactor.seconds = time.monotonic
    for call in reactor.getDelayedCalls():
        # A delayed call has a copy of the method.
        call.seconds = time.monotonic
        call.time += passed
