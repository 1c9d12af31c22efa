"""Tables of what was measured, as text that is Markdown too, and their place in documents."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.results import Measured

BEGIN = "<!-- figures of bench/run -->"
END = "<!-- end of the figures -->"

SERVERS = ("chatd", "stock", "nchan", "prosody")
NOTHING = "-"
QUIET = 15.0
"""Per cent of a core that other programs may use without being mentioned."""
SATURATED = 90.0
"""Per cent of a core: a generator that needs more has been the limit."""

ROWS = (
    ("deliver", "rate", "delivered a second"),
    ("deliver", "p50", "until delivered, p50, ms"),
    ("deliver", "p99", "until delivered, p99, ms"),
    ("deliver", "per_cpu", "delivered a second of CPU"),
    ("latency", "p50", "until delivered at 100 a second, p50, ms"),
    ("latency", "p99", "until delivered at 100 a second, p99, ms"),
    ("read", "rate", "pages read a second"),
    ("read", "per_cpu", "pages read a second of CPU"),
    ("send", "rate", "sends a second"),
    ("send", "per_cpu", "sends a second of CPU"),
)

GROWTH = (
    ("held", "Deliveries a second against held polls", "held polls", "rate"),
    ("held", "Deliveries a second of CPU against held polls", "held polls", "per_cpu"),
    ("held", "Until delivered, p99 in ms, against held polls", "held polls", "p99"),
    ("messages", "Deliveries a second against messages in the database", "messages", "rate"),
    ("messages", "Deliveries a second of CPU against messages", "messages", "per_cpu"),
    ("page", "Pages a second, by page of a large inbox", "page", "rate"),
    ("small inbox", "Pages a second, of a small inbox", "page", "rate"),
    ("park", "Memory of a held poll, KB", "held polls", "kilobytes"),
    ("park", "Waking one while all others wait, p50 in ms", "held polls", "p50"),
    ("park", "CPU while nothing happens, per cent of a core", "held polls", "cpu_idle"),
)


def figure(value: float) -> str:
    """Three digits that mean something, and no more."""
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


class Findings:
    """Medians, found by workload, size and server."""

    def __init__(self, medians: Iterable[Measured]) -> None:
        self._found = {(each.workload, each.at, each.server): each for each in medians}

    def __iter__(self) -> Iterator[Measured]:
        return iter(self._found.values())

    def get(self, workload: str, server: str, at: int | None = None) -> Measured | None:
        """The median, of any size if none is given."""
        for (its_workload, its_at, its_server), each in self._found.items():
            if (its_workload, its_server) == (workload, server) and at in (None, its_at):
                return each
        return None

    def sizes(self, workload: str) -> list[int]:
        """The sizes that a workload was run at."""
        return sorted({at for its_workload, at, _ in self._found if its_workload == workload})

    def servers(self, workloads: Iterable[str]) -> list[str]:
        """Who was measured with any of these workloads."""
        wanted = set(workloads)
        named = {server for workload, _, server in self._found if workload in wanted}
        return [server for server in SERVERS if server in named]

    def row(self, workload: str, name: str, servers: Sequence[str], at: int | None) -> list[str]:
        """The figure at each server, and after the first two their ratio."""
        cells = []
        values = []
        for server in servers:
            measured = self.get(workload, server, at)
            value = None if measured is None else measured.figures.get(name)
            values.append(value)
            cells.append(NOTHING if value is None or measured is None else _cell(measured, name))
        if tuple(servers[:2]) == SERVERS[:2]:
            ours, theirs = values[:2]
            cells.insert(2, f"{ours / theirs:.1f}" if ours and theirs else NOTHING)
        return cells


def _cell(measured: Measured, name: str) -> str:
    text = figure(measured.figures[name])
    limit = name == "rate" and measured.figures.get("cpu_generator", 0) > SATURATED
    return f"≥ {text}" if limit else text


def _head(first: str, servers: Sequence[str]) -> list[str]:
    head = [first, *servers]
    if tuple(servers[:2]) == SERVERS[:2]:
        head.insert(3, "chatd : stock")
    return head


def main_table(findings: Findings, only: Sequence[str] = SERVERS) -> str | None:
    """Everything that has one size; None if nothing of it was measured."""
    servers = [each for each in findings.servers(row[0] for row in ROWS) if each in only]
    rows = [
        [text, *findings.row(workload, name, servers, None)]
        for workload, name, text in ROWS
        if findings.sizes(workload)
    ]
    return table(_head("", servers), rows) if rows else None


def growth_tables(findings: Findings) -> list[str]:
    """What happens to figures as something grows: a title and a table each."""
    made = []
    for workload, title, size, name in GROWTH:
        sizes = findings.sizes(workload)
        if sizes:
            servers = findings.servers([workload])
            rows = [[f"{at:,}", *findings.row(workload, name, servers, at)] for at in sizes]
            made.append(f"{title}\n\n{table(_head(size, servers), rows)}")
    return made


def origin(about: dict[str, str], findings: Findings) -> str:
    """One paragraph: when and where, and how fast the generator is."""
    text = (
        f"Measured on {about['date']} at commit {about['commit']}: {about['machine']}; "
        f"{about['software']}; {about['database']}; {about['scale']}."
    )
    busy = disturbance(findings)
    if busy:
        text += busy
    for server in ("nginx", "responder"):
        measured = findings.get("ceiling", server)
        if measured is not None:
            rate, share = measured.figures["rate"], measured.figures["cpu_generator"]
            text += (
                f" The load generator's own ceiling, against {server}: {figure(rate)} answers a"
                f" second with {share:.0f} % of a core."
            )
    return text


def disturbance(findings: Findings) -> str:
    """A sentence where other programs took part of the two cores; else nothing."""
    shares = [each.figures["cpu_others"] for each in findings if "cpu_others" in each.figures]
    busy = statistics.median(shares) if shares else 0.0
    if busy < QUIET:
        return ""
    return f" Other programs used {busy:.0f} % of a core meanwhile, so that only ratios count."


def full(about: dict[str, str], medians: Iterable[Measured], notes: Sequence[str]) -> str:
    """All tables."""
    findings = Findings(medians)
    parts = [origin(about, findings)]
    first = main_table(findings)
    if first:
        parts.append(first)
    parts += growth_tables(findings)
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def brief(about: dict[str, str], medians: Iterable[Measured]) -> str:
    """chatd beside the stock server."""
    findings = Findings(medians)
    first = main_table(findings, SERVERS[:2])
    measured = f"Measured on {about['date']}, {about['machine']}, {about['database']}."
    return "\n\n".join([*([first] if first else []), measured + disturbance(findings)])


def insert(path: Path, text: str) -> None:
    """Replace what stands between the two marks in a document."""
    document = path.read_text("utf-8")
    marked = re.compile(f"({re.escape(BEGIN)}\n).*?({re.escape(END)})", re.DOTALL)
    if not marked.search(document):
        raise ValueError(f"{path} has no place for figures")
    path.write_text(marked.sub(lambda m: f"{m[1]}\n{text}\n\n{m[2]}", document), "utf-8")
