"""`python -m tests.simulation`: run many seeds, or one again, or look for planted bugs."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter
from collections.abc import Sequence

from twisted.logger import globalLogBeginner

from tests.simulation.planted import PLANTED, planted
from tests.simulation.simulation import simulate
from tests.simulation.tape import shrink

SHRINK_RUNS = 300

SOMETIMES = (
    "crash",
    "crash after commit, before the answer",
    "crash in a transaction: committed",
    "crash in a transaction: torn",
    "copy put back",
    "cut",
    "disk full or not",
    "drain",
    "half-open connection",
    "hold wake-ups",
    "jump",
    "long poll answered late",
    "replayed",
    "revocation",
    "revocation without an answer",
    "send unknown: store_unavailable",
    "send without an answer",
    "slow reader",
    "told of another history",
    "two sends with one key at once",
)
"""What some of many runs must have reached."""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 1 if something was wrong, or a planted bug was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many, at most")
    parser.add_argument("--minutes", type=float, default=60.0, help="for how long, at most")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--steps", type=int, default=600, help="steps under faults in each run")
    parser.add_argument("--trace", action="store_true", help="print each step of a run that fails")
    parser.add_argument("--planted", action="store_true", help="look for each planted bug")
    options = parser.parse_args(arguments)
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    gc.freeze()
    until = time.monotonic() + 60 * options.minutes
    seeds = range(options.seed, options.seed + options.seeds)
    if options.planted:
        return _look_for_planted(seeds, until, options.steps)
    reached: Counter[str] = Counter()
    steps = events = 0
    runs = 0
    for seed in seeds:
        run = simulate(seed, steps=options.steps)
        runs += 1
        reached.update(run.reached)
        steps += run.time
        events += len(run.events)
        if run.problems:
            return _report(seed, options.steps, options.trace)
        if time.monotonic() > until:
            break
    print(f"{runs} seeds from {options.seed}, {steps} steps, {events} events: nothing wrong")
    for name, count in sorted(reached.items()):
        print(f"{count:8} {name}")
    never = [name for name in SOMETIMES if not reached[name]] if runs >= 200 else []
    for name in never:
        print(f"never reached: {name}")
    return bool(never)


def _report(seed: int, steps: int, trace: bool) -> int:
    failed = simulate(seed, steps=steps)
    kind = failed.problems[0].partition(":")[0]

    def fails(tape: Sequence[int]) -> bool:
        again = simulate(seed, list(tape), steps)
        return bool(again.problems) and again.problems[0].partition(":")[0] == kind

    tape = shrink(failed.tape.drawn, fails, SHRINK_RUNS)
    smallest = simulate(seed, tape, steps)
    print(f"seed {seed}: wrong after {failed.time} steps")
    for problem in smallest.problems:
        print(f"  {problem}")
    print(f"  {len(tape)} choices: {tape}")
    if trace:
        print("\n".join(smallest.trace))
    return 1


def _look_for_planted(seeds: range, until: float, steps: int) -> int:
    missed = 0
    for name in PLANTED:
        began = time.monotonic()
        found = None
        runs = 0
        with planted(name):
            for seed in seeds:
                run = simulate(seed, steps=steps)
                runs += 1
                if run.problems:
                    found = run.problems[0].splitlines()[0][:80]
                    break
                if time.monotonic() > until:
                    break
        missed += found is None
        seconds = time.monotonic() - began
        print(
            f"| {name} | {runs if found else 'not found'} | {seconds:.0f} s | {found} |",
            flush=True,
        )
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
