"""Markdown tables of results, and their insertion into documents."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.results import Result

BEGIN = "<!-- figures of bench/run -->"
END = "<!-- end of the figures -->"

SERVERS = ("chatd", "stock", "faye", "nchan", "prosody", "centrifuge")
NO_FIGURE = "-"
NOTABLE_CPU = 15.0
"""CPU usage of other programs, in percent of a core, above which it is mentioned."""
SATURATED_CPU = 90.0
"""CPU usage of the generator, in percent of a core, above which it limits the rate."""
BUSY_CPU = 70.0
"""The same, above which it is mentioned, because it may add to latencies."""

ROWS = (
    ("deliver", "rate", "deliveries per second"),
    ("deliver", "p50", "delivery latency, p50, ms"),
    ("deliver", "p99", "delivery latency, p99, ms"),
    ("deliver", "per_cpu", "deliveries per CPU second"),
    ("stream", "rate", "deliveries over streams per second"),
    ("stream", "p50", "delivery latency over streams, p50, ms"),
    ("stream", "p99", "delivery latency over streams, p99, ms"),
    ("stream", "cpu_us", "CPU per delivery over streams, µs"),
    ("latency", "p50", "delivery latency at 100/s, p50, ms"),
    ("latency", "p99", "delivery latency at 100/s, p99, ms"),
    ("read", "rate", "pages per second"),
    ("read", "per_cpu", "pages per CPU second"),
    ("send", "rate", "sends per second"),
    ("send", "per_cpu", "sends per CPU second"),
)

GROWTH = (
    ("held", "Deliveries per second by held polls", "held polls", "rate"),
    ("held", "Deliveries per CPU second by held polls", "held polls", "per_cpu"),
    ("held", "Delivery latency by held polls, p99 in ms", "held polls", "p99"),
    ("stream-held", "Deliveries per second by streams", "streams", "rate"),
    ("stream-held", "Deliveries per CPU second by streams", "streams", "per_cpu"),
    ("stream-held", "Delivery latency by streams, p99 in ms", "streams", "p99"),
    ("messages", "Deliveries per second by messages in the database", "messages", "rate"),
    ("messages", "Deliveries per CPU second by messages in the database", "messages", "per_cpu"),
    ("page", "Pages per second by page of a large inbox", "page", "rate"),
    ("small inbox", "Pages per second of a small inbox", "page", "rate"),
    ("park", "Memory per held poll, KB", "held polls", "kilobytes"),
    ("park", "Waking one poll while all others wait, p50 in ms", "held polls", "p50"),
    ("park", "Idle CPU usage, percent of a core", "held polls", "cpu_idle"),
    ("stream-park", "Memory per stream, KB", "streams", "kilobytes"),
    ("stream-park", "Delivery to one stream while all others idle, p50 in ms", "streams", "p50"),
    ("stream-park", "CPU usage of idle streams, percent of a core", "streams", "cpu_idle"),
)


def figure(value: float) -> str:
    """Format a number with three significant digits."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{round(value, -digits):,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    shown = []
    for line in lines:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        shown.append(f"| {' | '.join(cells)} |")
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    shown.insert(1, f"| {' | '.join(ruler)} |")
    return "\n".join(shown)


class Results:
    """Medians by workload, size and server."""

    def __init__(self, medians: Iterable[Result]) -> None:
        self._found = {(each.workload, each.at, each.server): each for each in medians}

    def __iter__(self) -> Iterator[Result]:
        return iter(self._found.values())

    def get(self, workload: str, server: str, at: int | None = None) -> Result | None:
        """The median for a workload and server, of any size by default."""
        for (its_workload, its_at, its_server), each in self._found.items():
            if (its_workload, its_server) == (workload, server) and at in (None, its_at):
                return each
        return None

    def sizes(self, workload: str) -> list[int]:
        """The sizes of a workload."""
        return sorted({at for its_workload, at, _ in self._found if its_workload == workload})

    def servers(self, workloads: Iterable[str]) -> list[str]:
        """The servers with results of any of these workloads."""
        wanted = set(workloads)
        named = {server for workload, _, server in self._found if workload in wanted}
        return [server for server in SERVERS if server in named]

    def row(self, workload: str, name: str, servers: Sequence[str], at: int | None) -> list[str]:
        """The figure of each server, and the ratio of the first two after them."""
        cells = []
        values = []
        for server in servers:
            result = self.get(workload, server, at)
            value = None if result is None else result.figures.get(name)
            values.append(value)
            cells.append(NO_FIGURE if value is None or result is None else _cell(result, name))
        if tuple(servers[:2]) == SERVERS[:2]:
            ours, theirs = values[:2]
            cells.insert(2, f"{ours / theirs:.1f}" if ours and theirs else NO_FIGURE)
        return cells


