"""Readiness check: whether a load balancer should send requests to this process."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.interfaces import IReactorTime

from chatd.interfaces import IBus, IStore
from chatd.runtime.shield import shield

CHECK_SECONDS: Final = 1.0


class Readiness:
    """Ready while the store answers within a second, the bus works and the process is not draining.

    `draining` is set by the service when it begins to stop.
    """

    def __init__(self, store: IStore, bus: IBus, clock: IReactorTime) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self.draining = False

    async def reasons(self) -> list[str]:
        """Why this process is not ready; empty if it is."""
        reasons = ["draining"] if self.draining else []
        problem = self._bus.problem()
        if problem is not None:
            reasons.append(problem)
        try:
            await shield(self._store.check()).addTimeout(CHECK_SECONDS, self._clock)
        except TimeoutError:
            reasons.append(f"the store did not answer within {CHECK_SECONDS:g} s")
        except CancelledError:  # the client has disconnected
            raise
        except Exception as error:
            reasons.append(f"the store: {error}")
        return reasons
