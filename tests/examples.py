"""How large tests are: larger with ``--hypothesis-profile=deep``."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

DEEP: Final = "deep"
"""The profile of `scripts/test --deep` and of CI."""


def examples(default: int, *, deep: int) -> int:
    """The number of examples in the profile that is loaded; read while modules are imported."""
    return deep if settings.get_current_profile_name() == DEEP else default


PAUSE_SECONDS: Final = examples(100, deep=0) / 1000
"""How long clients that send in the background wait after each message.

Without a pause they use up a core while the test waits for something else.
"""
