"""Queues whose owners are served in turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container, Hashable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

MAX_NEW: Final = 8
"""New groups that are served before one of the others has its turn."""


class RoundRobin(Generic[T]):
    """Items by owner: each owner's are taken in order, one before the next owner has its turn."""

    __slots__ = ("_queues", "length")

    def __init__(self) -> None:
        # In the order in which they are served next.
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self.length = 0
        """The number of items; as an attribute, for those who look often."""

    def __len__(self) -> int:
        return self.length

    def count(self, owner: Hashable) -> int:
        """The number of items of one owner."""
        queue = self._queues.get(owner)
        return 0 if queue is None else len(queue)

    def append(self, owner: Hashable, item: T) -> None:
        """Add an item behind the others of its owner."""
        self._queues.setdefault(owner, deque()).append(item)
        self.length += 1

    def popleft(self, busy: Container[Hashable] = ()) -> T:
        """Take the oldest item of the owner whose turn it is, of those that are not `busy`.

        Raises `IndexError` if there is none.
        """
        owner = next((owner for owner in self._queues if owner not in busy), None)
        if owner is None:
            raise IndexError("no item may be taken")
        queue = self._queues[owner]
        item = queue.popleft()
        self.length -= 1
        if queue:
            self._queues.move_to_end(owner)
        else:
            del self._queues[owner]
        return item

    def owner_of_most(self) -> Hashable:
        """The owner with most items; looks at all of them. Raises `ValueError` without any."""
        return max(self._queues, key=self.count)

    def pop(self, owner: Hashable) -> T:
        """Take the newest item of an owner that has one."""
        queue = self._queues[owner]
        item = queue.pop()
        self.length -= 1
        if not queue:
            del self._queues[owner]
        return item

    def clear(self) -> None:
        """Drop all items."""
        self._queues.clear()
        self.length = 0


class GroupedRoundRobin(Generic[T]):
    """Items by owner, where owners belong to groups: groups have turns, and in each its owners.

    So an owner waits for one item of each other group, however many owners those have. A group of
    which nothing has waited is served first once (like new flows in RFC 8290 section 4.1): who asks
    for something now and then does not wait for all who always do.
    """

    __slots__ = ("_groups", "_new", "_new_served", "length")

    def __init__(self) -> None:
        # In the order in which they are served next. Those that are empty have had their turn, and
        # are kept until their next one, so that they are not new before.
        self._groups: OrderedDict[Hashable, RoundRobin[T]] = OrderedDict()
        self._new: OrderedDict[Hashable, RoundRobin[T]] = OrderedDict()
        # How many new ones were served without one of the others.
        self._new_served = 0
        self.length = 0
        """The number of items."""

    def count(self, group: Hashable, owner: Hashable) -> int:
        """The number of items of one owner in a group."""
        owners = self._owners(group)
        return 0 if owners is None else owners.count(owner)

    def append(self, group: Hashable, owner: Hashable, item: T) -> None:
        """Add an item behind the others of its owner."""
        owners = self._owners(group)
        if owners is None:
            owners = self._new[group] = RoundRobin()
        owners.append(owner, item)
        self.length += 1

    def _owners(self, group: Hashable) -> RoundRobin[T] | None:
        # One that is empty is false, but not new.
        owners = self._groups.get(group)
        return self._new.get(group) if owners is None else owners

    def popleft(self, busy: Container[Hashable] = ()) -> T:
        """Take the oldest item of the owner whose turn it is in the group whose turn it is, of the
        groups and owners that are not `busy`.

        Raises `IndexError` if there is none.
        """
        first, second = self._new, self._groups
        if self._new_served >= MAX_NEW:
            first, second = second, first
        for groups in (first, second):
            while groups and not next(iter(groups.values())):
                groups.popitem(last=False)
            for group, owners in groups.items():
                if group in busy or not owners:
                    continue
                try:
                    item = owners.popleft(busy)
                except IndexError:
                    continue
                self.length -= 1
                del groups[group]
                self._groups[group] = owners
                self._new_served = self._new_served + 1 if groups is self._new else 0
                if not self.length:
                    self._groups.clear()
                return item
        raise IndexError("no item may be taken")
