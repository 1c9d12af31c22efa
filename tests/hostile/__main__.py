"""Runs attacks and prints the table of what was noticed of them.

    python -m tests.hostile [--seconds S] [ATTACK ...]

Exits with 1 if an innocent client noticed more of one than it may.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.hostile.attacks import ATTACKS
from tests.hostile.trial import HEADER, KINDS, trial


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile")
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=", ".join(ATTACKS))
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    options = parser.parse_args()
    exceeded = []
    print(HEADER)
    for name in options.attacks or ATTACKS:
        # The daemon's log is printed at the end.
        with tempfile.TemporaryDirectory() as folder, trial(Path(folder)) as attacked:
            result = attacked.run(name, options.seconds)
            attacked.daemon.log.unlink()
        print(result.row, flush=True)
        if not all(result.is_bounded(kind) for kind in KINDS):
            exceeded.append(name)
    if exceeded:
        print(f"noticed more than they may be: {', '.join(exceeded)}", file=sys.stderr)
    return 1 if exceeded else 0


if __name__ == "__main__":
    raise SystemExit(main())
