"""What is promised, how it is found out, and what was found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from chatd.conformance.server import Service

Check = Callable[[Service], Awaitable[None]]


class Broken(Exception):
    """A promise was not kept; the text says what happened instead."""


class Promise(Struct, frozen=True):
    """One sentence of the protocol and the check that tries it."""

    area: str
    text: str
    check: Check


PROMISES: Final[list[Promise]] = []
"""All of them, in the order of the table."""


def promise(area: str, text: str) -> Callable[[Check], Check]:
    """Register a check of the sentence `text`."""

    def register(check: Check) -> Check:
        PROMISES.append(Promise(area, text, check))
        return check

    return register


def expect(condition: object, otherwise: str) -> None:
    """Raise `Broken` if the condition does not hold."""
    if not condition:
        raise Broken(otherwise)


def expect_equal(found: object, wanted: object, what: str) -> None:
    """Raise `Broken` unless both are equal."""
    expect(found == wanted, f"{what}: {found!r}, promised is {wanted!r}")
