"""The reactor's clock, while the wall clock jumps."""

from __future__ import annotations

import time

import pytest
from twisted.internet import base
from twisted.internet.base import ReactorBase

from chatd.runtime.monotonic import use_monotonic_clock


class Reactor(ReactorBase):
    """A reactor whose iterations the test runs, and whose wall clock it sets."""

    def __init__(self) -> None:
        self.offset = 0.0
        super().__init__()

    def installWaker(self) -> None:
        """It has no other threads."""

    def seconds(self) -> float:
        return time.monotonic() + 1_800_000_000 + self.offset


@pytest.fixture
def reactor(monkeypatch: pytest.MonkeyPatch) -> Reactor:
    monkeypatch.setattr(base, "runtimeSeconds", lambda: 0.0)
    return Reactor()


def test_a_jump_of_the_wall_clock_moves_nothing(reactor: Reactor) -> None:
    called: list[str] = []
    early = reactor.callLater(1000, called.append, "before")
    use_monotonic_clock(reactor)
    reactor.callLater(2000, called.append, "after")
    for jump in (-60, -7200, 86400):
        reactor.offset += jump
        reactor.runUntilCurrent()
        timeout = reactor.timeout()
        assert timeout is not None
        assert 990 < timeout <= 1000
        early.reset(1000)
    assert called == []
    early.reset(0)
    reactor.runUntilCurrent()
    assert called == ["before"]


def test_it_may_be_used_again(reactor: Reactor) -> None:
    call = reactor.callLater(1000, lambda: None)
    for _ in range(2):
        use_monotonic_clock(reactor)
        assert 990 < call.getTime() - time.monotonic() <= 1000
