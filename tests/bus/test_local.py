"""The in-process bus."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pytest_twisted import async_yield_fixture

from chatd.bus.local import LocalBus
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
