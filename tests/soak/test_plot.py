"""Plots of memory."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.soak.plot import Line, draw_lines

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [("still", [(0.0, 0.0)])],
        [("<daemon>", [(0.0, 50.0), (1.0, 100.0)]), ("other", [(0.0, 1.0), (2.0, 1.0)])],
    ],
)
def test_each_line_is_drawn_with_its_name(tmp_path: Path, lines: list[Line]) -> None:
    path = tmp_path / "memory.svg"
    draw_lines(path, "minutes", "MiB", lines)
    found = ElementTree.fromstring(path.read_text("utf-8"))
    assert len(found.findall(f"{SVG}polyline")) == len(lines)
    texts = [each.text for each in found.findall(f"{SVG}text")]
    assert {"minutes", "MiB", *(name for name, _ in lines)} <= set(texts)


def test_the_largest_values_are_at_the_edges(tmp_path: Path) -> None:
    path = tmp_path / "memory.svg"
    draw_lines(path, "minutes", "MiB", [("daemon", [(0.0, 50.0), (10.0, 100.0)])])
    [line] = ElementTree.fromstring(path.read_text("utf-8")).iter(f"{SVG}polyline")
    assert line.get("points") == "60.0,170.0 550.0,20.0"
