"""`AdminError`: ends a command with one line and an exit status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FAILED: Final = 1
NOT_FOUND: Final = 3
CONFLICT: Final = 4
DAMAGED: Final = 5

STATUSES: Final[Mapping[str, int]] = {
    "user_not_found": NOT_FOUND,
    "token_not_found": NOT_FOUND,
    "username_taken": CONFLICT,
}
"""The exit status by the code of a `DomainError`; `FAILED` for all others."""


class AdminError(Exception):
    """Ends the command; the text is printed to standard error."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status
