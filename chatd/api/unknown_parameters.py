"""Tells clients of query parameters that are ignored although they were probably meant.

Unknown parameters are ignored (contract, General), so a client that writes `wiat=30` polls without
a wait, and its author wonders why. The response then names what was ignored and what is similar:

    Unknown-Parameter: "wiat";similar="wait"
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Final

HEADER: Final = b"Unknown-Parameter"
"""A List of Strings (RFC 9651), each with the parameter `similar`, a String."""

DESCRIPTION: Final = (
    "Present if an unknown query parameter, which is ignored, differs from a known one by one "
    'letter: `"wiat";similar="wait"`, a List of Strings (RFC 9651).'
)

MAX_TOLD: Final = 8
MAX_COMPARED: Final = 32
"""Names that are compared with the known ones: a request may have thousands, and all of them would
take longer than anything else that it asks for."""

_PLAUSIBLE: Final = re.compile("[A-Za-z0-9._-]{1,40}")
"""No other name is repeated in a header."""


def unknown_parameters(unknown: Iterable[str], known: Collection[str]) -> bytes | None:
    """The value of the header for these names of parameters, or None if none is similar."""
    found = []
    names = sorted(known)
    for name in islice(dict.fromkeys(unknown), MAX_COMPARED):
        if _PLAUSIBLE.fullmatch(name) is None:
            continue
        similar = next((each for each in names if is_similar(name, each)), None)
        if similar is not None:
            found.append(f'"{name}";similar="{similar}"')
        if len(found) == MAX_TOLD:
            break
    return ", ".join(found).encode("ascii") if found else None


def is_similar(one: str, other: str) -> bool:
    """Whether the texts differ at most by a letter that is inserted, missing, replaced, or swapped
    with its neighbour."""
    shorter, longer = sorted((one, other), key=len)
    if len(longer) - len(shorter) > 1:
        return False
    start = 0
    while start < len(shorter) and shorter[start] == longer[start]:
        start += 1
    rest, other_rest = shorter[start:], longer[start:]
    if len(rest) < len(other_rest):
        return rest == other_rest[1:]
    is_swapped = rest[:2] == other_rest[1::-1] and rest[2:] == other_rest[2:]
    return is_swapped or rest[1:] == other_rest[1:]
