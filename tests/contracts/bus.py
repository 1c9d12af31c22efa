"""Contract of `IBus`, for the test module of each implementation.

A test module subclasses `BusContract` and defines the fixture `open_bus`: `await open_bus()`
returns a bus that is not started. The fixture stops it after the test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer
from zope.interface.verify import verifyObject

from chatd.interfaces import IBus, ISubscriber
from chatd.model import (
    MAX_INTEGER,
)
from tests.contracts.helpers import digest

OpenBus: TypeAlias = Callable[[], Awaitable[IBus]]

BUS_SECONDS = 10.0
"""How long a wake-up may take before a test gives it up."""


@implementer(ISubscriber)
class Recorder:
    """A subscriber that notes what it is told; a test waits for what it expects."""

    def __init__(self) -> None:
        self.woken: Counter[int] = Counter()
        self.all = 0
        self.ended: list[tuple[int, bytes | None]] = []
        self._waiting: list[tuple[Callable[[Recorder], object], Deferred[None]]] = []

    def wake(self, user_ids: Collection[int]) -> None:
        self.woken.update(user_ids)
        self._look()

    def wake_all(self) -> None:
        self.all += 1
        self._look()

    def revoked(self, user_id: int, token: bytes | None) -> None:
        self.ended.append((user_id, token))
        self._look()

    def until(self, condition: Callable[[Recorder], object]) -> Deferred[None]:
        """Fires when the condition holds; fails with `TimeoutError` if it never does."""
        from twisted.internet import reactor

        clock = IReactorTime(reactor)
        told: Deferred[None] = Deferred()
        self._waiting.append((condition, told))
        told.addTimeout(BUS_SECONDS, clock)
        self._look()
        return told

    def heard(self, *user_ids: int) -> Deferred[None]:
        """Fires when all of these users were woken."""
        return self.until(lambda told: told.woken.keys() >= set(user_ids))

    def _look(self) -> None:
        for waiting in tuple(self._waiting):
            condition, told = waiting
            if not told.called and condition(self):
                self._waiting.remove(waiting)
                told.callback(None)


class BusContract:
    """What every `IBus` does for the process that publishes; other processes are its own tests."""

    @ensureDeferred
    async def test_it_provides_the_interface(self, open_bus: OpenBus) -> None:
        verifyObject(IBus, await open_bus())

    @ensureDeferred
    async def test_it_has_a_problem_unless_it_is_started(self, open_bus: OpenBus) -> None:
        bus = await open_bus()
        assert bus.problem()
        await bus.start(Recorder())
        assert bus.problem() is None
        await bus.stop()
        assert bus.problem()

    @ensureDeferred
    async def test_what_is_published_after_the_start_wakes(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        bus.publish([7])
        await told.heard(7)
        bus.publish({1, 2, MAX_INTEGER})
        await told.heard(1, 2, 7, MAX_INTEGER)
        assert told.woken.keys() == {1, 2, 7, MAX_INTEGER}

    @ensureDeferred
    async def test_publishing_nothing_wakes_nobody(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        bus.publish([])
        bus.publish([7])
        await told.heard(7)
        assert told.woken.keys() == {7}

    @ensureDeferred
    async def test_thousands_are_woken_at_once(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        everyone = [MAX_INTEGER - number for number in range(5000)]
        before = told.all
        bus.publish(everyone)
        await told.until(lambda told: told.all > before or told.woken.keys() >= set(everyone))

    @ensureDeferred
    async def test_a_burst_loses_nobody(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        for user_id in range(1, 501):
            bus.publish([user_id])
        await told.heard(*range(1, 501))

    @ensureDeferred
    async def test_revocations_are_told_each_and_exactly(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        revocations = [
            (1, digest("1")),
            (1, None),
            (MAX_INTEGER, bytes(32)),
            (2, b"\xff" * 32),
            (2, bytes(range(32))),
            (3, None),
        ]
        for user_id, token in revocations:
            bus.publish_revoked(user_id, token)
        await told.until(lambda told: len(told.ended) >= len(revocations))
        assert set(told.ended) == set(revocations)
        assert not told.woken

    @ensureDeferred
    async def test_a_stopped_bus_tells_nothing(self, open_bus: OpenBus) -> None:
        bus, told = await open_bus(), Recorder()
        await bus.start(told)
        bus.publish([1])
        await told.heard(1)
        await bus.stop()
        bus.publish([2])
        bus.publish_revoked(2, None)
        assert 2 not in told.woken
        assert told.ended == []

    @ensureDeferred
    async def test_stopping_what_was_never_started_is_no_fault(self, open_bus: OpenBus) -> None:
        bus = await open_bus()
        await bus.stop()
