"""A whole benchmark, as small as it can be, on real servers."""

from dataclasses import replace
from pathlib import Path

from bench.plan import QUICK, Bench
from bench.processes import Cores
from bench.workloads import Span

TINY = replace(
    QUICK, span=Span(0.05, 0.2), held=(10,), messages=(1000,), inbox=100_010, parked=(10,)
)


def test_all_workloads_run_without_faults_on_chatd_and_the_stock_server(tmp_path: Path) -> None:
    said: list[str] = []
    # Not pinned: that would pin the tests, too.
    bench = Bench(tmp_path, "sqlite", TINY, Cores([0]), peers=(), say=said.append)
    bench.run(["ceiling", "deliver", "latency", "read", "send", "park"])
    assert bench.faults == []
    assert bench.notes == ["there is one core only: server and load generator share it"]
    found = {(each.workload, each.server) for each in bench.medians}
    names = ["deliver", "latency", "read", "send", "park"]
    assert found >= {(name, server) for name in names for server in ("chatd", "stock")}
    assert all(each.flawless for each in bench.medians)
    assert all(each.figures["rate"] > 0 for each in bench.medians if each.workload != "park")
    assert list(tmp_path.iterdir()) == []


def test_the_late_pages_of_a_large_inbox_are_read(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "sqlite", TINY, Cores([0]), peers=(), say=lambda _: None)
    bench.run(["pages"])
    assert bench.faults == []
    found = {(each.workload, each.at, each.server) for each in bench.medians}
    assert ("page", 10_000, "chatd") in found
    assert ("small inbox", 1, "stock") in found
