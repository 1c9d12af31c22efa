"""The result of a workload at a server, and the median of several results."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

QUANTILES = (0.01, *(n / 20 for n in range(1, 20)), 0.97, 0.98, 0.99, 0.995, 0.999)


@dataclass
class Result:
    """The figures of a run; `at` is the size of the workload (held polls, messages)."""

    workload: str
    server: str
    at: int
    figures: dict[str, float] = field(default_factory=dict)
    """By name: `rate` per second, `p50` and so on in milliseconds, `lost`, `duplicated` ..."""
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """Pairs of a quantile and milliseconds."""

    @property
    def ok(self) -> bool:
        """Whether every message was acknowledged and arrived once, at its recipient, in order."""
        return not any(self.figures.get(name) for name in FAULT_FIGURES)


FAULT_FIGURES = ("unacknowledged", "lost", "duplicated", "misrouted", "gaps")


def quantiles(seconds: Sequence[float]) -> list[tuple[float, float]]:
    """The quantiles `QUANTILES`, in milliseconds."""
    ordered = sorted(seconds)
    return [(q, round(1000 * quantile(ordered, q), 4)) for q in QUANTILES] if ordered else []


def quantile(ordered: Sequence[float], q: float) -> float:
    """The `q`-quantile of sorted values."""
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the maximum, in milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    return {
        "p50": 1000 * quantile(ordered, 0.5),
        "p99": 1000 * quantile(ordered, 0.99),
        "max": 1000 * ordered[-1],
    }


def median(runs: Sequence[Result]) -> Result:
    """The median of each figure; faults are summed, so that one in any run shows."""
    first = runs[0]
    figures = {}
    for name in first.figures:
        values = [run.figures[name] for run in runs if name in run.figures]
        figures[name] = sum(values) if name in FAULT_FIGURES else statistics.median(values)
    middle = sorted(runs, key=lambda run: run.figures.get("p50", 0.0))[len(runs) // 2]
    return Result(first.workload, first.server, first.at, figures, middle.latencies)
