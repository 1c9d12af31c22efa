"""How much time a turn of the reactor has for everything that may take long in it.

Sockets, requests that wait, wake-ups and results of the database each do a few milliseconds of work
and leave the rest for the next turn. An innocent send takes three turns, so what counts is how long
all of them together take.
"""

from __future__ import annotations

from math import inf
from typing import Final
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorTime

WHOLE_SECONDS: Final = 0.004
"""How long a turn should take in all."""
LEAST_SECONDS: Final = 0.0005
"""What each kind of work gets nevertheless, in a turn that has taken longer already."""


class Turn:
    """The turn that a reactor is in. Whoever runs the reactor calls `begin`; where nobody does,
    only each kind of work has a limit."""

    __slots__ = ("__weakref__", "_factor", "_until")

    def __init__(self) -> None:
        self._factor = 1.0
        self._until = inf

    def begin(self, now: float, factor: float = 1.0) -> None:
        """A turn has begun, which may take `factor` times as long as usual."""
        self._factor = factor
        self._until = now + WHOLE_SECONDS * factor

    def until(self, now: float, most: float) -> float:
        """When work that begins now should leave the rest for later; usually after `most` seconds
        at the latest."""
        return min(now + most * self._factor, max(self._until, now + LEAST_SECONDS))


_turns: WeakKeyDictionary[IReactorTime, Turn] = WeakKeyDictionary()


def turn_of(clock: IReactorTime) -> Turn:
    """The turn of a reactor, which is the same for all who ask."""
    turn = _turns.get(clock)
    if turn is None:
        turn = _turns[clock] = Turn()
    return turn
