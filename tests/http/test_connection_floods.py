"""Networks that fill the kernel's queue of connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from chatd.http import connection_floods
from chatd.http.connection_floods import (
    DROP_SECONDS,
    MOST_IN_WINDOW,
    WINDOW_SECONDS,
    ConnectionFloods,
)


class Floods:
    """`ConnectionFloods` of a socket, and what it has the kernel drop."""

    def __init__(self, listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.others = 1
        self.reports = 0
        self.dropped: list[str] = ["of a process before"]
        monkeypatch.setattr(connection_floods, "drop_packets", self._drop)
        monkeypatch.setattr(
            connection_floods, "drop_nothing", lambda socket: self._drop(socket, ())
        )
        self.floods = ConnectionFloods(
            listening, self.clock, others=lambda networks: self.others, dropped=self._report
        )

    def _drop(self, listening: socket.socket, networks: object) -> bool:
        self.dropped = list(networks)  # type: ignore[call-overload]
        return True

    def _report(self) -> None:
        self.reports += 1

    def take(self, network: str, count: int = MOST_IN_WINDOW + 1) -> None:
        for _ in range(count):
            self.floods.count(network)


@pytest.fixture
def floods(monkeypatch: pytest.MonkeyPatch) -> Iterator[Floods]:
    with socket.socket() as listening:
        floods = Floods(listening, monkeypatch)
        yield floods
        floods.floods.stop()
        assert not floods.clock.getDelayedCalls()


def test_a_filter_of_a_process_before_is_removed(floods: Floods) -> None:
    assert floods.dropped == []


def test_networks_of_which_many_were_taken_are_kept_away_while_there_is_no_time_for_all(
    floods: Floods,
) -> None:
    floods.take("192.0.2.1", MOST_IN_WINDOW)
    floods.take("2001:db8::/48")
    assert floods.dropped == []
    floods.floods.overflow()
    assert floods.dropped == ["2001:db8::/48"]
    floods.take("192.0.2.1", 1)
    floods.floods.overflow()
    floods.floods.overflow()
    assert floods.dropped == ["2001:db8::/48", "192.0.2.1"]
    assert floods.reports == 2


def test_each_one_for_a_second(floods: Floods) -> None:
    floods.take("192.0.2.1")
    floods.floods.overflow()
    floods.clock.advance(DROP_SECONDS / 2)
    floods.take("192.0.2.2")
    floods.floods.overflow()
    floods.clock.advance(DROP_SECONDS / 2)
    assert floods.dropped == ["192.0.2.2"]
    floods.clock.advance(DROP_SECONDS / 2)
    assert floods.dropped == []


def test_what_was_taken_longer_ago_does_not_count(floods: Floods) -> None:
    floods.take("192.0.2.1")
    floods.clock.advance(WINDOW_SECONDS)
    floods.take("192.0.2.1", MOST_IN_WINDOW)
    floods.floods.overflow()
    assert floods.dropped == []


def test_nobody_is_kept_away_from_who_is_alone(floods: Floods) -> None:
    floods.others = 0
    floods.take("192.0.2.1")
    floods.floods.overflow()
    assert floods.dropped == []
    assert floods.reports == 0


def test_it_stops(floods: Floods) -> None:
    floods.take("192.0.2.1")
    floods.floods.overflow()
    floods.floods.stop()
    assert floods.dropped == []
    assert not floods.clock.getDelayedCalls()
