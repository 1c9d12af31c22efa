"""Who may read now: by rate, and by what their clients have not read yet of earlier answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from chatd.domain.rate_limits import RateLimits
from chatd.errors import Overloaded
from chatd.model import Message

FREE_MESSAGES: Final = 10
"""Answers with more messages count as one read for each so many."""


class ReadLimits:
    """`reads_answers(user_id)` is whether the clients of an account read what they are sent."""

    def __init__(self, limits: RateLimits, reads_answers: Callable[[int], bool]) -> None:
        self._limits = limits
        self._reads_answers = reads_answers

    def count(self, user_id: int) -> None:
        """Count a read; raises `RateLimited` or `Overloaded`."""
        self.check(user_id)
        self._limits.count_read(user_id)

    def check(self, user_id: int) -> None:
        """Raise `Overloaded` if the answers before are unread."""
        if not self._reads_answers(user_id):
            raise Overloaded("read the responses to earlier requests first", 1, "unsent_bytes")

    def charge(self, user_id: int, messages: Sequence[Message]) -> None:
        """Count what an answer had more than others; never raises."""
        if len(messages) > FREE_MESSAGES:
            self._limits.charge_read(user_id, len(messages) // FREE_MESSAGES)
