"""Slopes of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.__main__ import too_steep
from tests.soak.deployment import Node
from tests.soak.usage import Sample, Usage, hourly_slope, later_half, report


@pytest.fixture
def usage(tmp_path: Path) -> Usage:
    """Of a daemon that is killed after a short life, and grows by 1 MiB a minute."""
    made = Usage(Node("daemon", tmp_path, "sqlite:chatd.db", is_restarted=True))
    made.samples = [Sample(0, 1, 50, 10), Sample(10, 1, 500, 10)]
    made.samples += [Sample(20 + 60 * minute, 2, 60 + minute, 12) for minute in range(10)]
    return made


def test_the_slope_is_by_the_hour() -> None:
    assert hourly_slope([(0, 5.0), (60, 6.0), (120, 7.0)]) == pytest.approx(60)
    assert hourly_slope([(0, 5.0), (60, 5.0)]) == 0


@pytest.mark.parametrize("points", [[], [(0, 1.0)], [(5, 1.0), (5, 2.0)]])
def test_too_few_points_have_no_slope(points: list[tuple[float, float]]) -> None:
    assert hourly_slope(points) is None


def test_the_longest_life_is_told(usage: Usage) -> None:
    assert {each.pid for each in usage.longest_life()} == {2}
    assert len(later_half(usage.longest_life())) == 5
    line = report(usage)
    assert line.startswith("daemon: 540 s in one process, 60.0 to 69.0 MiB (at most 69.0)")
    assert line.endswith("slope of the later half +60.0 MiB/h, +0.0 descriptors/h")


def test_a_limit_of_the_slope_is_kept(usage: Usage) -> None:
    assert too_steep([usage], 61) == []
    assert too_steep([usage], 59) == ["daemon: its memory grows by 60.0 MiB an hour"]


def test_a_daemon_that_is_down_is_not_measured(usage: Usage) -> None:
    usage.samples = []
    usage.sample(1)
    assert report(usage) == "daemon: not measured"
    assert too_steep([usage], 0) == []
