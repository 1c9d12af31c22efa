"""Registration of conformance checks, and their assertions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from chatd.conformance.server import Server

SOON: Final = 2.0
"""Seconds within which something counts as immediate, even on a busy machine."""

CheckFunction = Callable[[Server], Awaitable[None]]


class CheckFailed(Exception):
    """The server does not meet a requirement; the text says what it did instead."""


class NotSupported(Exception):
    """The server does not have this part of the protocol, as one of version 1 has not."""


class Check(Struct, frozen=True):
    """A requirement of the protocol and the function that tests it."""

    area: str
    requirement: str
    run: CheckFunction


CHECKS: Final[list[Check]] = []
"""All checks, in the order of the report."""


def check(area: str, requirement: str) -> Callable[[CheckFunction], CheckFunction]:
    """Register the decorated function as the check of a requirement."""

    def register(run: CheckFunction) -> CheckFunction:
        CHECKS.append(Check(area, requirement, run))
        return run

    return register


def expect(condition: object, failure: str) -> None:
    """Raise `CheckFailed` unless the condition holds."""
    if not condition:
        raise CheckFailed(failure)


def expect_equal(actual: object, expected: object, what: str) -> None:
    """Raise `CheckFailed` unless both are equal."""
    expect(actual == expected, f"{what}: {actual!r}, expected {expected!r}")
