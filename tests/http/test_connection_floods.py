"""Networks that fill the kernel's queue of connections."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

import pytest
from twisted.internet.task import Clock

from chatd.http import connection_floods
from chatd.http.connection_floods import (
    DROP_SECONDS,
    MAX_QUEUED,
    MOST_IN_WINDOW,
    STEP_SECONDS,
    WINDOW_SECONDS,
    ConnectionFloods,
)
from chatd.http.packet_filter import MAX_NETWORKS


class Floods:
    """`ConnectionFloods` of a socket, and what it has the kernel drop."""

    def __init__(self, listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.others = 1
        self.queued = MAX_QUEUED + 1
        self.can_drop = True
        self.reports = 0
        self.dropped: list[str] = ["of a process before"]
        monkeypatch.setattr(connection_floods, "queued_connections", lambda socket: self.queued)
        monkeypatch.setattr(connection_floods, "drop_packets", self._drop)
        monkeypatch.setattr(
            connection_floods, "drop_nothing", lambda socket: self._drop(socket, ())
        )
        self.floods = ConnectionFloods(
            listening, self.clock, others=lambda networks: self.others, dropped=self._report
        )

    def _drop(self, listening: socket.socket, networks: Iterable[str]) -> bool:
        if self.can_drop or not networks:
            self.dropped = list(networks)
        return self.can_drop

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


@pytest.mark.parametrize("network", ["192.0.2.1", "192.0.2.2"])
def test_what_was_taken_longer_ago_does_not_count(floods: Floods, network: str) -> None:
    floods.take("192.0.2.1")
    floods.clock.advance(WINDOW_SECONDS)
    # Others may not be counted at all.
    floods.floods.overflow()
    assert floods.dropped == []
    floods.take(network, MOST_IN_WINDOW)
    floods.floods.overflow()
    assert floods.dropped == []


def test_nobody_is_kept_away_while_few_are_left(floods: Floods) -> None:
    floods.queued = MAX_QUEUED
    floods.take("192.0.2.1")
    floods.floods.overflow()
    assert floods.dropped == []


def test_the_filter_is_not_changed_all_the_time(floods: Floods) -> None:
    floods.take("192.0.2.1")
    floods.floods.overflow()
    floods.clock.advance(STEP_SECONDS / 4)
    floods.take("192.0.2.2")
    floods.floods.overflow()
    floods.clock.advance(DROP_SECONDS - STEP_SECONDS / 4)
    assert floods.dropped == ["192.0.2.2"]
    floods.clock.advance(STEP_SECONDS / 2)
    assert floods.dropped == ["192.0.2.2"]
    floods.clock.advance(STEP_SECONDS / 2)
    assert floods.dropped == []


def test_only_so_many_are_kept_away(floods: Floods) -> None:
    networks = [f"192.0.2.{number}" for number in range(MAX_NETWORKS + 1)]
    for network in networks:
        floods.take(network)
    floods.floods.overflow()
    floods.floods.overflow()
    assert floods.dropped == networks[:MAX_NETWORKS]


def test_nobody_is_kept_away_by_a_filter_that_cannot_be_replaced(floods: Floods) -> None:
    floods.take("192.0.2.1")
    floods.floods.overflow()
    floods.take("192.0.2.2")
    floods.can_drop = False
    floods.floods.overflow()
    assert floods.dropped == []
    floods.can_drop = True
    floods.floods.overflow()
    assert floods.dropped == ["192.0.2.1", "192.0.2.2"]


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
