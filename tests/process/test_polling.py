"""Turns of the reactor with many busy sockets."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock, deferLater

from chatd.process.polling import FEW_EVENTS, MAX_EVENTS, POLL_SECONDS, FairPoller, bound_turns
from chatd.runtime.turn import WHOLE_SECONDS, Turn

Event = tuple[int, int]

FLOOD = range(100, 200)
"""The sockets of one address."""


class Busy:
    """A reactor whose sockets are ready, each of which takes some time in a turn.

    `hosts` are the addresses of the sockets by descriptor, None for what has none.
    """

    register = modify = unregister = None

    def __init__(self, hosts: Mapping[int, str | None], seconds: float = POLL_SECONDS / 4) -> None:
        self.ready = dict.fromkeys(hosts, 1)
        self.clock = Clock()
        self.turn = Turn()
        self.asked: list[int] = []
        self._seconds = seconds
        selectables = {
            fd: SimpleNamespace() if host is None else SimpleNamespace(client=(host, 1))
            for fd, host in hosts.items()
        }
        self._poller = FairPoller(self, selectables, self.turn, self.clock.seconds)

    def poll(self, timeout: float, maxevents: int) -> list[Event]:
        self.asked.append(maxevents)
        return list(self.ready.items())[:maxevents]

    def serve(self) -> list[int]:
        """A turn; returns the sockets that are served in it."""
        served = []
        for fd, event in self._poller.poll(0, 100_000):
            assert event == self.ready[fd]
            served.append(fd)
            self.clock.advance(self._seconds)
        return served


def test_a_turn_serves_sockets_for_some_time_and_then_those_that_were_left() -> None:
    busy = Busy(dict.fromkeys(FLOOD, "192.0.2.1"))
    served = [fd for _ in range(25) for fd in busy.serve()]
    # All of them are ready in every turn, and none is served again long before the others.
    assert served[: len(FLOOD)] == list(FLOOD)
    counts = Counter(served)
    assert counts.keys() == set(FLOOD)
    assert max(counts.values()) <= 3
    assert set(busy.asked) == {MAX_EVENTS}


def test_few_sockets_are_served_whatever_time_they_take() -> None:
    busy = Busy(dict.fromkeys(range(FEW_EVENTS), "192.0.2.1"), seconds=10 * POLL_SECONDS)
    assert [len(busy.serve()) for _ in range(3)] == [FEW_EVENTS] * 3
    busy = Busy(dict.fromkeys(range(FEW_EVENTS + 1), "192.0.2.1"), seconds=10 * POLL_SECONDS)
    assert [len(busy.serve()) for _ in range(3)] == [1] * 3


@pytest.mark.parametrize("hosts", ["192.0.2.1", "2001:db8:0:{:x}::1"])
def test_addresses_are_served_in_turn(hosts: str) -> None:
    innocent = 900
    busy = Busy({fd: hosts.format(fd) for fd in FLOOD} | {innocent: "192.0.2.2"})
    del busy.ready[innocent]
    busy.serve()
    for _ in range(3):
        # However many wait, it waits for one of them, if at all.
        busy.ready[innocent] = 1
        assert busy.serve().index(innocent) <= 1
        del busy.ready[innocent]
        assert innocent not in busy.serve()


def test_addresses_are_served_in_turn_though_each_socket_takes_a_whole_turn() -> None:
    innocent = 900
    hosts = {fd: f"192.0.2.{fd % 3}" for fd in FLOOD} | {innocent: "198.51.100.1"}
    busy = Busy(hosts, seconds=2 * POLL_SECONDS)
    del busy.ready[innocent]
    for _ in range(5):
        assert len(busy.serve()) == 1
    for _ in range(3):
        busy.ready[innocent] = 1
        assert busy.serve() == [innocent]
        # What it asks for next is not before all others.
        assert innocent not in busy.serve() + busy.serve() + busy.serve()
        assert busy.serve() == [innocent]
        del busy.ready[innocent]
        busy.serve()


def test_many_addresses_are_served_alike() -> None:
    busy = Busy({fd: f"192.0.2.{fd % 10}" for fd in FLOOD})
    served = Counter(fd for _ in range(50) for fd in busy.serve())
    assert set(served.values()) == {2}


def test_what_has_no_address_is_served_in_each_turn() -> None:
    port = 900
    busy = Busy({**dict.fromkeys(FLOOD, "192.0.2.1"), port: None})
    busy.serve()
    for _ in range(3):
        served = busy.serve()
        # Its time is not taken from the others.
        assert (served[0], len(served)) == (port, 9)


def test_sockets_that_are_ready_no_more_lose_their_turn() -> None:
    busy = Busy(dict.fromkeys(FLOOD, "192.0.2.1"))
    first = busy.serve()
    for fd in FLOOD[8:12]:
        del busy.ready[fd]
    # For what it is ready is asked again, as the descriptor may be another socket's meanwhile.
    busy.ready[FLOOD[12]] = 4
    assert first + busy.serve() == [*FLOOD[:8], *FLOOD[12:20]]
    busy.ready.clear()
    assert busy.serve() == []


def test_turns_are_longer_while_there_is_one_address() -> None:
    busy = Busy(dict.fromkeys(FLOOD, "192.0.2.1"))
    assert [len(busy.serve()) for _ in range(3)] == [8] * 3
    began = busy.clock.seconds() - 2 * POLL_SECONDS
    assert busy.turn.until(0, 1) == pytest.approx(began + 2 * WHOLE_SECONDS)
    busy = Busy(dict.fromkeys(FLOOD, "192.0.2.1") | {900: "192.0.2.2"})
    assert [len(busy.serve()) for _ in range(3)] == [4] * 3
    began = busy.clock.seconds() - POLL_SECONDS
    assert busy.turn.until(0, 1) == pytest.approx(began + WHOLE_SECONDS)


def test_what_has_no_address_does_not_make_turns_shorter() -> None:
    busy = Busy({900: None, **dict.fromkeys(FLOOD, "192.0.2.1")})
    assert len(busy.serve()) == 8
    # Where it is served besides them.
    assert [len(busy.serve()) for _ in range(2)] == [9] * 2


def test_polling_begins_a_turn() -> None:
    busy = Busy(dict.fromkeys(range(2), "192.0.2.1"))
    busy.clock.advance(10)
    busy.serve()
    assert busy.turn.until(10, 1) == 10 + WHOLE_SECONDS


class Pipe:
    """A socket from which something can be read, and nobody does."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._end, self._other = socket.socketpair()
        self._other.send(b"x")
        self.reads = 0

    def fileno(self) -> int:
        return self._end.fileno()

    def logPrefix(self) -> str:
        return "pipe"

    def doRead(self) -> None:
        self.reads += 1

    def close(self) -> None:
        self._reactor.removeReader(self)
        self._end.close()
        self._other.close()


@ensureDeferred
async def test_the_reactor_polls_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted.internet import reactor

    anything: Any = reactor
    monkeypatch.setattr(reactor, "_poller", anything._poller)
    bound_turns(reactor)
    poller = anything._poller
    bound_turns(reactor)
    assert anything._poller is poller
    pipes = [Pipe(anything) for _ in range(2 * FEW_EVENTS)]
    for pipe in pipes:
        anything.addReader(pipe)
    for _ in range(3):
        await deferLater(anything, 0)
    for pipe in pipes:
        pipe.close()
    assert all(pipe.reads for pipe in pipes)


def test_other_reactors_are_left_alone() -> None:
    bound_turns(Clock())
