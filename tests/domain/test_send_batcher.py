"""Sends: no network delays those of others by more than a small transaction."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatd.domain import send_batcher
from chatd.domain.batch import DEADLINE_SECONDS
from chatd.domain.caller_networks import CallerNetworks
from chatd.domain.send_batcher import SendBatcher
from chatd.errors import DomainError, Overloaded, StoreUnavailable
from chatd.model import Appended, Draft, Message
from tests.doubles import result_of

ATTACKER, OTHER = "192.0.2.1", "198.51.100.1"

Calling = tuple[list[Draft], Deferred[list[Appended | DomainError]]]


class Sends:
    """A batcher whose calls the test completes; accounts from 1000 on are used by `OTHER`."""

    def __init__(self, *, limited: bool = True) -> None:
        self.clock = Clock()
        self.limited = limited
        self.made: list[Calling] = []
        callers = CallerNetworks()
        for account in range(1, 100):
            callers.note(account, ATTACKER)
            callers.note(1000 + account, OTHER)
        self.batcher = SendBatcher(
            self._run,
            self.clock,
            callers,
            lambda: self.limited,
            on_batch_done=lambda drafts, results: None,
        )
        self.begin()

    def _run(
        self, drafts: Sequence[Draft], within: float
    ) -> Deferred[list[Appended | DomainError]]:
        result: Deferred[list[Appended | DomainError]] = Deferred()
        self.made.append((list(drafts), result))
        return result

    def begin(self) -> None:
        """From here on a call is under way, and what is sent waits."""
        self.send(50)
        self.clock.advance(0)

    def send(self, account: int, text: str = "") -> Deferred[Appended]:
        return self.batcher.submit(Draft(account, 2, text))

    def next(self) -> list[Draft]:
        """Complete the call; the messages of the next one."""
        drafts, result = self.made[-1]
        result.callback(
            [Appended(Message(2, 1, each.sent_by, 0, each.text), False) for each in drafts]
        )
        self.clock.advance(0)
        return self.made[-1][0]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_batcher, "MAX_OF_NETWORK", 4)
    monkeypatch.setattr(send_batcher, "MAX_BYTES_OF_NETWORK", 40)
    monkeypatch.setattr(send_batcher, "MAX_BYTES", 80)
    monkeypatch.setattr(send_batcher, "MAX_QUEUED", 10)


@pytest.mark.usefixtures("small")
def test_a_network_has_few_sends_in_a_transaction_and_each_account_keeps_its_order() -> None:
    sends = Sends()
    pending = [sends.send(1 + number % 3, f"{number}") for number in range(9)]
    pending.append(sends.send(1001, "hello"))
    taken = [sends.next() for _ in range(3)]
    assert [[each.text for each in drafts] for drafts in taken] == [
        ["0", "hello", "1", "2", "3"],
        ["4", "5", "6", "7"],
        ["8"],
    ]
    sends.next()
    assert all(result_of(each) for each in pending)


@pytest.mark.usefixtures("small")
def test_few_sends_go_together_in_the_order_in_which_they_came() -> None:
    sends = Sends()
    for account in (1, 1001, 2, 3):
        sends.send(account)
    assert [each.sent_by for each in sends.next()] == [1, 1001, 2, 3]


@pytest.mark.usefixtures("small")
def test_a_network_has_few_bytes_in_a_transaction_and_one_send_if_that_is_larger() -> None:
    sends = Sends()
    large, huge = "é" * 10, "x" * 100
    for text in (f"1{large}", f"2{large}", f"3{large}", huge, "5"):
        sends.send(1, text)
    for text in ("a", "b", "c"):
        sends.send(1001, text)
    taken = [[each.text.strip("éx") for each in sends.next()] for _ in range(3)]
    # The second one reaches 40 bytes, and the others of that network wait.
    assert taken == [["1", "a", "2", "b", "c"], ["3", ""], ["5"]]


@pytest.mark.usefixtures("small")
def test_few_sends_with_large_texts_are_taken_in_turn_as_well() -> None:
    sends = Sends()
    for text in ("1" * 20, "2" * 20, "3" * 20):
        sends.send(1, text)
    sends.send(1001, "hello")
    assert [each.text[:1] for each in sends.next()] == ["1", "h", "2"]
    assert [each.text[:1] for each in sends.next()] == ["3"]


@pytest.mark.usefixtures("small")
def test_all_networks_together_have_few_bytes_in_a_transaction_and_each_has_its_turn() -> None:
    sends = Sends()
    for account in range(500, 505):
        for number in range(2):
            sends.send(account, f"{number}" * 30)
    taken = [[(each.sent_by, each.text[0]) for each in sends.next()] for _ in range(4)]
    assert taken == [
        [(500, "0"), (501, "0"), (502, "0")],
        [(503, "0"), (504, "0"), (500, "1")],
        [(501, "1"), (502, "1"), (503, "1")],
        [(504, "1")],
    ]


@pytest.mark.usefixtures("small")
def test_sends_that_have_waited_for_too_long_take_nothing_of_the_share_of_a_network() -> None:
    sends = Sends()
    late = [sends.send(1, "x" * 30) for _ in range(6)]
    again: list[Deferred[Appended]] = []
    late[-1].addErrback(lambda _: again.append(sends.send(1, "again")))
    sends.clock.advance(DEADLINE_SECONDS)
    fresh = [sends.send(1, "y" * 20) for _ in range(2)]
    assert [each.text[0] for each in sends.next()] == ["y", "y"]
    for each in late[:-1]:
        with pytest.raises(StoreUnavailable):
            result_of(each)
    assert [each.text for each in sends.next()] == ["again"]
    sends.next()
    assert all(result_of(each) for each in (*fresh, *again))


@pytest.mark.usefixtures("small")
def test_who_is_refused_and_asks_again_at_once_is_in_the_transaction_that_has_nobody_else() -> None:
    sends = Sends()
    again: list[Deferred[Appended]] = []
    for number in range(6):
        late = sends.send(1, f"{number}")
        late.addErrback(lambda _: again.append(sends.send(1, "again")))
    sends.clock.advance(DEADLINE_SECONDS)
    assert [each.text for each in sends.next()] == ["again"] * 4
    assert [each.text for each in sends.next()] == ["again"] * 2
    sends.next()
    assert [result_of(each).message.text for each in again] == ["again"] * 6


@pytest.mark.usefixtures("small")
def test_without_limits_networks_are_as_one() -> None:
    sends = Sends(limited=False)
    for account in (1, 2, 3, 4, 5, 6, 1001):
        sends.send(account)
    assert [each.sent_by for each in sends.next()] == [1, 2, 3, 4, 5, 6, 1001]
    for account in range(1, 11):
        sends.send(account)
    with pytest.raises(Overloaded):
        sends.send(1001)


@pytest.mark.usefixtures("small")
def test_a_network_that_fills_the_queue_keeps_no_other_one_out() -> None:
    sends = Sends()
    for number in range(11):
        sends.send(1 + number)
    for account in (12, 1):
        with pytest.raises(Overloaded) as error:
            sends.send(account)
        assert error.value.bound == "batch_queue"
    sends.send(1001)
    with pytest.raises(Overloaded):
        sends.send(1002)
    # An account that nobody knows is on its own.
    sends.send(500)
    assert [each.sent_by for each in sends.next()] == [1, 1001, 500, 2, 3, 4]
    assert sends.batcher.queued == 7


@pytest.mark.usefixtures("small")
def test_there_is_an_end_to_networks_as_well() -> None:
    sends = Sends()
    for account in range(500, 520):
        sends.send(account)
    with pytest.raises(Overloaded):
        sends.send(520)
