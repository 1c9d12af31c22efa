"""Readiness check: whether a load balancer should send requests to this process."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from chatd.interfaces import IBus, IStore
from chatd.runtime.slices import in_slices

CHECK_SECONDS: Final = 1.0


class Readiness:
    """Ready while the store answers within a second, the bus works and the process is not draining.

    `draining` is set by the service when it begins to stop. Anybody may ask, and any number at
    once: the store is asked by one of them at a time, for all.
    """

    def __init__(self, store: IStore, bus: IBus, clock: IReactorTime) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        # Who waits for the check that is under way; as a set, in order.
        self._waiting: dict[Deferred[object], None] = {}
        self._is_checking = False
        self.draining = False

    async def reasons(self) -> list[str]:
        """Why this process is not ready; empty if it is."""
        reasons = ["draining"] if self.draining else []
        problem = self._bus.problem()
        if problem is not None:
            reasons.append(problem)
        try:
            await self._check().addTimeout(CHECK_SECONDS, self._clock)
        except TimeoutError:
            reasons.append(f"the store did not answer within {CHECK_SECONDS:g} s")
        except CancelledError:  # the client has disconnected
            raise
        except Exception as error:
            reasons.append(f"the store: {error}")
        return reasons

    def _check(self) -> Deferred[object]:
        """The outcome of the check that is under way, or of a new one."""
        answer: Deferred[object] = Deferred(lambda cancelled: self._waiting.pop(cancelled, None))
        self._waiting[answer] = None
        if not self._is_checking:
            self._is_checking = True
            self._store.check().addBoth(self._checked)
        return answer

    def _checked(self, outcome: object) -> None:
        self._is_checking = False
        waiting, self._waiting = self._waiting, {}

        def tell(answer: Deferred[object]) -> None:
            if not answer.called:
                answer.callback(outcome)  # a Failure is passed to the errbacks

        in_slices(self._clock, iter(waiting), tell)
