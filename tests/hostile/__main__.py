"""Runs attacks and prints the table of what was noticed of them.

    python -m tests.hostile [--short] [--seconds S] [--behind nginx|haproxy] [ATTACK ...]

Exits with 1 if an innocent client noticed more of one than it may. `--short` runs some on one
daemon, which takes less than a minute, and checks only what does not depend on the machine's other
work: that nobody is refused, that the operators' listener answers, and that memory is bounded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.hostile.attacker import ATTACKS
from tests.hostile.attacks import Attack
from tests.hostile.trial import HEADER, KINDS, PROXIES, Result, trial

SHORT: Final = (
    *("unread_pages", "unread_polls", "abandoned_reads", "pipelined_404", "slow_bodies"),
    *("half_open", "json_bombs"),
)
SHORT_SECONDS: Final = 1.5
SHORT_NEEDS: Final = Attack(ATTACKS[SHORT[0]].run, accounts=5, descriptors=1500, messages=0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=", ".join(ATTACKS))
    parser.add_argument("--short", action="store_true", help="some, on one daemon")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--behind", choices=PROXIES, help="a proxy in front of the daemon")
    options = parser.parse_args()
    print(HEADER)
    exceeded = []
    results = (
        _short(options.behind)
        if options.short
        else _full(options.attacks or ATTACKS, options.seconds, options.behind)
    )
    for result in results:
        print(result.row, flush=True)
        timely = options.short or all(result.is_bounded(kind) for kind in KINDS)
        if not timely or not result.is_harmless:
            exceeded.append(result.name)
    if exceeded:
        print(f"noticed more than they may be: {', '.join(exceeded)}", file=sys.stderr)
    return 1 if exceeded else 0


def _full(names: Iterable[str], seconds: float, behind: str | None) -> Iterable[Result]:
    """Each attack on a daemon of its own."""
    for name in names:
        with (
            tempfile.TemporaryDirectory() as folder,
            trial(Path(folder), ATTACKS[name], behind) as attacked,
        ):
            yield attacked.run(name, seconds)
            # It would be printed at the end.
            attacked.daemon.log.unlink()


def _short(behind: str | None) -> Iterable[Result]:
    with (
        tempfile.TemporaryDirectory() as folder,
        trial(Path(folder), SHORT_NEEDS, behind) as attacked,
    ):
        for name in SHORT:
            yield attacked.run(name, SHORT_SECONDS)
        attacked.daemon.log.unlink()


if __name__ == "__main__":
    raise SystemExit(main())
