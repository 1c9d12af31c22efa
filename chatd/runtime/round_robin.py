"""Queues whose owners are served in turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


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

    def counts(self) -> list[int]:
        """The number of items of each owner."""
        return [len(queue) for queue in self._queues.values()]

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

    def clear(self) -> None:
        """Drop all items."""
        self._queues.clear()
        self.length = 0


class GroupedRoundRobin(Generic[T]):
    """Items by owner, where owners belong to groups: groups have turns, and in each its owners.

    So an owner waits for one item of each other group, however many owners those have.
    """

    __slots__ = ("_groups", "length")

    def __init__(self) -> None:
        self._groups: OrderedDict[Hashable, RoundRobin[T]] = OrderedDict()
        self.length = 0
        """The number of items."""

    def count(self, group: Hashable, owner: Hashable) -> int:
        """The number of items of one owner in a group."""
        owners = self._groups.get(group)
        return 0 if owners is None else owners.count(owner)

    def append(self, group: Hashable, owner: Hashable, item: T) -> None:
        """Add an item behind the others of its owner."""
        owners = self._groups.get(group)
        if owners is None:
            owners = self._groups[group] = RoundRobin()
        owners.append(owner, item)
        self.length += 1

    def popleft(self, busy: Container[Hashable] = ()) -> T:
        """Take the oldest item of the owner whose turn it is in the group whose turn it is, of the
        groups and owners that are not `busy`.

        Raises `IndexError` if there is none.
        """
        for group, owners in self._groups.items():
            if group in busy:
                continue
            try:
                item = owners.popleft(busy)
            except IndexError:
                continue
            self.length -= 1
            if owners:
                self._groups.move_to_end(group)
            else:
                del self._groups[group]
            return item
        raise IndexError("no item may be taken")
