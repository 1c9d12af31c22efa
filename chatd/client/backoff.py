"""Retry delays: exponential backoff with jitter, and the `Retry-After` header."""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Callable
from typing import Final

BASE_SECONDS: Final = 0.25
CAP_SECONDS: Final = 30.0
MAX_RETRY_AFTER_SECONDS: Final = 300.0
"""A longer `Retry-After` is taken for a mistake and shortened to this."""


class Backoff:
    """Exponential backoff with full jitter.

    After AWS Architecture Blog, "Exponential Backoff And Jitter" (2015). `random` returns numbers
    in [0, 1).
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0

    def delay(self, retry_after: float | None = None) -> float:
        """Seconds to wait after one more failure, never less than `retry_after`."""
        # Bounding the exponent keeps the power from overflowing.
        ceiling = min(CAP_SECONDS, BASE_SECONDS * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return (retry_after or 0.0) + self._random() * ceiling

    def reset(self) -> None:
        """Start over after a success."""
        self._failures = 0


def parse_retry_after(value: str | None, now: Callable[[], float]) -> float | None:
    """Seconds to wait by a `Retry-After` header (RFC 9110 section 10.2.3), None without one.

    Understands both forms, a number and a date, and ignores anything else. `now` returns Unix time.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_SECONDS)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.UTC)
    return min(max(at.timestamp() - now(), 0.0), MAX_RETRY_AFTER_SECONDS)
