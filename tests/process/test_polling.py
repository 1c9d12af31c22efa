"""Turns of the reactor with many busy sockets."""

from __future__ import annotations

import itertools
import socket
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock, deferLater

from chatd.process.polling import MAX_EVENTS, bound_turns


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
    pipes = [Pipe(read) for _ in range(2 * MAX_EVENTS)]
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
    assert set(read[: 2 * MAX_EVENTS]) == set(pipes)


def test_other_reactors_are_left_alone() -> None:
    bound_turns(Clock())
