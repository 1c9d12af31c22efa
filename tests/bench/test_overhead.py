"""CPU time of a request, compared with stock twisted.web and Klein."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The ratio was 6 when this was written: a failure means that most of the gain is lost.
LEAST = 2.5


def test_a_request_takes_much_less_cpu_than_through_stock_twisted_web_and_klein() -> None:
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
    assert float(found.stdout) >= LEAST
