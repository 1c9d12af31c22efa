"""Owners are served in turn."""

from __future__ import annotations

import pytest

from chatd.runtime.round_robin import RoundRobin


def filled() -> RoundRobin[str]:
    """Two items of ann, two of bob and one of cat."""
    queue: RoundRobin[str] = RoundRobin()
    for item in ("ann 1", "ann 2", "bob 1", "cat 1", "bob 2"):
        queue.append(item.split()[0], item)
    return queue


def test_owners_take_turns() -> None:
    queue = filled()
    taken = [queue.popleft() for _ in range(len(queue))]
    assert taken == ["ann 1", "bob 1", "cat 1", "ann 2", "bob 2"]
    assert not queue


def test_who_is_busy_keeps_its_turn() -> None:
    queue = filled()
    assert queue.popleft({"ann"}) == "bob 1"
    assert queue.popleft() == "ann 1"
    with pytest.raises(IndexError):
        queue.popleft({"ann", "bob", "cat"})
    assert len(queue) == 3


def test_items_are_counted() -> None:
    queue = filled()
    assert [queue.count(name) for name in ("ann", "bob", "cat", "dan")] == [2, 2, 1, 0]
    assert len(queue) == queue.length == 5
    assert sorted(queue.counts()) == [1, 2, 2]
    queue.clear()
    assert (len(queue), queue.count("ann")) == (0, 0)
    with pytest.raises(IndexError):
        queue.popleft()
