"""Finding out where inboxes begin: at once, but not too often, and until it succeeds."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.errors import StoreUnavailable
from chatd.runtime.delays import Delays
from chatd.store.postgres.missed_removals import LOOK_SECONDS, MissedRemovals
from tests.conftest import LoggedFailures
from tests.doubles import fired


class Loads:
    """Counts how often was looked."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.delays = Delays(self.clock)
        self.count = 0
        self.error: Exception | None = None
        self.missed = MissedRemovals(self.load, self.delays.wait)

    async def load(self) -> None:
        self.count += 1
        if self.error is not None:
            raise self.error


def test_it_looks_at_once_and_then_at_most_every_ten_seconds() -> None:
    loads = Loads()
    for _ in range(3):
        loads.missed.look()
    assert loads.count == 1
    loads.clock.advance(LOOK_SECONDS)
    assert loads.count == 2
    loads.clock.advance(LOOK_SECONDS)
    assert loads.count == 2
    assert loads.clock.getDelayedCalls() == []
    loads.missed.look()
    assert loads.count == 3


def test_it_looks_until_it_has_found_out(logged_failures: LoggedFailures) -> None:
    loads = Loads()
    loads.error = StoreUnavailable("away", 1)
    loads.missed.look()
    loads.clock.advance(LOOK_SECONDS)
    assert loads.count == 2
    loads.error = None
    loads.clock.pump([LOOK_SECONDS] * 3)
    assert loads.count == 3
    loads.error = ValueError("a fault")
    loads.missed.look()
    assert len(logged_failures.flush(ValueError)) == 1
    loads.missed.look()
    assert loads.count == 5
    logged_failures.flush(ValueError)


def test_it_stops() -> None:
    loads = Loads()
    loads.missed.look()
    loads.missed.look()
    loads.missed.stop()
    idle = Deferred.fromCoroutine(loads.missed.wait_idle())
    assert not fired(idle)
    loads.delays.stop()
    assert fired(idle)
    loads.missed.look()
    assert loads.count == 1
