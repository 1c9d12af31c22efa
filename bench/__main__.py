"""`bench/run`: measure chatd beside a stock server and peers, print a table, write JSON, plot."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench import report
from bench.machine import describe
from bench.plan import FULL, PEERS, QUICK, WORKLOADS, Bench
from bench.processes import Cores
from bench.publish import ROOT, publish


def main() -> int:
    """Run the benchmark; 1 if a message was lost or doubled, or a workload failed."""
    asked = _arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    output: Path = asked.output
    output.mkdir(parents=True, exist_ok=True)
    scale = QUICK if asked.quick else FULL

    # Beside the output, so that commits go to a disk and not to a file system in memory.
    with tempfile.TemporaryDirectory(prefix="data-", dir=output) as folder:
        bench = Bench(
            Path(folder).resolve(),
            asked.db,
            scale,
            Cores.of_this_machine(),
            workers=asked.workers,
            peers=() if asked.without_peers else PEERS,
            say=_say,
        )
        bench.run(asked.only or WORKLOADS)

    about = {
        **describe(),
        "database": f"chatd on {_database(bench, asked.workers)}, stock on SQLite",
        "scale": f"{'one run' if scale.rounds == 1 else f'medians of {scale.rounds} runs'}, "
        f"{scale.span.counted:g} s each",
    }
    (output / "results.json").write_text(
        json.dumps(
            {
                "about": about,
                "notes": bench.notes,
                "faults": bench.faults,
                "medians": [asdict(each) for each in bench.medians],
                "runs": [asdict(each) for each in bench.runs],
            },
            indent=1,
        )
    )
    text = report.full(about, bench.medians, [*bench.notes, *bench.faults])
    (output / "results.md").write_text(text + "\n", "utf-8")
    _draw(bench, output)
    print(f"\n{text}\n\nwritten: {output}")
    if asked.publish:
        publish(output)
    return int(bool(bench.faults))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of each, smaller sizes")
    parser.add_argument(
        "--only", action="append", choices=WORKLOADS, help="a workload; repeatable (all)"
    )
    parser.add_argument(
        "--without-peers", action="store_true", help="chatd and the stock server only"
    )
    parser.add_argument(
        "--db", default="sqlite", help="where chatd keeps messages: sqlite, or postgresql://..."
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes of chatd (1); more need PostgreSQL"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build" / "bench", help="a folder (build/bench)"
    )
    parser.add_argument(
        "--publish", action="store_true", help="put figures and plots into README.md and docs/"
    )
    return parser.parse_args()


def _database(bench: Bench, workers: int) -> str:
    name = "PostgreSQL" if bench.postgres else "SQLite"
    return name if workers == 1 else f"{name} with {workers} processes"


def _draw(bench: Bench, output: Path) -> None:
    try:
        from bench.plots import draw
    except ImportError as missing:
        print(f"no plots: {missing}", file=sys.stderr)
    else:
        draw(bench.medians, output)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
