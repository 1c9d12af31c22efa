"""What one workload found at one server, and the middle of several such findings."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

QUANTILES = (0.01, *(n / 20 for n in range(1, 20)), 0.97, 0.98, 0.99, 0.995, 0.999)


@dataclass
class Measured:
    """Figures of a run; `at` tells the size that a workload was run at (held polls, messages)."""

    workload: str
    server: str
    at: int
    figures: dict[str, float] = field(default_factory=dict)
    """By name: `rate` a second, `p50` and such in milliseconds, `lost`, `doubled` ..."""
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """Quantile and milliseconds."""

    @property
    def flawless(self) -> bool:
        """Whether nothing was lost, doubled, misrouted or out of order."""
        return not any(self.figures.get(name) for name in FAULTS)


FAULTS = ("lost", "doubled", "misrouted", "gaps")


def quantiles(seconds: Sequence[float]) -> list[tuple[float, float]]:
    """The distribution, in milliseconds."""
    ordered = sorted(seconds)
    return [(q, round(1000 * quantile(ordered, q), 4)) for q in QUANTILES] if ordered else []


def quantile(ordered: Sequence[float], q: float) -> float:
    """The value below which the share `q` of ordered values lies."""
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the largest, in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    return {
        "p50": 1000 * quantile(ordered, 0.5),
        "p99": 1000 * quantile(ordered, 0.99),
        "max": 1000 * ordered[-1],
    }


def median(runs: Sequence[Measured]) -> Measured:
    """The middle of each figure; faults are added up, so that one in any run shows."""
    first = runs[0]
    figures = {}
    for name in first.figures:
        values = [run.figures[name] for run in runs if name in run.figures]
        figures[name] = sum(values) if name in FAULTS else statistics.median(values)
    middle = sorted(runs, key=lambda run: run.figures.get("p50", 0.0))[len(runs) // 2]
    return Measured(first.workload, first.server, first.at, figures, middle.latencies)
