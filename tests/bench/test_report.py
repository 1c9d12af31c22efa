"""Medians and tables of results."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from bench import report
from bench.fixtures import message_counts
from bench.publish import publish
from bench.results import Result, median, percentiles, quantiles

ABOUT = {
    "date": "2026-11-22",
    "commit": "abc",
    "machine": "a machine",
    "software": "Python",
    "database": "SQLite",
    "scale": "one run",
}


def deliver(server: str, rate: float, **more: float) -> Result:
    return Result("deliver", server, 200, {"rate": rate, "p50": 1.0, **more})


def test_figures_have_medians_and_faults_are_summed() -> None:
    runs = [deliver("chatd", rate, lost=lost) for rate, lost in ((3, 0), (1, 1), (2, 0))]
    middle = median(runs)
    assert middle.figures == {"rate": 2, "p50": 1.0, "lost": 1}
    assert not middle.ok
    assert runs[0].ok


def test_percentiles_are_in_milliseconds() -> None:
    seconds = [n / 1000 for n in range(1, 101)]
    assert percentiles(seconds) == pytest.approx({"p50": 51, "p99": 100, "max": 100})
    assert quantiles(seconds)[0] == pytest.approx((0.01, 2))
    assert percentiles([]) == {}
    assert quantiles([]) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.123, "0.12"), (12.34, "12.3"), (123.4, "123"), (1234, "1,230"), (98765, "98,800")],
)
def test_figures_have_three_significant_digits(value: float, shown: str) -> None:
    assert report.figure(value) == shown


def test_the_table_has_a_ratio_of_chatd_and_stock() -> None:
    found = report.Results([deliver("chatd", 3000), deliver("stock", 1000)])
    made = report.main_table(found)
    assert made is not None
    assert [cell.strip() for cell in made.splitlines()[2].split("|")[1:-1]] == [
        "deliveries per second",
        "3,000",
        "1,000",
        "3.0",
    ]
    assert {len(line) for line in made.splitlines()} == {len(made.splitlines()[0])}


def test_a_rate_limited_by_the_generator_is_marked() -> None:
    found = report.Results([deliver("nchan", 50_000, cpu_generator=99)])
    assert "≥ 50,000" in str(report.main_table(found))


def test_tables_by_size_are_sorted() -> None:
    runs = [Result("park", "chatd", at, {"kilobytes": 5.0}) for at in (1000, 500)]
    text = report.full_report(ABOUT, runs, ["nchan is not installed: skipped"])
    assert text.index("| 500 ") < text.index("| 1,000 ")
    assert "- nchan is not installed" in text
    assert "2026-11-22" in text


def test_figures_are_inserted_between_markers(tmp_path: Path) -> None:
    path = tmp_path / "document.md"
    path.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.insert(path, "new")
    report.insert(path, "newer")
    assert path.read_text() == f"before\n{report.BEGIN}\n\nnewer\n\n{report.END}\nafter\n"
    path.write_text("no markers")
    with pytest.raises(ValueError, match="no markers for figures"):
        report.insert(path, "new")


def test_the_last_number_of_messages_holds_for_all_others() -> None:
    assert list(message_counts([3, 1], 4)) == [(0, 3), (1, 1), (2, 1), (3, 1)]


def test_publish_inserts_a_run_into_the_documents(tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    (output / "held.svg").write_text("<svg/>")
    medians = [asdict(deliver("chatd", 3000)), asdict(deliver("stock", 1000))]
    results = {"about": ABOUT, "medians": medians, "notes": [], "errors": []}
    (output / "results.json").write_text(json.dumps(results))
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/performance.md"):
        (tmp_path / name).write_text(f"{report.BEGIN}\n{report.END}\n")
    publish(output, tmp_path)
    for name in ("README.md", "docs/performance.md"):
        assert "| 3,000 | 1,000 |" in (tmp_path / name).read_text()
    assert (tmp_path / "docs/performance/held.svg").read_text() == "<svg/>"


def test_a_busy_generator_is_mentioned() -> None:
    busy = report.Results([deliver("nchan", 50_000, cpu_generator=82.0)])
    assert "deliver at nchan (82 %)" in report.origin(ABOUT, busy)
    calm = report.Results([deliver("chatd", 3000, cpu_generator=40.0)])
    assert report.busy_generator(calm) == ""


def test_a_busy_machine_is_mentioned() -> None:
    busy = report.Results([deliver("chatd", 3000, cpu_others=120.0)])
    calm = report.Results([deliver("chatd", 3000, cpu_others=2.0)])
    assert "120 % of a core" in report.disturbance(busy)
    assert report.disturbance(calm) == ""
