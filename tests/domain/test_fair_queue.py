"""Networks and accounts are served in turn."""

from __future__ import annotations

import pytest

from chatd.domain.fair_queue import FairQueue
from chatd.errors import Overloaded


def queue(*entries: str, max_entries: int = 100, max_per_owner: int = 100) -> FairQueue[str]:
    """A queue of entries whose owner is their first letter."""
    made: FairQueue[str] = FairQueue(
        lambda entry: entry[0], max_entries=max_entries, max_per_owner=max_per_owner
    )
    for entry in entries:
        made.append(entry)
    return made


def rest(entries: FairQueue[str]) -> list[str]:
    return [entries.popleft() for _ in range(len(entries))]


def test_owners_are_served_in_turn_and_each_in_order() -> None:
    assert rest(queue("a1", "a2", "a3", "b1", "c1", "c2")) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_a_new_owner_waits_for_one_entry_of_each_other() -> None:
    entries = queue("a1", "a2", "a3", "b1", "b2")
    assert entries.popleft() == "a1"
    entries.append("c1")
    assert rest(entries) == ["b1", "a2", "c1", "b2", "a3"]
    assert len(entries) == 0


def test_groups_are_served_in_turn_and_in_each_its_owners() -> None:
    entries: FairQueue[str] = FairQueue(
        lambda entry: entry[:2], max_entries=10, max_per_owner=2, group=lambda entry: entry[0]
    )
    for entry in ("ab1", "ac1", "ad1", "ab2", "xy1", "xz1"):
        entries.append(entry)
    with pytest.raises(Overloaded):
        entries.append("ab3")
    assert entries.popleft({"ab", "ac"}) == "ad1"
    assert rest(entries) == ["xy1", "ab1", "xz1", "ac1", "ab2"]


def test_owners_that_are_busy_are_passed_over() -> None:
    entries = queue("a1", "a2", "b1")
    assert entries.popleft({"a"}) == "b1"
    with pytest.raises(IndexError):
        entries.popleft({"a"})
    assert rest(entries) == ["a1", "a2"]
    with pytest.raises(IndexError):
        entries.popleft()


def test_an_owner_has_a_limit_that_others_do_not_notice() -> None:
    entries = queue("a1", "a2", max_per_owner=2)
    with pytest.raises(Overloaded):
        entries.append("a3")
    entries.append("b1")
    assert len(entries) == 3
    entries.popleft()
    entries.append("a3")


def test_all_have_a_limit() -> None:
    entries = queue("a1", "b1", max_entries=2)
    with pytest.raises(Overloaded) as error:
        entries.append("a2")
    assert error.value.bound == "read_queue"
    assert rest(entries) == ["a1", "b1"]


def test_a_few_owners_do_not_keep_others_out() -> None:
    entries = queue(*["a"] * 50, *["b"] * 50, max_entries=100, max_per_owner=50)
    for number in range(100):
        entries.append(chr(1000 + number))
    # Each of them has one now.
    for owner in ("a", chr(1000), "c"):
        with pytest.raises(Overloaded):
            entries.check(owner)
    assert rest(entries)[:4] == ["a", "b", chr(1000), chr(1001)]
