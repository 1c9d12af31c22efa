"""Registration of conformance checks, and their assertions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from chatd.conformance.server import JSONResponse, Server

SOON: Final = 2.0
"""Seconds within which something counts as immediate, even on a busy machine."""

CheckFunction = Callable[[Server], Awaitable[None]]
Probe = Callable[[Server], Awaitable[bool]]
"""Finds out whether a server has a part of the API that it need not have."""


class CheckFailed(Exception):
    """The server does not meet a requirement; the text says what it did instead."""


class NotSupported(Exception):
    """The server lacks an optional part of the protocol; the text says how it told so."""


class Check(Struct, frozen=True):
    """A requirement of the protocol and the function that tests it.

    It does not apply to servers that are not `supported`; None: it applies to all.
    """

    area: str
    requirement: str
    run: CheckFunction
    supported: Probe | None = None


CHECKS: Final[list[Check]] = []
"""All checks, in the order of the report."""


def check(
    area: str, requirement: str, supported: Probe | None = None
) -> Callable[[CheckFunction], CheckFunction]:
    """Register the decorated function as the check of a requirement."""

    def register(run: CheckFunction) -> CheckFunction:
        CHECKS.append(Check(area, requirement, run, supported))
        return run

    return register


def is_served(response: JSONResponse) -> bool:
    """Whether a server knows the call that it has answered."""
    return response.status not in (405, 501) and response.code != "not_found"


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
