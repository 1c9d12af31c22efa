"""Owners are served in turn."""

from __future__ import annotations

import pytest

from chatd.runtime.round_robin import MAX_NEW, GroupedRoundRobin, RoundRobin


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


def test_the_newest_of_who_has_most_can_be_taken() -> None:
    queue = filled()
    queue.append("bob", "bob 3")
    taken = [queue.pop(queue.owner_of_most()) for _ in range(4)]
    assert taken == ["bob 3", "ann 2", "bob 2", "ann 1"]
    assert queue.pop("cat") == "cat 1"
    assert [queue.popleft(), len(queue)] == ["bob 1", 0]
    with pytest.raises(ValueError, match="empty"):
        queue.owner_of_most()


def test_items_are_counted() -> None:
    queue = filled()
    assert [queue.count(name) for name in ("ann", "bob", "cat", "dan")] == [2, 2, 1, 0]
    assert len(queue) == queue.length == 5
    assert sorted(queue.count(name) for name in ("ann", "bob", "cat")) == [1, 2, 2]
    queue.clear()
    assert (len(queue), queue.count("ann")) == (0, 0)
    with pytest.raises(IndexError):
        queue.popleft()


class TestGroups:
    def filled(self, *groups: str) -> GroupedRoundRobin[str]:
        """Three items of two owners of each of these groups."""
        queue: GroupedRoundRobin[str] = GroupedRoundRobin()
        for number in range(3):
            for group in groups:
                queue.append(group, f"{group} {number % 2}", f"{group}{number}")
        return queue

    def test_groups_take_turns_and_in_each_its_owners(self) -> None:
        queue = self.filled("a", "b")
        queue.append("b", "b 0", "b3")
        assert queue.count("a", "a 0") == queue.count("b", "b 0") - 1 == 2
        assert queue.count("a", "nobody") == queue.count("nothing", "nobody") == 0
        taken = [queue.popleft() for _ in range(queue.length)]
        assert taken == ["a0", "b0", "a1", "b1", "a2", "b2", "b3"]
        with pytest.raises(IndexError):
            queue.popleft()

    def test_a_new_group_is_served_first_once(self) -> None:
        queue = self.filled("a", "b", "c", "d")
        for expected in ("a0", "b0", "c0", "d0", "a1"):
            assert queue.popleft() == expected
        queue.append("new", "new 0", "new0")
        queue.append("new", "new 0", "new1")
        queue.append("newer", "newer 0", "newer0")
        taken = [queue.popleft() for _ in range(queue.length)]
        assert taken == ["new0", "newer0", "b1", "c1", "d1", "a2", "new1", "b2", "c2", "d2"]

    def test_a_group_that_was_served_is_not_new_before_its_next_turn(self) -> None:
        queue = self.filled("a", "b", "c")
        assert [queue.popleft() for _ in range(4)] == ["a0", "b0", "c0", "a1"]
        queue.append("d", "d 0", "d0")
        assert queue.popleft() == "d0"
        queue.append("d", "d 0", "d1")
        taken = [queue.popleft() for _ in range(queue.length)]
        assert taken == ["b1", "c1", "a2", "d1", "b2", "c2"]

    def test_many_new_groups_do_not_keep_others_waiting(self) -> None:
        queue = self.filled("a")
        assert queue.popleft() == "a0"
        for number in range(3 * MAX_NEW):
            queue.append(f"new {number}", "owner", "new")
        taken = [queue.popleft() for _ in range(queue.length)]
        # That of "a" was new, too.
        assert [i for i, item in enumerate(taken) if item != "new"] == [MAX_NEW - 1, 2 * MAX_NEW]

    def test_who_is_busy_keeps_its_turn(self) -> None:
        queue = self.filled("a", "b")
        assert queue.popleft({"a"}) == "b0"
        assert queue.popleft({"a", "b 1"}) == "b2"
        assert queue.popleft() == "a0"
        with pytest.raises(IndexError):
            queue.popleft({"a", "b"})
        assert queue.length == 3

    def test_nothing_is_kept_of_groups_that_have_nothing(self) -> None:
        queue = self.filled("always")
        for number in range(100):
            queue.append("always", "always 0", "more")
            queue.append(f"once {number}", "owner", "item")
            for _ in range(2):
                queue.popleft()
        assert len(queue._groups) + len(queue._new) < 5
        for _ in range(queue.length):
            queue.popleft()
        assert not queue._groups
        assert not queue._new
