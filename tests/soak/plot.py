"""Plots of values over time, as SVG, without a library that draws."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 360
LEFT: Final = 60
BELOW: Final = 40
ABOVE: Final = 20
RIGHT: Final = 170
COLOURS: Final = ("#0b6e4f", "#c1432e", "#5b6abf", "#8a6d00")
TICKS: Final = 5

Line = tuple[str, Sequence[tuple[float, float]]]


def draw_lines(path: Path, across: str, up: str, lines: Sequence[Line]) -> None:
    """Draw values that begin at 0, with a name for each line, of which each has points."""
    points = [point for _, line in lines for point in line]
    most_across = max([x for x, _ in points], default=0) or 1
    most_up = max([y for _, y in points], default=0) or 1
    right, bottom = WIDTH - RIGHT, HEIGHT - BELOW

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (right - LEFT) * x / most_across,
            bottom - (bottom - ABOVE) * y / most_up,
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">{escape(across)}</text>',
        f'<text x="{LEFT}" y="12">{escape(up)}</text>',
    ]
    for number in range(TICKS + 1):
        share = number / TICKS
        x, y = place(share * most_across, share * most_up)
        parts += [
            f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>',
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * most_up:.4g}</text>',
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{share * most_across:.3g}</text>",
        ]
    for number, (name, line) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        places = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line)
        parts += [
            f'<polyline points="{places}" fill="none" stroke="{colour}"/>',
            f'<text x="{right + 10}" y="{ABOVE + 16 * number + 10}" fill="{colour}">'
            f"{escape(name)}</text>",
        ]
    path.write_text("\n".join([*parts, "</svg>\n"]), "utf-8")
