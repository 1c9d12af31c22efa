"""`python -m tests.simulation`: run many seeds, or one again, or look for planted bugs."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence

from twisted.logger import globalLogBeginner

from tests.simulation.database import Kind
from tests.simulation.planted import KINDS, planted
from tests.simulation.simulation import simulate
from tests.simulation.sometimes import SOMETIMES, never
from tests.simulation.tape import shrink

SHRINK_RUNS = 300
ENOUGH_RUNS = 1000
"""So many runs reach everything that is reached sometimes."""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 1 if something was wrong, or a planted bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--database", choices=list(KINDS), help="default: each, at once")
    parser.add_argument("--seeds", type=int, default=1000, help="how many of each, at most")
    parser.add_argument("--minutes", type=float, default=60.0, help="for how long, at most")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--steps", type=int, default=600, help="steps under faults in each run")
    parser.add_argument("--trace", action="store_true", help="print each step of a run that fails")
    parser.add_argument("--planted", action="store_true", help="look for each planted bug")
    options = parser.parse_args(arguments)
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    until = time.monotonic() + 60 * options.minutes
    seeds = range(options.seed, options.seed + options.seeds)
    if options.database is None:
        return _run_at_once(arguments)
    kind: Kind = options.database
    if options.planted:
        return _look_for_planted(kind, seeds, until, options.steps)
    return _run(kind, seeds, until, options.steps, trace=options.trace)


def _run_at_once(arguments: Sequence[str]) -> int:
    """Run a process for each database."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    running = [subprocess.Popen([*command, "--database", kind]) for kind in KINDS]
    statuses = [process.wait() for process in running]
    return int(any(statuses))


def _run(kind: Kind, seeds: range, until: float, steps: int, *, trace: bool) -> int:
    reached: Counter[str] = Counter()
    taken = events = runs = 0
    for seed in seeds:
        run = simulate(seed, steps=steps, kind=kind)
        runs += 1
        reached.update(run.reached)
        taken += run.time
        events += len(run.events)
        if run.problems:
            return _report(kind, seed, steps, trace=trace)
        if time.monotonic() > until:
            break
    print(f"{kind}: {runs} seeds from {seeds[0]}, {taken} steps, {events} events: nothing wrong")
    width = max(map(len, reached))
    for name, count in sorted(reached.items()):
        print(f"  {name:{width}} {count:8}{'  (sometimes)' * (name in SOMETIMES[kind])}")
    missing = never(kind, reached)
    if missing:
        print(f"  never reached: {', '.join(missing)}")
    return int(bool(missing) and runs >= ENOUGH_RUNS)


def _report(kind: Kind, seed: int, steps: int, *, trace: bool) -> int:
    failed = simulate(seed, steps=steps, kind=kind)
    problem = failed.problems[0].partition(":")[0]

    def fails(tape: Sequence[int]) -> bool:
        again = simulate(seed, list(tape), steps, kind)
        return bool(again.problems) and again.problems[0].partition(":")[0] == problem

    tape = shrink(failed.tape.drawn, fails, SHRINK_RUNS)
    smallest = simulate(seed, tape, steps, kind)
    print(f"{kind}, seed {seed}: wrong after {failed.time} steps")
    for each in smallest.problems:
        print(f"  {each}")
    print(f"  {len(tape)} choices: {tape}")
    if trace:
        print("\n".join(smallest.trace))
    return 1


def _look_for_planted(kind: Kind, seeds: range, until: float, steps: int) -> int:
    missed = 0
    for name in KINDS[kind]:
        began = time.monotonic()
        found = None
        runs = 0
        with planted(name):
            for seed in seeds:
                run = simulate(seed, steps=steps, kind=kind)
                runs += 1
                if run.problems:
                    found = run.problems[0].splitlines()[0][:80]
                    break
                if time.monotonic() > until:
                    break
        missed += found is None
        seconds = time.monotonic() - began
        count = runs if found else f"not in {runs}"
        print(f"| {kind} | {name} | {count} | {seconds:.0f} s | {found or ''} |", flush=True)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
