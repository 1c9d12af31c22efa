"""Draws the prompt and the draft as the last rows of the terminal's output."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from chatd.cli.graphemes import grapheme_width, split_graphemes, text_width
from chatd.cli.printed import PrintedTexts
from chatd.cli.printing import escape_controls

Size = tuple[int, int]
"""Columns and rows of a terminal."""

_SHORT_PROMPT: Final = "> "
_MORE_ABOVE, _MORE_BELOW = "↑", "↓"
_ERASE_TO_SCREEN_END: Final = "\x1b[J"
_ERASE_SCREEN: Final = "\x1b[H\x1b[2J"
# Terminals disagree on the width of some characters; without wrapping a row stays a row.
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"


@dataclass(slots=True)
class Row:
    """A row of a draft as displayed; `before_cursor` is None in rows without the cursor."""

    text: str = ""
    before_cursor: str | None = None


def split_rows(text: str, cursor: int, width: int) -> list[Row]:
    """Break a draft into rows of up to `width` columns, at its line breaks and where they end.

    Control characters are as wide as when they are escaped. `cursor` is an index in the text.
    """
    rows = [Row()]
    index = used = 0
    for cluster in split_graphemes(text):
        columns = grapheme_width(cluster)
        if cluster != "\n" and used and used + columns > width:
            rows.append(Row())
            used = 0
        if index == cursor:
            rows[-1].before_cursor = rows[-1].text
        if cluster == "\n":
            rows.append(Row())
            used = 0
        else:
            rows[-1].text += cluster
            used += columns
        index += len(cluster)
    if index <= cursor:
        rows[-1].before_cursor = rows[-1].text
    return rows


class PromptView:
    """Keeps the prompt and the draft below other output.

    A draft takes as many rows as it needs, up to half of the terminal; a longer one scrolls.
    `size` returns the terminal's size.
    """

    def __init__(
        self, prompt: str, *, write: Callable[[str], object], size: Callable[[], Size]
    ) -> None:
        self._prompt = prompt
        self._write = write
        self._size = size
        self._printed = PrintedTexts()
        self._widths = [0]
        self._cursor_row = 0
        self._cursor_column = 0

    def set_prompt(self, prompt: str) -> None:
        """Change the prompt; it is drawn with the next draft."""
        self._prompt = prompt

    def draw(self, text: str, cursor: int) -> None:
        """Draw the draft in place of what was drawn before."""
        self._write(self._erase() + self._render(text, cursor))

    def draw_below(self, output: str, text: str, cursor: int, key: Hashable | None = None) -> None:
        """Print lines above the prompt; `key` is for `replace`."""
        self._printed.add(output, key)
        self._write(self._erase() + _lines(output) + self._render(text, cursor))

    def replace(self, key: Hashable, output: str, text: str, cursor: int) -> bool:
        """Replace lines above the prompt, where they are; False if they are not in view."""
        columns, lines = self._size()
        replaced = self._printed.replace(key, output, columns, lines - len(self._widths))
        if replaced is None:
            return False
        rows, texts = replaced
        printed = "".join(map(_lines, texts))
        self._write(self._erase(rows) + printed + self._render(text, cursor))
        return True

    def redraw_resized(self, text: str, cursor: int) -> None:
        """Draw the draft after the size of the terminal has changed.

        Most terminals wrap rows that have become too long, so that the prompt takes more rows than
        were drawn; in the others, such as xterm, as many rows above it are erased.
        """
        self._printed.clear()
        columns, _ = self._size()
        above = self._widths[: self._cursor_row]
        self._cursor_row = sum(-(-max(1, width) // columns) for width in above)
        self._cursor_row += self._cursor_column // columns
        self._write(self._erase() + self._render(text, cursor))

    def redraw_screen(self, text: str, cursor: int) -> None:
        """Clear the screen and draw the draft at its top."""
        self._printed.clear()
        self._write(self._erase() + _ERASE_SCREEN + self._render(text, cursor))

    def erase(self) -> None:
        """Erase the prompt and the draft."""
        self._write(self._erase())
        self._widths, self._cursor_row, self._cursor_column = [0], 0, 0

    def _erase(self, above: int = 0) -> str:
        """The output that erases the rows drawn last, and rows above them."""
        rows = self._cursor_row + above
        up = f"\x1b[{rows}A" if rows else ""
        return "\r" + up + _ERASE_TO_SCREEN_END

    def _render(self, text: str, cursor: int) -> str:
        """The output that draws the draft from the start of a row, and places the cursor."""
        columns, lines = self._size()
        prompt = self._prompt if 2 * text_width(self._prompt) <= columns else _SHORT_PROMPT
        indent = text_width(prompt)
        # The last column is left to the cursor behind the last character.
        rows = split_rows(text, cursor, max(1, columns - indent - 1))
        at = next(index for index, row in enumerate(rows) if row.before_cursor is not None)
        height = max(1, lines // 2)
        first = max(0, min(at - height // 2, len(rows) - height))
        shown = rows[first : first + height]
        heads = [prompt, *[" " * indent] * (len(shown) - 1)]
        if first:
            heads[0] = _MORE_ABOVE.ljust(indent)
        if first + height < len(rows) and len(shown) > 1:
            heads[-1] = _MORE_BELOW.ljust(indent)
        drawn = [head + escape_controls(row.text) for head, row in zip(heads, shown, strict=True)]
        self._widths = [text_width(line) for line in drawn]
        self._cursor_row = at - first
        before = heads[self._cursor_row] + escape_controls(rows[at].before_cursor or "")
        self._cursor_column = text_width(before)
        output = "\r\n".join(drawn)
        up = len(shown) - 1 - self._cursor_row
        if up or before != drawn[-1]:
            # Printing what is before the cursor places it where the terminal has put that.
            output += (f"\x1b[{up}A" if up else "") + "\r" + before
        return _WRAP_OFF + output + _WRAP_ON


def _lines(output: str) -> str:
    return output.replace("\n", "\r\n") + "\r\n"
