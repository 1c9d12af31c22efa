"""Waiting until nothing is under way."""

from __future__ import annotations

from chatd.runtime.idle import IdleWaiters


def test_an_idle_owner_is_not_waited_for() -> None:
    assert IdleWaiters().wait(idle=True).called


def test_all_waiters_are_notified_once() -> None:
    idle = IdleWaiters()
    waiting = [idle.wait(idle=False) for _ in range(2)]
    assert not any(each.called for each in waiting)
    idle.notify()
    assert all(each.called for each in waiting)
    later = idle.wait(idle=False)
    assert not later.called
    idle.notify()
    assert later.called
