"""A bounded queue from which networks are served in turn, and in each its accounts.

However much one account asks for, and however many of them a network has, the next request of
another network waits for one of each other network at most.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable
from typing import Final, Generic, TypeVar

from chatd.errors import Overloaded
from chatd.runtime.round_robin import GroupedRoundRobin

T = TypeVar("T")

MAX_PER_OWNER: Final = 1000
"""Entries of one account that may wait."""


class FairQueue(Generic[T]):
    """Holds up to `max_entries` entries, `max_per_owner` of them of one `owner(entry)`.

    Those are for owners with several entries: twice as many may be there if the others are the only
    ones of their owners. So a few owners do not keep out who has nothing in the queue.

    Owners have turns, or, with `group(entry)`, such groups of them, and within each its owners.
    `bound` is the name of these bounds in `Overloaded`.
    """

    def __init__(
        self,
        owner: Callable[[T], Hashable],
        *,
        max_entries: int,
        max_per_owner: int = MAX_PER_OWNER,
        bound: str = "read_queue",
        group: Callable[[T], Hashable] = lambda entry: None,
    ) -> None:
        self._owner = owner
        self._group = group
        self._max_entries = max_entries
        self._max_per_owner = max_per_owner
        self._bound = bound
        self._entries: GroupedRoundRobin[T] = GroupedRoundRobin()

    def __len__(self) -> int:
        return self._entries.length

    def append(self, entry: T) -> None:
        """Add an entry; raises `Overloaded`."""
        owner, group = self._owner(entry), self._group(entry)
        self.check(owner, group)
        self._entries.append(group, owner, entry)

    def check(self, owner: Hashable, group: Hashable = None) -> None:
        """Raise `Overloaded` if `append` would."""
        waiting = self._entries.count(group, owner)
        if self._entries.length >= self._max_entries * (1 if waiting else 2):
            raise Overloaded("too many requests are waiting", 1, self._bound)
        if waiting and waiting >= self._max_per_owner:
            raise Overloaded("too many of your requests are waiting", 1, self._bound)

    def popleft(self, busy: Container[Hashable] = ()) -> T:
        """Take the oldest entry of the owner whose turn it is, of those that are not `busy`, nor
        their group.

        Raises `IndexError` if there is none.
        """
        return self._entries.popleft(busy)