def _cell(result: Result, name: str) -> str:
    text = figure(result.figures[name])
    limit = name == "rate" and result.figures.get("cpu_generator", 0) > SATURATED_CPU
    return f"≥ {text}" if limit else text


def _head(first: str, servers: Sequence[str]) -> list[str]:
    head = [first, *servers]
    if tuple(servers[:2]) == SERVERS[:2]:
        head.insert(3, "chatd : stock")
    return head


def main_table(results: Results, only: Sequence[str] = SERVERS) -> str | None:
    """The table of workloads with a single size; None without results."""
    servers = [each for each in results.servers(row[0] for row in ROWS) if each in only]
    rows = [
        [text, *results.row(workload, name, servers, None)]
        for workload, name, text in ROWS
        if results.sizes(workload)
    ]
    return table(_head("", servers), rows) if rows else None


def growth_tables(results: Results) -> list[str]:
    """Tables of figures by size, each with a title."""
    made = []
    for workload, title, size, name in GROWTH:
        sizes = results.sizes(workload)
        if sizes:
            servers = results.servers([workload])
            rows = [[f"{at:,}", *results.row(workload, name, servers, at)] for at in sizes]
            made.append(f"{title}\n\n{table(_head(size, servers), rows)}")
    return made


def origin(about: dict[str, str], results: Results) -> str:
    """A paragraph on when and where the run was made, and the speed of the generator."""
    text = (
        f"Measured on {about['date']} at commit {about['commit']}: {about['machine']}; "
        f"{about['software']}; {about['database']}; {about['scale']}."
    )
    busy = disturbance(results)
    if busy:
        text += busy
    for server in ("nginx", "responder"):
        result = results.get("ceiling", server)
        if result is not None:
            rate, share = result.figures["rate"], result.figures["cpu_generator"]
            text += (
                f" The load generator itself reaches {figure(rate)} requests per second against"
                f" {server}, with {share:.0f} % of a core."
            )
    return text + busy_generator(results)


def busy_generator(results: Results) -> str:
    """A sentence if the load generator used much of its core in some workloads, else empty."""
    busy = [
        f"{each.workload} at {each.server} ({each.figures['cpu_generator']:.0f} %)"
        for each in results
        if each.workload != "ceiling" and each.figures.get("cpu_generator", 0) > BUSY_CPU
    ]
    if not busy:
        return ""
    return f" The load generator used more than {BUSY_CPU:.0f} % of its core in: {', '.join(busy)}."


def disturbance(results: Results) -> str:
    """A sentence if other programs used CPU time during the run, else empty."""
    shares = [each.figures["cpu_others"] for each in results if "cpu_others" in each.figures]
    busy = statistics.median(shares) if shares else 0.0
    if busy < NOTABLE_CPU:
        return ""
    return f" Other programs used {busy:.0f} % of a core, so only the ratios are meaningful."


def full_report(about: dict[str, str], medians: Iterable[Result], notes: Sequence[str]) -> str:
    """The report with all tables."""
    results = Results(medians)
    parts = [origin(about, results)]
    first = main_table(results)
    if first:
        parts.append(first)
    parts += growth_tables(results)
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def summary(about: dict[str, str], medians: Iterable[Result]) -> str:
    """The main table of chatd and the stock server only."""
    results = Results(medians)
    first = main_table(results, SERVERS[:2])
    result = f"Measured on {about['date']}, {about['machine']}, {about['database']}."
    return "\n\n".join([*([first] if first else []), result + disturbance(results)])


def insert(path: Path, text: str) -> None:
    """Replace the text between the two markers in a document."""
    document = path.read_text("utf-8")
    marked = re.compile(f"({re.escape(BEGIN)}\n).*?({re.escape(END)})", re.DOTALL)
    if not marked.search(document):
        raise ValueError(f"{path} has no markers for figures")
    path.write_text(marked.sub(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", document), "utf-8")
