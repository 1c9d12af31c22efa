"""Pairs of accounts whose contact is stored, so that it is written with the first message only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from chatd.model import MAX_INTEGER, Draft

MAX_KNOWN_PAIRS: Final = 200_000


class KnownPairs:
    """The (sender, recipient) pairs that this process has stored; bounded, so it may forget.

    A pair that is forgotten is stored again, which has no effect.
    """

    def __init__(self) -> None:
        # Numbers instead of tuples, which Python's garbage collector would traverse.
        self._pairs: set[int] = set()

    def has(self, sent_by: int, received_by: int) -> bool:
        """Whether a message from `sent_by` to `received_by` was committed by this process."""
        return sent_by * (MAX_INTEGER + 1) + received_by in self._pairs

    def unknown(self, drafts: Sequence[Draft]) -> dict[int, tuple[int, int]]:
        """The pairs of drafts that are not known, by the place of the draft, from 1."""
        return {
            place: (draft.sent_by, draft.received_by)
            for place, draft in enumerate(drafts, 1)
            if not self.has(draft.sent_by, draft.received_by)
        }

    def add(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Note pairs of a transaction that was committed."""
        if len(self._pairs) > MAX_KNOWN_PAIRS:
            self._pairs.clear()
        self._pairs.update([sent_by * (MAX_INTEGER + 1) + to for sent_by, to in pairs])
