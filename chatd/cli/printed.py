"""What is printed above the prompt, so that a text can be replaced while it is in view."""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Hashable
from typing import Final

MAX_TEXTS: Final = 200
"""More texts than a terminal has rows."""
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


class PrintedTexts:
    """The last texts above the prompt, those with a key can be replaced."""

    def __init__(self) -> None:
        self._texts: deque[tuple[Hashable | None, str]] = deque(maxlen=MAX_TEXTS)

    def add(self, text: str, key: Hashable | None) -> None:
        """A text was printed below the others."""
        self._texts.append((key, text))

    def clear(self) -> None:
        """It is not known any more in which rows the texts are."""
        self._texts.clear()

    def replace(
        self, key: Hashable, text: str, columns: int, rows: int
    ) -> tuple[int, list[str]] | None:
        """Replace a text, if that is in the `rows` above the prompt.

        Returns how many rows it and everything below it took, and the texts to print there. None if
        it is not in view, or if it is not certain how many rows there are.
        """
        keys = [each for each, _ in self._texts]
        if key not in keys:
            return None
        first = keys.index(key)
        below = [text for _, text in self._texts][first:]
        counts = [_rows(line, columns) for each in below for line in each.split("\n")]
        taken = sum(count for count in counts if count is not None)
        if None in counts or taken > rows:
            return None
        self._texts[first] = (key, text)
        return taken, [text, *below[1:]]


def _rows(line: str, columns: int) -> int | None:
    """How many rows a line takes; None if terminals differ in that."""
    text = _COLOUR.sub("", line)
    if not all(map(_is_narrow, text)):
        # Wide, or drawn together with others, where the terminal knows how.
        return 1 if 2 * len(text) <= columns else None
    return max(1, -(-len(text) // columns))


def _is_narrow(character: str) -> bool:
    return character.isascii() or (
        unicodedata.east_asian_width(character) not in "WF"
        and unicodedata.category(character) not in ("Mn", "Me", "Mc", "Cf", "So", "Sk")
    )
