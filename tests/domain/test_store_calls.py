"""Calls of the store: few at a time, networks and accounts in turn, none that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from chatd.domain import fair_queue
from chatd.domain.caller_networks import CallerNetworks
from chatd.domain.rate_limits import RateLimits, Rates
from chatd.domain.read_limits import ReadLimits
from chatd.domain.store_calls import StoreCalls
from chatd.errors import Overloaded, RateLimited, UserNotFound
from chatd.model import EncodedRows
from chatd.rates import Rate
from tests.conftest import LoggedFailures
from tests.doubles import cancel, result_of


def limits(unread: set[int]) -> ReadLimits:
    """The limits of reads; the accounts in `unread` do not read what they are sent."""
    return ReadLimits(RateLimits(Rates(), Clock()), lambda user_id: user_id not in unread)


class Store:
    """A store whose calls the test completes; they are made through `calls`."""

    def __init__(self, max_running: int = 1) -> None:
        self.unread: set[int] = set()
        self.callers = CallerNetworks()
        self.calls = StoreCalls(limits(self.unread), self.callers, max_running)
        self.begun: dict[str, Deferred[Any]] = {}

    def run(self, name: str, *, is_large: bool = False) -> Deferred[Any]:
        """A call for the account that the name begins with."""
        return self.calls.run(ord(name[0]), self._call(name), is_large=is_large)

    def _call(self, name: str) -> Callable[[], Deferred[Any]]:
        def call() -> Deferred[Any]:
            result: Deferred[Any] = Deferred()
            self.begun[name] = result
            return result

        return call

    def complete(self, name: str) -> None:
        self.begun[name].callback(name.upper())


def test_few_calls_run_at_a_time_and_accounts_take_turns() -> None:
    store = Store(max_running=3)
    results = {name: store.run(name) for name in ("a1", "a2", "a3", "a4", "b1", "c1")}
    assert list(store.begun) == ["a1", "a2", "b1"]
    store.complete("a1")
    assert list(store.begun) == ["a1", "a2", "b1", "a3"]
    store.complete("a2")
    assert list(store.begun) == ["a1", "a2", "b1", "a3", "c1"]
    store.complete("b1")
    for name in ("a3", "c1", "a4"):
        store.complete(name)
    assert {name: result_of(result) for name, result in results.items()} == {
        name: name.upper() for name in results
    }


def test_networks_take_turns_however_many_accounts_they_have() -> None:
    store = Store()
    for account in "abc":
        store.callers.note(ord(account), "192.0.2.1")
    store.callers.note(ord("z"), "198.51.100.1")
    results = [store.run(name) for name in ("a1", "a2", "b1", "c1", "z1")]
    for name in ("a1", "a2", "z1", "b1", "c1"):
        assert list(store.begun)[-1] == name
        store.complete(name)
    assert all(result_of(result) for result in results)


def test_a_network_leaves_room_for_another_one() -> None:
    store = Store(max_running=2)
    for account in "abc":
        store.callers.note(ord(account), "192.0.2.1")
    results = [store.run(name) for name in ("a1", "b1", "c1", "z1")]
    assert list(store.begun) == ["a1", "z1"]
    store.complete("z1")
    assert list(store.begun) == ["a1", "z1"]
    store.complete("a1")
    for name in ("b1", "c1"):
        assert list(store.begun)[-1] == name
        store.complete(name)
    assert all(result_of(result) for result in results)


def test_without_limits_networks_are_not_told_apart() -> None:
    callers = CallerNetworks()
    unlimited = ReadLimits(RateLimits(None, Clock()), lambda user_id: True)
    calls = StoreCalls(unlimited, callers, 2)
    begun: list[int] = []
    waiting: Deferred[None] = Deferred()

    def call(account: int) -> Deferred[None]:
        begun.append(account)
        return waiting

    for account in (1, 2, 3):
        callers.note(account, "192.0.2.1")
        calls.run(account, lambda account=account: call(account))  # type: ignore[misc]
    assert begun == [1, 2]


def test_an_account_leaves_room_for_another_one() -> None:
    store = Store(max_running=2)
    results = {name: store.run(name) for name in ("a1", "a2", "b1", "b2")}
    assert list(store.begun) == ["a1", "b1"]
    store.complete("b1")
    assert list(store.begun) == ["a1", "b1", "b2"]
    store.complete("b2")
    assert list(store.begun) == ["a1", "b1", "b2"]
    store.complete("a1")
    store.complete("a2")
    assert all(result_of(result) for result in results.values())


def test_a_call_that_nobody_waits_for_is_not_made() -> None:
    store = Store()
    results = [store.run(name) for name in ("a1", "a2", "a3")]
    cancel(results[1])
    store.complete("a1")
    assert list(store.begun) == ["a1", "a3"]
    store.complete("a3")
    assert result_of(results[2]) == "A3"


def test_a_call_that_has_begun_runs_to_its_end() -> None:
    store = Store()
    result = store.run("a1")
    result.cancel()
    with pytest.raises(CancelledError):
        result_of(result)
    later = store.run("a2")
    assert list(store.begun) == ["a1"]
    store.complete("a1")
    store.complete("a2")
    assert result_of(later) == "A2"


def test_failures_are_passed_on() -> None:
    store = Store()
    for error in (UserNotFound("x"), ZeroDivisionError()):
        result = store.run("a1")
        store.begun["a1"].errback(error)
        with pytest.raises(type(error)):
            result_of(result)
    # A regular result, of which nobody has to know.
    cancel(store.run("a1"))
    store.begun["a1"].errback(UserNotFound("x"))


def test_an_unexpected_failure_is_logged_if_nobody_waits(
    logged_failures: LoggedFailures,
) -> None:
    store = Store()
    cancel(store.run("a1"))
    store.begun["a1"].errback(ZeroDivisionError())
    [failure] = logged_failures.flush()
    assert failure.check(ZeroDivisionError)


def test_a_call_that_raises_fails() -> None:
    def call() -> Deferred[None]:
        raise UserNotFound("x")

    with pytest.raises(UserNotFound):
        result_of(StoreCalls(limits(set()), CallerNetworks(), 1).run(1, call))


def test_an_account_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    running = store.run("a0")
    waiting = [store.run(f"a{number + 1}") for number in range(fair_queue.MAX_PER_OWNER)]
    with pytest.raises(Overloaded):
        store.run("a")
    other = store.run("b1")
    for each in waiting:
        cancel(each)
    store.complete("a0")
    store.complete("b1")
    assert (result_of(running), result_of(other)) == ("A0", "B1")


def test_calls_of_an_account_that_does_not_read_are_refused() -> None:
    store = Store()
    running, waiting = store.run("a1"), store.run("a2")
    store.unread.add(ord("a"))
    with pytest.raises(Overloaded) as error:
        store.run("a3")
    assert error.value.bound == "unsent_bytes"
    store.complete("a1")
    assert result_of(running) == "A1"
    with pytest.raises(Overloaded):
        result_of(waiting)
    assert list(store.begun) == ["a1"]


def test_of_the_large_calls_one_runs_at_a_time() -> None:
    store = Store(max_running=3)
    results = [store.run(name, is_large=True) for name in ("a1", "b1", "c1")]
    assert list(store.begun) == ["a1"]
    store.run("d1")
    assert list(store.begun) == ["a1", "d1"]
    cancel(results[1])
    store.complete("a1")
    assert result_of(results[0]) == "A1"
    assert list(store.begun) == ["a1", "d1", "c1"]


def test_large_calls_and_the_others_take_turns() -> None:
    store = Store(max_running=2)
    for name in ("a1", "b1", "c1"):
        store.run(name, is_large=True)
    for name in ("d1", "e1", "f1"):
        store.run(name)
    assert list(store.begun) == ["a1", "d1"]
    for ended, begun in (("a1", "b1"), ("b1", "e1"), ("d1", "c1"), ("e1", "f1")):
        store.complete(ended)
        assert list(store.begun)[-1] == begun


def test_a_list_counts_as_more_reads() -> None:
    rates = RateLimits(Rates(read=Rate(50, 1.0)), Clock())
    calls = StoreCalls(ReadLimits(rates, lambda user_id: True), CallerNetworks(), 1)
    result_of(calls.run(1, lambda: succeed(["row"] * 300)))
    result_of(calls.run(2, lambda: succeed(["row"] * 9)))
    result_of(calls.run(3, lambda: succeed(EncodedRows(300, "[]")), is_large=True))
    result_of(calls.run(2, lambda: succeed("x" * 300)))
    # 1 and 30 of 50 are gone, and 2 of the other's.
    for user_id, left in ((1, 19), (2, 48), (3, 19)):
        for _ in range(left):
            rates.count_read(user_id)
        with pytest.raises(RateLimited):
            rates.count_read(user_id)
