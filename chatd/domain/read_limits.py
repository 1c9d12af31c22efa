"""Who may read now: by rate, and by what their clients have not read yet of earlier answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from chatd.domain.rate_limits import RateLimits
from chatd.errors import Overloaded
from chatd.model import Message

READ_MESSAGES: Final = 10
READ_CHARACTERS: Final = 16 * 1024
"""So many messages, and so many characters of text, count as one read more each."""


class ReadLimits:
    """`reads_answers(user_id)` is whether the clients of an account read what they are sent."""

    def __init__(self, limits: RateLimits, reads_answers: Callable[[int], bool]) -> None:
        self._limits = limits
        self._reads_answers = reads_answers

    @property
    def are_limited(self) -> bool:
        """Whether rates are limited."""
        return self._limits.enabled

    def count(self, user_id: int) -> None:
        """Count a read; raises `RateLimited` or `Overloaded`."""
        if not self._reads_answers(user_id):
            raise _unread()
        if self._limits.enabled:
            self._limits.count_read(user_id)

    def check(self, user_id: int) -> None:
        """Raise `Overloaded` if the answers before are unread."""
        if not self._reads_answers(user_id):
            raise _unread()

    def charge(self, user_id: int, messages: Sequence[Message]) -> None:
        """Count how large an answer is; never raises.

        What was read for it counts, not what fits into it.
        """
        if not self._limits.enabled:
            return
        reads = len(messages) // READ_MESSAGES
        reads += sum([len(each.text) for each in messages]) // READ_CHARACTERS
        if reads:
            self._limits.charge_read(user_id, reads)

    def charge_rows(self, user_id: int, rows: int) -> None:
        """Count an answer of so many rows, each a part of a message's size; never raises."""
        if rows >= READ_MESSAGES and self._limits.enabled:
            self._limits.charge_read(user_id, rows // READ_MESSAGES)


def _unread() -> Overloaded:
    return Overloaded("read the responses to earlier requests first", 1, "unsent_bytes")
