"""States of a connection, in the order in which it passes them, and the allowed transitions."""

from __future__ import annotations

from typing import Final

NEW: Final = 0
"""Nothing but empty lines has been received."""
READING: Final = 1
"""Between requests, or part of a request has been received."""
RESPONDING: Final = 2
"""A request is waiting for its response; what the client sends after it stays in the buffer."""
LINGERING: Final = 3
"""The last response has been written; what the client still sends is discarded."""
CLOSED: Final = 4
"""The connection is closed, or closes once the transport has sent what was written."""

TRANSITIONS: Final = frozenset(
    {
        (NEW, READING),
        (NEW, RESPONDING),
        (NEW, LINGERING),
        (NEW, CLOSED),
        (READING, RESPONDING),
        (READING, LINGERING),
        (READING, CLOSED),
        (RESPONDING, READING),
        (RESPONDING, LINGERING),
        (RESPONDING, CLOSED),
        (LINGERING, CLOSED),
    }
)
"""Checked by the tests, not at run time."""
