"""A batcher for each lane of the store, so that one that fails or is slow holds up no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, gatherResults

from chatd.domain.batch import Batcher, Receiver

Q = TypeVar("Q")
R = TypeVar("R")

Run = Callable[[Sequence[Q], float], Deferred[Any]]


class LaneBatcher(Generic[Q, R]):
    """Batchers that `make` makes for `run`, one for each lane that an item has had so far."""

    def __init__(
        self,
        run: Run[Q],
        lane: Callable[[Q], int],
        make: Callable[[Run[Q]], Batcher[Q, R]],
    ) -> None:
        self._run = run
        self._lane = lane
        self._make = make
        self._batchers: dict[int, Batcher[Q, R]] = {}

    def submit(self, item: Q) -> Deferred[R]:
        """See `Batcher.submit`."""
        return self._of(item).submit(item)

    def enqueue(self, item: Q, receiver: Receiver) -> None:
        """See `Batcher.enqueue`."""
        self._of(item).enqueue(item, receiver)

    @property
    def queued(self) -> int:
        """The number of items that wait for the next call of their lane."""
        return sum(each.queued for each in self._batchers.values())

    def wait_idle(self) -> Deferred[None]:
        """Fires when no item is queued or being processed."""
        idle = gatherResults([each.wait_idle() for each in self._batchers.values()])
        return idle.addCallback(lambda _: None)

    def _of(self, item: Q) -> Batcher[Q, R]:
        lane = self._lane(item)
        batcher = self._batchers.get(lane)
        if batcher is None:
            batcher = self._batchers[lane] = self._make(self._call)
        return batcher

    def _call(self, items: Sequence[Q], within: float) -> Deferred[Any]:
        return self._run(items, within)
