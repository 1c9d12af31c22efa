"""Calls of a store are timed by verb, and failures of the database counted."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from chatd.errors import StoreUnavailable, UsernameTaken
from chatd.interfaces import IStore, ISyncStore
from chatd.store.measuring import measure
from tests.doubles import result_of


class Store:
    """A store whose calls return what the test wants."""

    def __init__(self) -> None:
        self.result: Deferred[Any] = succeed(None)
        self.sync: Any = None
        for name in IStore:
            if name not in ("epoch", "location", "sync", "open"):
                setattr(self, name, self._call)

    def _call(self, *args: Any, **options: Any) -> Deferred[Any]:
        return self.result

    def open(self) -> Deferred[None]:
        self.sync = type("Sync", (), dict.fromkeys(ISyncStore, self._call))()
        return succeed(None)


def store() -> Any:
    return Store()


class Measured:
    """A measured store, and what was measured."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.seconds: list[tuple[str, float]] = []
        self.errors: list[str] = []
        self.store = store()
        self.unmeasured = self.store.read_cached, self.store.lane
        measure(self.store, self.clock.seconds, self.observer, self.errors.append)

    def observer(self, verb: str) -> Any:
        return lambda seconds: self.seconds.append((verb, seconds))


def test_calls_are_timed_until_their_result() -> None:
    measured = Measured()
    measured.store.result = Deferred()
    appending = measured.store.append([])
    measured.clock.advance(0.25)
    assert measured.seconds == []
    measured.store.result.callback("stored")
    assert measured.seconds == [("append", 0.25)]
    assert result_of(appending) == "stored"
    assert (measured.store.read_cached, measured.store.lane) == measured.unmeasured


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (StoreUnavailable("the disk is full", 1), ["add_account"]),
        (ZeroDivisionError(), ["add_account"]),
        (UsernameTaken("ann"), []),
    ],
)
def test_failures_of_the_database_are_counted(error: Exception, counted: list[str]) -> None:
    measured = Measured()
    measured.store.result = fail(error)
    with pytest.raises(type(error)):
        result_of(measured.store.add_account("ann", "a@b", "hash"))
    assert measured.errors == counted
    assert [verb for verb, _ in measured.seconds] == ["add_account"]


def test_the_store_of_devices_is_measured_once_it_is_there() -> None:
    measured = Measured()
    result_of(measured.store.open())
    result_of(measured.store.sync.conversations("query"))
    assert [verb for verb, _ in measured.seconds] == ["conversations"]
