"""CPU time of a request and of deliveries, compared with stock twisted.web and Klein."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# The ratios were 5.5, 3.2 and 1.9 when this was written: a failure means that much of the gain is
# lost.
LEAST = {"request": 2.5, "poll": 2.2, "stream": 1.2}


@pytest.fixture(scope="module")
def ratios() -> dict[str, float]:
    """The ratio of each case."""
    # In a separate process without coverage, which would slow down only chatd's code.
    plain = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    found = subprocess.run(
        [sys.executable, "-m", "bench.overhead"],
        cwd=ROOT,
        env=plain,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    rows = map(str.split, found.stdout.splitlines())
    return {name: float(ratio) for name, ratio, *_ in rows}


@pytest.mark.parametrize("case", LEAST)
def test_it_takes_much_less_cpu_than_stock_twisted_web_and_klein(
    ratios: dict[str, float], case: str
) -> None:
    assert ratios[case] >= LEAST[case]
