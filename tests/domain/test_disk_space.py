"""Refusing to store anything before the disk is full."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from chatd.domain.disk_space import CHECK_SECONDS, DiskSpace
from chatd.errors import InsufficientStorage


class Disk:
    """A disk whose free space the test sets."""

    def __init__(self, free: int) -> None:
        self.free: int | OSError = free
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        if isinstance(self.free, OSError):
            raise self.free
        return self.free


def test_nothing_is_stored_on_a_disk_that_is_nearly_full() -> None:
    disk, clock = Disk(100), Clock()
    space = DiskSpace(disk, 100, clock)
    space.check()
    disk.free = 99
    # It is looked at once a second.
    space.check()
    assert disk.asked == 1
    clock.advance(CHECK_SECONDS)
    for _ in range(2):
        with pytest.raises(InsufficientStorage) as error:
            space.check()
    assert (error.value.retry_after, error.value.bound) == (60, "free_disk")
    assert disk.asked == 2
    disk.free = 100
    clock.advance(CHECK_SECONDS)
    space.check()


def test_a_disk_that_cannot_be_looked_at_is_left_to_the_store() -> None:
    disk, clock = Disk(0), Clock()
    space = DiskSpace(disk, 1, clock)
    disk.free = OSError("gone")
    space.check()


def test_it_can_be_switched_off_and_is_for_another_machine() -> None:
    disk = Disk(0)
    DiskSpace(disk, 0, Clock()).check()
    DiskSpace(None, 1, Clock()).check()
    assert disk.asked == 0


def test_how_much_has_to_be_free_may_change() -> None:
    disk, clock = Disk(100), Clock()
    space = DiskSpace(disk, 0, clock)
    space.check()
    assert disk.asked == 0
    space.least = 101
    with pytest.raises(InsufficientStorage):
        space.check()
    space.least = 0
    space.check()
