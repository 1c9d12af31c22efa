"""Turns of the reactor with many busy sockets."""

from __future__ import annotations

import itertools
import socket
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock, deferLater

from chatd.http.admission import ACCEPTS, TLS_ACCEPTS
from chatd.process.polling import (
    EVENTS,
    LEAST_EVENTS,
    LONG_SECONDS,
    MAX_EVENTS,
    BoundedPoller,
    bound_turns,
)


class Pipe:
    """A socket from which something can be read, once."""

    def __init__(self, read: list[Pipe]) -> None:
        self._read = read
        self._end, self._other = socket.socketpair()
        self._other.send(b"x")

    def fileno(self) -> int:
        return self._end.fileno()

    def logPrefix(self) -> str:
        return "pipe"

    def doRead(self) -> None:
        self._read.append(self)

    def close(self) -> None:
        self._end.close()
        self._other.close()


@ensureDeferred
async def test_few_sockets_are_served_in_a_turn_and_the_others_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from twisted.internet import reactor

    anything: Any = reactor
    monkeypatch.setattr(reactor, "_poller", anything._poller)
    bound_turns(reactor)
    bound_turns(reactor)
    read: list[Pipe] = []
    # Nobody reads what is there, so that they are ready in each turn.
    pipes = [Pipe(read) for _ in range(4 * EVENTS)]
    for pipe in pipes:
        anything.addReader(pipe)
    counts = []
    for _ in range(6):
        await deferLater(anything, 0)
        counts.append(len(read))
    for pipe in pipes:
        anything.removeReader(pipe)
        pipe.close()
    assert all(later - before <= MAX_EVENTS for before, later in itertools.pairwise(counts))
    # Nobody is served again before everybody was.
    assert set(read[: 4 * EVENTS]) == set(pipes)


class Busy:
    """An epoll object with so many events."""

    register = modify = unregister = None

    def __init__(self, events: int) -> None:
        self.events = events

    def poll(self, timeout: float, maxevents: int) -> list[int]:
        return [1] * min(self.events, maxevents)


def test_as_many_are_served_as_there_is_time_for() -> None:
    clock = Clock()
    busy = Busy(10_000)
    poller = BoundedPoller(busy, clock.seconds)

    def turns(count: int, seconds: float) -> list[int]:
        served = []
        for _ in range(count):
            served.append(len(poller.poll(0, 100_000)))
            clock.advance(seconds)
        return served

    short = turns(20, LONG_SECONDS / 2)
    assert short[:3] == [EVENTS, EVENTS + LEAST_EVENTS, EVENTS + 2 * LEAST_EVENTS]
    assert short[-1] == MAX_EVENTS
    long = turns(10, 2 * LONG_SECONDS)
    assert long[:3] == [MAX_EVENTS, MAX_EVENTS // 2, MAX_EVENTS // 4]
    assert long[-1] == LEAST_EVENTS
    # A turn that serves all there are says nothing.
    busy.events = 10
    assert turns(3, 2 * LONG_SECONDS) == [10] * 3
    busy.events = 10_000
    assert turns(1, 0) == [LEAST_EVENTS]
    assert len(poller.poll(0, 5)) == 5


def test_other_reactors_are_left_alone() -> None:
    bound_turns(Clock())


def test_a_turn_serves_more_than_it_accepts() -> None:
    # Each connection has a request and an end.
    assert 2 * max(ACCEPTS, TLS_ACCEPTS) <= LEAST_EVENTS
