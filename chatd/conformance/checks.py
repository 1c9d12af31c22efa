"""Registration of conformance checks, and their assertions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from chatd.conformance.server import JSONResponse, Server

SOON: Final = 2.0
"""Seconds within which something counts as immediate, even on a busy machine."""

CheckFunction = Callable[[Server], Awaitable[None]]


class CheckFailed(Exception):
    """The server does not meet a requirement; the text says what it did instead."""


class NotSupported(Exception):
    """The server lacks an optional part of the protocol; the text says how it told so."""


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


def require_support(response: JSONResponse, call: str) -> None:
    """Raise `NotSupported` if the response to a call says that the server does not have it."""
    if response.status in (404, 405, 501):
        raise NotSupported(f"{call} is answered {response.status}")


def expect_equal(actual: object, expected: object, what: str) -> None:
    """Raise `CheckFailed` unless both are equal."""
    expect(actual == expected, f"{what}: {actual!r}, expected {expected!r}")
