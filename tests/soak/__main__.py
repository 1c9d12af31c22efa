"""Runs real daemons for a long time, with faults, and checks everything that clients were told.

    python -m tests.soak --minutes 60
    python -m tests.soak --minutes 5 --only sqlite --output build/soak

Clients of the library send and follow through proxies, while daemons are killed, stopped, suspended
and cut off, their disk is full for a while, and their PostgreSQL is killed and restarted, or its
standby takes over. Memory and descriptors of the daemons are
measured and plotted. Exits with 1 if anything is wrong: its history is then left in the output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.machine import describe
from tests.daemon import ROOT
from tests.soak.deployment import Deployment, on_postgres, on_sqlite, postgres_database
from tests.soak.plot import draw_lines
from tests.soak.soak import Settings, Soak
from tests.soak.usage import Usage, hourly_slope, later_half

DATABASES: Final = ("sqlite", "postgres")


def main() -> int:
    options = _options()
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        output,
        60 * options.minutes,
        round_seconds=options.round,
        sample_seconds=options.sample,
        rate=options.rate,
        seed=options.seed,
        keep=options.keep,
    )
    with _deployments(options.only or DATABASES, output, options.dsn) as deployments:
        soak = _run(settings, deployments)
    problems = list(soak.problems)
    if options.max_slope is not None:
        problems += too_steep(soak.usage, options.max_slope)
    _write(soak, output)
    about = "\n".join(f"{name}: {value}" for name, value in describe().items())
    print(f"\n{soak.summary()}\n{about}\nwritten: {output}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="Run daemons under load and faults."
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--only", action="append", choices=DATABASES, help="repeatable")
    parser.add_argument("--dsn", help="a running PostgreSQL, which is then not killed")
    parser.add_argument("--rate", type=float, default=40.0, help="sends a second, of each database")
    parser.add_argument("--round", type=float, default=60.0, help="seconds between two checks")
    parser.add_argument("--sample", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument("--seed", type=int, default=0, help="chooses the faults")
    parser.add_argument("--keep", action="store_true", help="also keep histories without fault")
    parser.add_argument(
        "--max-slope", type=float, metavar="MIB", help="fail if memory grows by more an hour"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "soak")
    return parser.parse_args()


@contextlib.contextmanager
def _deployments(only: Any, output: Path, dsn: str | None) -> Iterator[list[Deployment]]:
    with ExitStack() as stack:
        made: list[Deployment] = []
        folder = output / "data"
        if "sqlite" in only:
            made += on_sqlite(folder, small=True)
        if "postgres" in only:
            url, servers = stack.enter_context(postgres_database(dsn))
            made.append(on_postgres(folder, url, servers))
        yield made


def _run(settings: Settings, deployments: list[Deployment]) -> Soak:
    """Run a soak in the global reactor until it ends; one that is interrupted stops its daemons."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    running: Any = reactor
    soak = Soak(running, settings, deployments, lambda line: print(line, flush=True))
    failures: list[Failure] = []
    ended: Deferred[None] = Deferred()

    def begin() -> None:
        done = Deferred.fromCoroutine(soak.run())

        def interrupt() -> Deferred[None]:
            if not done.called:
                soak.problems.append("interrupted")
                done.cancel()
            return ended

        def end(result: object) -> None:
            if isinstance(result, Failure):
                failures.append(result)
            ended.callback(None)
            if not stopping:
                running.stop()

        running.addSystemEventTrigger("before", "shutdown", interrupt)
        done.addBoth(end)

    stopping: list[bool] = []
    running.addSystemEventTrigger("before", "shutdown", stopping.append, True)
    running.callWhenRunning(begin)
    running.run()
    for failure in failures:
        failure.raiseException()
    return soak


def too_steep(usage: list[Usage], limit: float) -> list[str]:
    """The daemons whose memory grows by more MiB an hour than the limit."""
    found = []
    for each in usage:
        later = later_half(each.longest_life())
        slope = hourly_slope((sample.seconds, sample.mebibytes) for sample in later)
        if slope is not None and slope > limit:
            found.append(f"{each.name}: its memory grows by {slope:.1f} MiB an hour")
    return found


def _write(soak: Soak, output: Path) -> None:
    """Write the samples, and plots of them."""
    samples = {each.name: [sample._asdict() for sample in each.samples] for each in soak.usage}
    (output / "samples.json").write_text(json.dumps(samples, indent=1) + "\n", "utf-8")
    for name, title in (("mebibytes", "resident memory, MiB"), ("descriptors", "descriptors")):
        lines = [
            (each.name, [(sample.seconds / 60, getattr(sample, name)) for sample in each.samples])
            for each in soak.usage
            if each.samples
        ]
        draw_lines(output / f"{name}.svg", "minutes", title, lines)


if __name__ == "__main__":
    sys.exit(main())
