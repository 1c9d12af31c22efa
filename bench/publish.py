"""Inserts the figures and plots of a run into README.md and docs/.

python -m bench.publish build/bench
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from bench import report
from bench.results import Result

ROOT = Path(__file__).resolve().parent.parent


def publish(output: Path, root: Path = ROOT) -> None:
    """Insert the results of the run in the directory `output`."""
    results = json.loads((output / "results.json").read_text("utf-8"))
    about = results["about"]
    medians = [Result(**each) for each in results["medians"]]
    folder = root / "docs" / "performance"
    folder.mkdir(exist_ok=True)
    for path in sorted(output.glob("*.svg")):
        shutil.copy(path, folder / path.name)
    notes = [*results["notes"], *results["errors"]]
    report.insert(root / "docs" / "performance.md", report.full_report(about, medians, notes))
    report.insert(root / "README.md", report.summary(about, medians))


def main() -> None:
    """Publish the run given on the command line."""
    parser = argparse.ArgumentParser(description="Put a run's figures into the documents.")
    parser.add_argument("output", type=Path)
    publish(parser.parse_args().output)


if __name__ == "__main__":
    main()
