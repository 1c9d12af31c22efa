"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from chatd.cli.graphemes import text_width


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose first row is its head; control characters must be escaped."""
    widths = [max(text_width(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join(
            text + " " * (width - text_width(text))
            for text, width in zip(row, [*widths, text_width(row[-1])], strict=True)
        ).rstrip()
        for row in rows
    ]
