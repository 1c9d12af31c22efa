"""Plots of results, as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.report import SERVERS
from bench.results import Result

COLOURS = {
    "chatd": "#0b6e4f",
    "stock": "#c1432e",
    "faye": "#7a3e9d",
    "nchan": "#5b6abf",
    "prosody": "#8a6d00",
    "centrifuge": "#3a8fb7",
}

# Keep text as text, and make files reproducible.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "chatd", "font.size": 10})

Line = tuple[str, Sequence[tuple[float, float]]]


def draw(medians: Sequence[Result], folder: Path) -> list[Path]:
    """Draw the plots that there are figures for; returns their files."""
    made = []
    for name, workload in (("latency-busy", "deliver"), ("latency-calm", "latency")):
        lines = _latencies(medians, workload)
        if lines:
            title = "deliver: at full speed" if workload == "deliver" else "100 sends per second"
            made.append(_latency_plot(folder / f"{name}.svg", title, lines))
    for name, workload, figure, across, up in (
        ("held", "held", "rate", "held polls", "deliveries per second"),
        ("messages", "messages", "rate", "messages in the database", "deliveries per second"),
        ("memory", "park", "megabytes", "held polls", "additional memory, MB"),
    ):
        lines = _growth(medians, workload, figure)
        if lines:
            made.append(_growth_plot(folder / f"{name}.svg", across, up, lines, figure == "rate"))
    return made


def _latencies(medians: Iterable[Result], workload: str) -> list[Line]:
    found = {each.server: each.latencies for each in medians if each.workload == workload}
    return [(server, found[server]) for server in SERVERS if found.get(server)]


def _growth(medians: Iterable[Result], workload: str, figure: str) -> list[Line]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for each in medians:
        if each.workload == workload and figure in each.figures:
            lines.setdefault(each.server, []).append((each.at, each.figures[figure]))
    return [(server, sorted(lines[server])) for server in SERVERS if server in lines]


def _latency_plot(path: Path, title: str, lines: Iterable[Line]) -> Path:
    plot = Figure(figsize=(6.4, 4), layout="constrained")
    axes: Any = plot.subplots()
    for server, points in lines:
        shares, milliseconds = zip(*points, strict=True)
        # Space 0, 90, 99 and 99.9 % evenly.
        axes.plot([1 / (1 - share) for share in shares], milliseconds, **_style(server))
    axes.set(xscale="log", yscale="log", xlabel="share of messages", title=title)
    axes.set_ylabel("delivered within, ms")
    axes.set_xticks([1, 2, 10, 100, 1000], ["0 %", "50 %", "90 %", "99 %", "99.9 %"])
    axes.set_xticks([], minor=True)
    return _save(plot, axes, path)


def _growth_plot(path: Path, across: str, up: str, lines: Iterable[Line], log: bool) -> Path:
    plot = Figure(figsize=(6.4, 4), layout="constrained")
    axes: Any = plot.subplots()
    for server, points in lines:
        sizes, values = zip(*points, strict=True)
        axes.plot(sizes, values, marker="o", **_style(server))
    axes.set(xlabel=across, ylabel=up)
    if log:
        # Servers differ by a factor of a hundred.
        axes.set(xscale="log", yscale="log")
    else:
        axes.set_ylim(bottom=0)
    return _save(plot, axes, path)


def _style(server: str) -> dict[str, str]:
    return {"label": server, "color": COLOURS[server]}


def _save(plot: Figure, axes: Any, path: Path) -> Path:
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False)
    plot.savefig(path, metadata={"Date": None})
    # matplotlib writes trailing blanks.
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", "utf-8")
    return path
