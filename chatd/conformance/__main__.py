"""`python -m chatd.conformance URL`: run all checks against a server and report the results."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.task import react

from chatd.client import ChatError
from chatd.conformance import blocking, general, polling, revising, sending, streaming
from chatd.conformance.checks import CHECKS, Check, CheckFailed
from chatd.conformance.server import Server

__all__ = ["blocking", "general", "polling", "revising", "sending", "streaming"]

CHECK_SECONDS: Final = 60.0
CONCURRENT_CHECKS: Final = 4
NOT_SUPPORTED: Final = "not supported"
"""The result of a check of a part of the API that the server does not have."""


async def run_check(check: Check, url: str, reactor: Any) -> str | None:
    """Run a check; None if it passes, `NOT_SUPPORTED`, or what happened instead."""
    server = Server(url, reactor)
    running = Deferred.fromCoroutine(_run(check, server))
    running.addTimeout(CHECK_SECONDS, reactor)
    try:
        return await running
    except Exception as error:
        # A faulty server may send anything: a response that cannot be read fails the check.
        return f"{type(error).__name__}: {error}"
    finally:
        await server.cleanup()


async def _run(check: Check, server: Server) -> str | None:
    try:
        if check.supported is not None and not await check.supported(server):
            return NOT_SUPPORTED
        await check.run(server)
    except CheckFailed as failure:
        return str(failure)
    except ChatError as error:
        return f"{type(error).__name__}: {error}"
    return None


async def main(reactor: Any, url: str, only: str) -> None:
    """Run the checks and print a report; raises SystemExit(1) if one fails.

    What the server need not have and does not have does not fail.
    """
    chosen = [each for each in CHECKS if only.lower() in f"{each.area} {each.requirement}".lower()]
    # Most checks wait most of the time.
    slots = DeferredSemaphore(CONCURRENT_CHECKS)
    running = [
        slots.run(lambda check: Deferred.fromCoroutine(run_check(check, url, reactor)), check)
        for check in chosen
    ]
    failed = absent = 0
    area = ""
    for check, result in zip(chosen, running, strict=True):
        if check.area != area:
            area = check.area
            print(f"\n{area}")
        failure = await result
        if failure == NOT_SUPPORTED:
            absent += 1
            print(f"  {NOT_SUPPORTED}  {check.requirement}")
        else:
            print(f"  {'FAILED' if failure else 'passed'}  {check.requirement}")
            if failure:
                failed += 1
                print(f"          {failure}")
        sys.stdout.flush()
    applicable = len(chosen) - absent
    print(f"\n{applicable - failed} of {applicable} checks passed.")
    if absent:
        print(f"{absent} do not apply: the server does not support these parts of the API.")
    if failed:
        raise SystemExit(1)


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
