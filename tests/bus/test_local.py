"""The bus of a single process."""

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


def test_it_tells_before_publish_returns() -> None:
    bus, told = LocalBus(), Recorder()
    bus.start(told)
    bus.publish({1, 2})
    bus.publish_revoked(3, b"token")
    assert told.woken.keys() == {1, 2}
    assert told.ended == [(3, b"token")]
    assert told.all == 0
