"""How many examples hypothesis generates: more with ``--hypothesis-profile=deep``."""

from __future__ import annotations

from typing import Final

from hypothesis import settings

DEEP: Final = "deep"
"""The profile of `scripts/test --deep` and of CI."""


def examples(default: int, *, deep: int) -> int:
    """The number of examples in the profile that is loaded; read while modules are imported."""
    return deep if settings.get_current_profile_name() == DEEP else default
