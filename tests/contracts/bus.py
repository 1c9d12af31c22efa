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
"""How long a test waits for a wake-up."""


@implementer(ISubscriber)
class Recorder:
    """A subscriber that records its calls and lets tests wait for them."""

    def __init__(self) -> None:
        self.woken: Counter[int] = Counter()
        self.told: Counter[int] = Counter()
        self.checked: Counter[int] = Counter()
        self.wake_all_calls = 0
        self.session_changes: list[int] = []
        self.revocations: list[tuple[int, bytes | None]] = []
        self.changes: list[tuple[int, int, int]] = []
        self._waiting: list[tuple[Callable[[Recorder], object], Deferred[None]]] = []

    def wake(self, user_ids: Collection[int]) -> None:
        self.woken.update(user_ids)
        self._check()

    def wake_for_changes(self, user_ids: Collection[int]) -> None:
        self.told.update(user_ids)
        self._check()

    def wake_all(self) -> None:
        self.wake_all_calls += 1
        self._check()

    def check(self, user_ids: Collection[int]) -> None:
        self.checked.update(user_ids)
        self._check()

    def changed(self, received_by: int, seq: int, sent_by: int) -> None:
        self.changes.append((received_by, seq, sent_by))
        self._check()

    def revoked(self, user_id: int, token: bytes | None) -> None:
        self.revocations.append((user_id, token))
        self._check()

    def sessions_changed(self, user_id: int) -> None:
        self.session_changes.append(user_id)
        self._check()

    def until(self, condition: Callable[[Recorder], object]) -> Deferred[None]:
        """Fires once the condition is true; fails with `TimeoutError` if it stays false."""
        from twisted.internet import reactor

        clock = IReactorTime(reactor)
        fired: Deferred[None] = Deferred()
        self._waiting.append((condition, fired))
        fired.addTimeout(BUS_SECONDS, clock)
        self._check()
        return fired

    def until_woken(self, *user_ids: int) -> Deferred[None]:
        """Fires once all of these users were woken."""
        return self.until(lambda recorder: recorder.woken.keys() >= set(user_ids))

    def _check(self) -> None:
        for waiting in tuple(self._waiting):
            condition, fired = waiting
            if not fired.called and condition(self):
                self._waiting.remove(waiting)
                fired.callback(None)


class BusContract:
    """All tests of the contract, which concerns the publishing process only."""

    @ensureDeferred
    async def test_the_interface_is_provided(self, open_bus: OpenBus) -> None:
        verifyObject(IBus, await open_bus())

    @ensureDeferred
    async def test_a_bus_reports_a_problem_unless_it_is_running(self, open_bus: OpenBus) -> None:
        bus = await open_bus()
        assert bus.problem()
        await bus.start(Recorder())
        assert bus.problem() is None
        await bus.stop()
        assert bus.problem()

    @ensureDeferred
    async def test_published_users_are_woken(self, open_bus: OpenBus) -> None:
        bus, recorder = await open_bus(), Recorder()
        await bus.start(recorder)
        bus.publish([7])
        await recorder.until_woken(7)
        bus.publish({1, 2, MAX_INTEGER})
        await recorder.until_woken(1, 2, 7, MAX_INTEGER)
        assert recorder.woken.keys() == {1, 2, 7, MAX_INTEGER}

    @ensureDeferred
    async def test_changes_are_published_apart_from_messages(self, open_bus: OpenBus) -> None:
        bus, recorder = await open_bus(), Recorder()
        bus.publish_changes([1])
        await bus.start(recorder)
        bus.publish_changes([])
        bus.publish_changes({7, MAX_INTEGER})
        await recorder.until(lambda recorder: recorder.told.keys() == {7, MAX_INTEGER})
        assert not recorder.woken

    @ensureDeferred
    async def test_publishing_no_users_wakes_nobody(self, open_bus: OpenBus) -> None:
        bus, recorder = await open_bus(), Recorder()
        await bus.start(recorder)
        bus.publish([])
        bus.publish([7])
        await recorder.until_woken(7)
        assert recorder.woken.keys() == {7}

    @ensureDeferred
    async def test_thousands_of_users_are_woken_at_once(self, open_bus: OpenBus) -> None:
        bus, recorder = await open_bus(), Recorder()
        await bus.start(recorder)
        everyone = [MAX_INTEGER - number for number in range(5000)]
        before = recorder.wake_all_calls
        bus.publish(everyone)
        await recorder.until(
            lambda recorder: (
                recorder.wake_all_calls > before or recorder.woken.keys() >= set(everyone)
            )
        )

    @ensureDeferred
    async def test_a_burst_of_publications_wakes_everybody(self, open_bus: OpenBus) -> None:
        bus, recorder = await open_bus(), Recorder()
        await bus.start(recorder)
        for user_id in range(1, 501):
            bus.publish([user_id])
        await recorder.until_woken(*range(1, 501))

    @ensureDeferred
    async def test_each_revocation_is_passed_on_exactly(self, open_bus: OpenBus) -> None:
        bus, recorder = await open_bus(), Recorder()
        await bus.start(recorder)
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
        await recorder.until(lambda recorder: len(recorder.revocations) >= len(revocations))
        assert set(recorder.revocations) == set(revocations)
        assert not recorder.woken

    @ensureDeferred
    async def test_changes_of_sessions_are_passed_on(self, open_bus: OpenBus) -> None:
        bus, recorder = await open_bus(), Recorder()
        await bus.start(recorder)
        for user_id in (1, MAX_INTEGER):
            bus.publish_sessions_changed(user_id)
        await recorder.until(lambda recorder: len(recorder.session_changes) >= 2)
        assert recorder.session_changes == [1, MAX_INTEGER]
        assert recorder.revocations == []

    @ensureDeferred
    async def test_each_changed_message_is_passed_on_and_wakes_nobody(
        self, open_bus: OpenBus
    ) -> None:
        bus, recorder = await open_bus(), Recorder()
        await bus.start(recorder)
        changes = [(1, 2, 3), (1, 2, 3), (MAX_INTEGER, MAX_INTEGER, MAX_INTEGER), (3, 1, 1)]
        for change in changes:
            bus.publish_changed(*change)
        await recorder.until(lambda recorder: len(recorder.changes) >= len(changes))
        assert recorder.changes == changes
        assert not recorder.woken

    @ensureDeferred
    async def test_a_stopped_bus_passes_nothing_on(self, open_bus: OpenBus) -> None:
        bus, recorder = await open_bus(), Recorder()
        await bus.start(recorder)
        bus.publish([1])
        await recorder.until_woken(1)
        await bus.stop()
        bus.publish([2])
        bus.publish_revoked(2, None)
        bus.publish_sessions_changed(2)
        assert recorder.session_changes == []
        bus.publish_changed(2, 1, 1)
        assert 2 not in recorder.woken
        assert recorder.changes == []
        assert recorder.revocations == []

    @ensureDeferred
    async def test_a_bus_that_was_never_started_can_be_stopped(self, open_bus: OpenBus) -> None:
        bus = await open_bus()
        await bus.stop()
