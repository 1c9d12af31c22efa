"""The in-process bus."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pytest_twisted import async_yield_fixture
from zope.interface.verify import verifyObject

from chatd.bus.local import LocalBus, NoPolls
from chatd.interfaces import ISubscriber
from tests.contracts.bus import BusContract, OpenBus, Recorder


@async_yield_fixture
async def open_bus() -> AsyncIterator[OpenBus]:
    opened: list[LocalBus] = []

    async def open_one() -> LocalBus:
        opened.append(LocalBus())
        return opened[-1]

    yield open_one
    for bus in opened:
        await bus.stop()


class TestLocalBus(BusContract):
    """The contract."""


def test_the_subscriber_is_called_before_publish_returns() -> None:
    bus, recorder = LocalBus(), Recorder()
    bus.start(recorder)
    bus.publish({1, 2})
    bus.publish_revoked(3, b"token")
    assert recorder.woken.keys() == {1, 2}
    assert recorder.revocations == [(3, b"token")]
    assert recorder.wake_all_calls == 0


def test_a_process_without_polls_has_nothing_to_do() -> None:
    nobody = NoPolls()
    verifyObject(ISubscriber, nobody)
    bus = LocalBus()
    bus.start(nobody)
    bus.publish([1])
    bus.publish_changes([1])
    bus.publish_changed(1, 1, 1)
    bus.publish_revoked(1, None)
    bus.publish_sessions_changed(1)
    nobody.wake_all()
    nobody.check([1])
