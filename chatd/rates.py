"""How often something may be done: the values of rate limits."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

_RATE: Final = re.compile(r"([1-9][0-9]{0,8})/(s|min|h) +burst +([1-9][0-9]{0,8})")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600}


class Rate(Struct, frozen=True):
    """How many actions are allowed at once, and how many per second in the long run."""

    burst: int
    per_second: float

    def times(self, factor: int) -> Rate:
        """This rate so many times."""
        return Rate(self.burst * factor, self.per_second * factor)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read a text such as ``50/s burst 200`` or ``12/min burst 50``; raises `ValueError`."""
        match = _RATE.fullmatch(text.strip())
        if match is None:
            raise ValueError("is not a rate such as '50/s burst 200', in units of s, min or h")
        return cls(int(match[3]), int(match[1]) / _SECONDS[match[2]])

    def __str__(self) -> str:
        """A text from which `parse` makes the same rate, if it has made this one."""
        counts = {unit: round(self.per_second * length) for unit, length in _SECONDS.items()}
        exact = [
            unit for unit, count in counts.items() if count / _SECONDS[unit] == self.per_second
        ]
        unit = exact[0] if exact else "h"
        return f"{counts[unit]}/{unit} burst {self.burst}"
