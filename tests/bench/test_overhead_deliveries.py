"""What is compared is one delivery, and a wrong one fails."""

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.web.server import Site

from bench.memory_connection import MemoryConnection
from bench.overhead_deliveries import StockInbox, ours, poll, stock, stream


class Doubling(StockInbox):
    """Delivers each message twice."""

    def _after(self, user: int, seq: int) -> list[Any]:
        return super()._after(user, seq) * 2


class Losing(StockInbox):
    """Delivers nothing."""

    def _after(self, user: int, seq: int) -> list[Any]:
        return []


@pytest.mark.parametrize("case", [poll, stream])
@pytest.mark.parametrize("start", [ours, stock])
def test_every_turn_delivers_one_message(case: Any, start: Any) -> None:
    turn = case(start)
    for _ in range(3):
        turn()


@pytest.mark.parametrize("case", [poll, stream])
@pytest.mark.parametrize("inbox", [Doubling, Losing])
def test_a_wrong_number_of_messages_fails(case: Any, inbox: type[StockInbox]) -> None:
    clock: Any = Clock()
    api = inbox(clock)
    turn = case(lambda: (api, MemoryConnection(Site(api.app.resource(), reactor=clock))))
    with pytest.raises(AssertionError):
        turn()
