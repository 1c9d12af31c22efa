"""`python -m chatd.conformance URL`: try every promise and print a table of what holds."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from chatd.client import ChatError
from chatd.conformance import general, polling, sending
from chatd.conformance.checks import PROMISES, Broken, Promise
from chatd.conformance.server import Service

__all__ = ["general", "polling", "sending"]

CHECK_SECONDS = 60.0


async def judge(promise: Promise, url: str, reactor: Any) -> str | None:
    """None if the promise holds, else what happened instead."""
    service = Service(url, reactor)
    trying = Deferred.fromCoroutine(_try(promise, service))
    trying.addTimeout(CHECK_SECONDS, reactor)
    try:
        return await trying
    except Exception as problem:
        # The server may answer anything at all: what cannot be read is not what was promised.
        return f"{type(problem).__name__}: {problem}"
    finally:
        await service.clean()


async def _try(promise: Promise, service: Service) -> str | None:
    try:
        await promise.check(service)
    except Broken as broken:
        return str(broken)
    except ChatError as problem:
        return f"{type(problem).__name__}: {problem}"
    return None


async def main(reactor: Any, url: str, only: str) -> None:
    """Print the table; raises SystemExit with 1 if a promise does not hold."""
    chosen = [each for each in PROMISES if only.lower() in f"{each.area} {each.text}".lower()]
    broken = 0
    area = ""
    for promise in chosen:
        if promise.area != area:
            area = promise.area
            print(f"\n{area}")
        otherwise = await judge(promise, url, reactor)
        print(f"  {'BROKEN' if otherwise else 'holds '}  {promise.text}")
        if otherwise:
            broken += 1
            print(f"          {otherwise}")
        sys.stdout.flush()
    print(f"\n{len(chosen) - broken} of {len(chosen)} promises hold.")
    if broken:
        raise SystemExit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m chatd.conformance",
        description="Find out whether a server keeps the promises of chatd's protocol. "
        "Accounts with random names are made there, and deleted afterwards.",
    )
    parser.add_argument("url", metavar="URL", help="for example http://127.0.0.1:8080")
    parser.add_argument("--only", metavar="WORDS", default="", help="promises with these words")
    args = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, args.url, args.only)))
