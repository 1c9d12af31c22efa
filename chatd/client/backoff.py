"""How long to wait before trying again, and how long the service asks to wait."""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Callable
from typing import Final

BASE_SECONDS: Final = 0.25
CAP_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 300.0
"""The longest `Retry-After` that is obeyed: more is a mistake of somebody's."""


class Backoff:
    """Exponential backoff with full jitter: all of the delay is random, so clients spread out.

    After AWS Architecture Blog, "Exponential Backoff And Jitter" (2015). `random` gives numbers
    in [0, 1).
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0

    def delay(self, retry_after: float | None = None) -> float:
        """Seconds to wait after one more failure, never less than `retry_after`."""
        # The exponent stops growing long before the power would overflow.
        ceiling = min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return (retry_after or 0.0) + self._random() * ceiling

    def reset(self) -> None:
        """It worked: the next failure is a first one."""
        self._failures = 0


def retry_after(value: str | None, now: Callable[[], float]) -> float | None:
    """Seconds that a `Retry-After` header asks for (RFC 9110 section 10.2.3), None if nothing.

    Both its forms are understood; what is neither is ignored. `now` tells Unix time.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), PATIENCE_SECONDS)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.UTC)
    return min(max(at.timestamp() - now(), 0.0), PATIENCE_SECONDS)
