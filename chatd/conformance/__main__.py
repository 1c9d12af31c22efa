"""`python -m chatd.conformance URL`: run all checks against a server and report the results."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any, Final

from msgspec import Struct
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.task import react

from chatd.client import ChatError
from chatd.conformance import (
    blocking,
    conversations,
    general,
    polling,
    removing,
    revising,
    sending,
    streaming,
    tokens,
)
from chatd.conformance.checks import CHECKS, Check, CheckFailed, NotSupported
from chatd.conformance.server import Server

__all__ = [
    "blocking",
    "conversations",
    "general",
    "polling",
    "removing",
    "revising",
    "sending",
    "streaming",
    "tokens",
]

CHECK_SECONDS: Final = 60.0
CONCURRENT_CHECKS: Final = 4


class Result(Struct, frozen=True):
    """The result of a check, and what happened if it has not passed."""

    verdict: str
    detail: str = ""


PASSED: Final = "passed"
FAILED: Final = "FAILED"
NOT_SUPPORTED: Final = "not supported"


async def run_check(check: Check, url: str, reactor: Any) -> Result:
    """Run a check."""
    server = Server(url, reactor)
    running = Deferred.fromCoroutine(_run(check, server))
    running.addTimeout(CHECK_SECONDS, reactor)
    try:
        return await running
    except Exception as error:
        # A faulty server may send anything: a response that cannot be read fails the check.
        return Result(FAILED, f"{type(error).__name__}: {error}")
    finally:
        await server.cleanup()


async def _run(check: Check, server: Server) -> Result:
    try:
        await check.run(server)
    except CheckFailed as failure:
        return Result(FAILED, str(failure))
    except NotSupported as missing:
        return Result(NOT_SUPPORTED, str(missing))
    except ChatError as error:
        return Result(FAILED, f"{type(error).__name__}: {error}")
    return Result(PASSED)


async def main(reactor: Any, url: str, only: str) -> None:
    """Run the checks and print a report; raises SystemExit(1) if one fails."""
    chosen = [each for each in CHECKS if only.lower() in f"{each.area} {each.requirement}".lower()]
    # Most checks wait most of the time.
    slots = DeferredSemaphore(CONCURRENT_CHECKS)
    running = [
        slots.run(lambda check: Deferred.fromCoroutine(run_check(check, url, reactor)), check)
        for check in chosen
    ]
    counts: Counter[str] = Counter()
    area = ""
    for check, result in zip(chosen, running, strict=True):
        if check.area != area:
            area = check.area
            print(f"\n{area}")
        found = await result
        counts[found.verdict] += 1
        print(f"  {found.verdict}  {check.requirement}")
        if found.detail:
            print(f"          {found.detail}")
        sys.stdout.flush()
    missing = counts[NOT_SUPPORTED]
    supported = len(chosen) - missing
    print(f"\n{counts[PASSED]} of {supported} checks passed{_missing(missing)}.")
    if counts[FAILED]:
        raise SystemExit(1)


def _missing(count: int) -> str:
    return f", {count} are of parts that the server does not have" if count else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m chatd.conformance",
        description="Check whether a server implements chatd's protocol. Creates accounts with "
        "random names on the server and deletes them afterwards.",
    )
    parser.add_argument("url", metavar="URL", help="for example http://127.0.0.1:8080")
    parser.add_argument("--only", metavar="WORDS", default="", help="run the checks with this text")
    args = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, args.url, args.only)))
