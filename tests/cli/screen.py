"""A terminal's screen in memory: what a user sees after some output."""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Final

from chatd.cli.graphemes import grapheme_width, split_graphemes

_OUTPUT: Final = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Row:
    """Cells of a row, empty ones after wide characters; `wrapped` if the next row continues it."""

    def __init__(self, cells: list[str] | None = None, *, wrapped: bool = False) -> None:
        self.cells = cells or []
        self.wrapped = wrapped


class Screen:
    """Shows output as xterm does; where it `reflows`, rows wrap when it becomes narrower."""

    def __init__(self, columns: int = 80, rows: int = 24, *, reflows: bool = True) -> None:
        self.columns, self.height = columns, rows
        self.written = ""
        self._reflows = reflows
        self._rows = [Row()]
        self._row = self._column = 0
        self._wraps = True

    def size(self) -> tuple[int, int]:
        return self.columns, self.height

    @property
    def text(self) -> str:
        """The rows up to the last that is not empty, those scrolled out included."""
        return "\n".join("".join(row.cells).rstrip() for row in self._rows).rstrip("\n")

    @property
    def cursor(self) -> tuple[int, int]:
        """The row, counted from the bottom row that was written to, and the column."""
        return len(self._rows) - 1 - self._row, self._column

    def write(self, output: str) -> None:
        self.written += output
        position = 0
        while position < len(output):
            match = _OUTPUT.match(output, position)
            assert match, f"unknown output: {output[position:]!r}"
            parameters, command, control, text = match.groups()
            if command:
                self._control(parameters, command)
            elif control == "\r":
                self._column = 0
            elif control == "\n":
                self._line_feed()
            else:
                self._print(text)
            position = match.end()

    def resize(self, columns: int, rows: int | None = None) -> None:
        """Change the size as a user does with the window."""
        self.height = rows or self.height
        self.columns = columns
        if self._reflows:
            self._reflow()
        self._column = min(self._column, columns - 1)

    def _control(self, parameters: str, command: str) -> None:
        if command == "A":
            top = max(0, len(self._rows) - self.height)
            self._row = max(top, self._row - int(parameters or 1))
        elif command == "J" and not parameters:
            del self._rows[self._row + 1 :], self._rows[self._row].cells[self._column :]
            self._rows[self._row].wrapped = False
        elif (parameters, command) == ("2", "J"):
            self._rows = [Row()]
        elif command == "H":
            self._row = self._column = 0
        elif command in "hl" and parameters == "?7":
            self._wraps = command == "h"
        else:
            assert command == "m", f"unknown control: {parameters}{command}"

    def _line_feed(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append(Row())

    def _print(self, text: str) -> None:
        for cluster in split_graphemes(text):
            width = grapheme_width(cluster)
            if self._column + width > self.columns:
                if self._wraps:
                    self._rows[self._row].wrapped = True
                    self._line_feed()
                    self._column = 0
                else:
                    self._column = self.columns - width
            cells = self._rows[self._row].cells
            cells += [" "] * (self._column - len(cells))
            cells[self._column : self._column + width] = [cluster, *[""] * (width - 1)]
            self._column += width

    def _reflow(self) -> None:
        lines: list[list[str]] = []
        ended, at = True, (0, 0)
        for index, row in enumerate(self._rows):
            if ended:
                lines.append([])
            if index == self._row:
                at = len(lines) - 1, len(lines[-1]) + self._column
            lines[-1] += row.cells
            ended = not row.wrapped
        self._rows = []
        for index, line in enumerate(lines):
            starts = range(0, max(1, len(line)), self.columns)
            if index == at[0]:
                self._row = len(self._rows) + at[1] // self.columns
                self._column = at[1] % self.columns
            for start, following in zip_longest(starts, starts[1:]):
                cells = line[start : start + self.columns]
                self._rows.append(Row(cells, wrapped=following is not None))
        while self._row >= len(self._rows):
            self._rows.append(Row())
