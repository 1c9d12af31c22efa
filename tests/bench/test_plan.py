"""A complete benchmark of minimal size on real servers."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.plan import QUICK, Benchmark
from bench.processes import Cores
from bench.usage import Timing
from tests.examples import examples

pytestmark = pytest.mark.usefixtures("forked_servers")

TINY = replace(
    QUICK,
    timing=Timing(0.05, examples(1, deep=5) / 10),
    held=(10,),
    messages=(1000,),
    inbox=2010,
    late_page=200,
    parked=(10,),
    idle=0.2,
)


WORKLOADS = ("deliver", "latency", "read", "send", "stream", "park")[:: examples(2, deep=1)]
"""Every other one, unless told to test deeply."""


def test_all_workloads_run_without_errors(tmp_path: Path) -> None:
    logged: list[str] = []
    # Pinning would pin the tests as well.
    bench = Benchmark(tmp_path, "sqlite", TINY, Cores([0]), peers=(), log=logged.append)
    bench.run(["ceiling", *WORKLOADS])
    assert bench.errors == []
    assert bench.notes == ["only one core: server and load generator share it"]
    found = {(each.workload, each.server) for each in bench.medians}
    assert found >= {(name, server) for name in WORKLOADS for server in ("chatd", "stock")}
    assert all(each.ok for each in bench.medians)
    assert all(each.figures["rate"] > 0 for each in bench.medians if each.workload != "park")
    for name in set(WORKLOADS) - {"read", "send"}:
        delivered = [each.figures for each in bench.medians if each.workload == name]
        assert all(each["arrived"] == each["acknowledged"] > 0 for each in delivered)
    assert list(tmp_path.iterdir()) == []


def test_late_pages_of_a_large_inbox_are_read(tmp_path: Path) -> None:
    bench = Benchmark(tmp_path, "sqlite", TINY, Cores([0]), peers=(), log=lambda _: None)
    bench.run(["pages"])
    assert bench.errors == []
    found = {(each.workload, each.at, each.server) for each in bench.medians}
    assert ("page", 200, "chatd") in found
    assert ("small inbox", 1, "stock") in found
