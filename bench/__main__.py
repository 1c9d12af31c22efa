"""`bench/run`: benchmark chatd, a stock server and peers; write tables, JSON and plots."""

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
from bench.plan import FULL, PEERS, QUICK, WORKLOADS, Benchmark
from bench.processes import Cores
from bench.publish import ROOT, publish


def main() -> int:
    """Run the benchmark; 1 if a message was lost or duplicated, or a workload failed."""
    args = _arguments()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    output: Path = args.output
    output.mkdir(parents=True, exist_ok=True)
    scale = QUICK if args.quick else FULL

    # Next to the output, so that commits go to a disk and not to an in-memory file system.
    with tempfile.TemporaryDirectory(prefix="data-", dir=output) as folder:
        bench = Benchmark(
            Path(folder).resolve(),
            args.db,
            scale,
            Cores.of_this_machine(),
            workers=args.workers,
            peers=() if args.without_peers else PEERS,
            log=_log,
        )
        bench.run(args.only or WORKLOADS)

    about = {
        **describe(),
        "database": f"chatd on {_database(bench, args.workers)}, stock on SQLite",
        "scale": f"{'one run' if scale.rounds == 1 else f'medians of {scale.rounds} runs'}, "
        f"{scale.timing.measured:g} s each",
    }
    (output / "results.json").write_text(
        json.dumps(
            {
                "about": about,
                "notes": bench.notes,
                "errors": bench.errors,
                "medians": [asdict(each) for each in bench.medians],
                "runs": [asdict(each) for each in bench.runs],
            },
            indent=1,
        )
    )
    text = report.full_report(about, bench.medians, [*bench.notes, *bench.errors])
    (output / "results.md").write_text(text + "\n", "utf-8")
    _draw(bench, output)
    print(f"\n{text}\n\nwritten: {output}")
    if args.publish:
        publish(output)
    return int(bool(bench.errors))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short run of each workload, at smaller sizes"
    )
    parser.add_argument(
        "--only", action="append", choices=WORKLOADS, help="run only this workload; repeatable"
    )
    parser.add_argument(
        "--without-peers", action="store_true", help="run chatd and the stock server only"
    )
    parser.add_argument(
        "--db", default="sqlite", help="database of chatd: sqlite, or postgresql://..."
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes of chatd; more than 1 needs PostgreSQL"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "build" / "bench",
        help="output directory (default: build/bench)",
    )
    parser.add_argument(
        "--publish", action="store_true", help="insert figures and plots into README.md and docs/"
    )
    return parser.parse_args()


def _database(bench: Benchmark, workers: int) -> str:
    name = "PostgreSQL" if bench.postgres else "SQLite"
    return name if workers == 1 else f"{name} with {workers} processes"


def _draw(bench: Benchmark, output: Path) -> None:
    try:
        from bench.plots import draw
    except ImportError as missing:
        print(f"no plots: {missing}", file=sys.stderr)
    else:
        draw(bench.medians, output)


def _log(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
