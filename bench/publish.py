"""Figures and plots of a run put into README.md and docs/.

python -m bench.publish build/bench
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from bench import report
from bench.results import Measured

ROOT = Path(__file__).resolve().parent.parent


def publish(output: Path, root: Path = ROOT) -> None:
    """Take over what a run has written into the folder `output`."""
    results = json.loads((output / "results.json").read_text("utf-8"))
    about = results["about"]
    medians = [Measured(**each) for each in results["medians"]]
    folder = root / "docs" / "performance"
    folder.mkdir(exist_ok=True)
    for path in sorted(output.glob("*.svg")):
        shutil.copy(path, folder / path.name)
    notes = [*results["notes"], *results["faults"]]
    report.insert(root / "docs" / "performance.md", report.full(about, medians, notes))
    report.insert(root / "README.md", report.brief(about, medians))


def main() -> None:
    """Publish the run whose folder is named."""
    parser = argparse.ArgumentParser(description="Put a run's figures into the documents.")
    parser.add_argument("output", type=Path)
    publish(parser.parse_args().output)


if __name__ == "__main__":
    main()
