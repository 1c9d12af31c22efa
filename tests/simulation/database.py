"""What a simulation asks of a database, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

from tests.history import Stored
from tests.simulation.node import Node

Action = Callable[[], None]
Kind = Literal["sqlite", "postgres", "sharded"]
Named = tuple[str, Action]


class Database(Protocol):
    """The database of all daemons of a run."""

    max_nodes: int
    clients: Sequence[tuple[type[Any], int]]
    """Clients that use it besides the others, and the number of the account of each."""

    def running(self) -> AbstractContextManager[object]:
        """What has to be entered while a run lasts."""
        ...

    def new_node(self, name: str, seconds: float) -> Node:
        """A daemon that has not started yet, whose clock shows this time."""
        ...

    def actions(self) -> list[Named]:
        """What can happen next in the database itself."""
        ...

    def faults(self, nodes: list[Node]) -> list[Named]:
        """What can go wrong now; a fault that is more probable is there several times."""
        ...

    def is_busy(self, node: Node) -> bool:
        """Whether the database is doing something for this daemon."""
        ...

    def tells_all(self, node: Node) -> bool:
        """Whether all notices that this daemon should have had have arrived, or will."""
        ...

    def killed(self, node: Node) -> None:
        """This daemon was killed; `node.kill` is called next."""
        ...

    def ended(self, node: Node) -> None:
        """This daemon has ended by itself."""
        ...

    def copy(self) -> bool:
        """Make a copy of what is stored; False if that is not possible now."""
        ...

    def put_back(self, nodes: list[Node]) -> list[Node]:
        """Replace what is stored by the copy; returns the daemons that have to be killed."""
        ...

    def mend(self, nodes: list[Node]) -> None:
        """End all faults."""
        ...

    def inboxes(self) -> dict[int, list[Stored]]:
        """The messages of each user."""
        ...

    def ends(self) -> Mapping[int, int]:
        """The seq of the last message of each user."""
        ...

    def times_going_back(self) -> list[str]:
        """A line for each message that seems to be older than the one before it in its inbox."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...
